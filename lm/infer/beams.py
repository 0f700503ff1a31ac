"""Beam search: the texts of highest probability among those that a few candidates at a time lead to, as transformers finds them."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, Union

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lm.errors import UserError
from lm.infer.decode import Ids, State, Written, as_ids, check, programs, read
from lm.infer.sampling import History
from lm.infer.strategy import Steps, Strategy, compose
from lm.model import cache as kv
from lm.model.architectures import Model
from lm.types import Params

NEVER_CHOSEN = -1e9  # added to a score, or the score of what is not there


@dataclasses.dataclass(frozen=True)
class Beams:
    """Options of beam search. A text that has ended scores sum(log p) / length^length_penalty; its length counts the id that ends it.

    early_stopping  when a prompt has as many ended texts as beams: True, its search is over; False, it is over once no running text would
                    beat the worst of them at its present length; "never", once none would at its best possible length
    """

    width: int
    length_penalty: float = 1.0
    early_stopping: Union[bool, Literal["never"]] = False

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) or self.width < 1:
            raise UserError(f"beams={self.width}: give a whole number, 1 or more")
        if not math.isfinite(self.length_penalty):
            raise UserError(f"length_penalty={self.length_penalty}: give a finite number; 0 means none")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise UserError(f'early_stopping={self.early_stopping}: give True, False or "never"')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Texts:
    """The `W` best texts of each prompt, best first."""

    ids_BWL: Int[Array, "B W L"]
    log_p_BWL: Float[Array, "B W L"]
    score_BW: Float[Array, "B W"]
    size_BW: Int[Array, "B W"]  # tokens that were written


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Search:
    """The state that the loop over tokens carries."""

    cache: kv.Cache  # of the running texts, W rows for each prompt
    running: Texts  # scores are sums of log-probabilities
    ended: Texts
    is_full_BW: Bool[Array, "B W"]  # whether there is an ended text
    open_B1: Bool[Array, "B 1"]  # whether a running text may yet beat an ended one
    may_go_on: Bool[Array, ""]
    written: Int[Array, ""]


def search(
    model: Model, params: Params, prompts: Sequence[Sequence[int]], beams: Beams, *, max_new_tokens: int, strategy: Steps = (),
    eos_id: Ids = None, start_id: Ids = None, compute_dtype: Any = jnp.float32,
) -> list[list[Written]]:  # fmt: skip
    """Returns the best `beams.width` texts of each prompt, best first (lm.infer.decode.Session says what the arguments are).

    The strategy's steps change the log-probabilities of each next token.

    Raises:
      UserError: as Session does, or the strategy draws tokens, or there are more beams than the vocabulary can fill.
    """
    composed, ends, starts = compose(strategy), as_ids(eos_id), as_ids(start_id)
    given = [tuple(map(int, prompt)) for prompt in prompts]
    check(model, given, max_new_tokens, starts)
    if composed.samples:
        raise UserError("beam search takes the most likely texts, and the strategy draws tokens: give one of the two")
    kept = max(2, 1 + len(ends)) * beams.width
    if kept > beams.width * model.config.vocab_size:
        raise UserError(f"{beams.width} beams keep {kept} candidates, more than the vocabulary of {model.config.vocab_size} gives")
    dtype = jnp.dtype(compute_dtype).name
    rows = [prompt for prompt in given for _ in range(beams.width)]
    logits_RV, state = read(programs(model, dtype), model, params, given, rows, max_new_tokens, starts)
    begin_BW = np.asarray(state.length_B).copy().reshape(-1, beams.width)
    numbers = np.int32(max_new_tokens), np.float32(beams.length_penalty)
    rules = Rules(begin_BW, np.array(ends, np.int32), *numbers, composed, beams.early_stopping)  # type: ignore[arg-type]
    return _written(_compiled(model, dtype)(params, state, logits_RV, rules), begin_BW[:, 0], ends)


def _written(texts: Texts, begin_B: np.ndarray, ends: tuple[int, ...]) -> list[list[Written]]:
    ids_BWL, log_p_BWL, size_BW = (np.asarray(x) for x in (texts.ids_BWL, texts.log_p_BWL, texts.size_BW))
    found: list[list[Written]] = []
    for row, begin in enumerate(begin_B.tolist()):
        found.append([])
        for beam, size in enumerate(size_BW[row].tolist()):
            is_ended = size > 0 and int(ids_BWL[row, beam, begin + size - 1]) in ends
            part = slice(begin, begin + size - is_ended)
            last = float(log_p_BWL[row, beam, begin + size - 1]) if is_ended else None
            found[-1].append(Written(ids_BWL[row, beam, part].tolist(), log_p_BWL[row, beam, part].tolist(), is_ended, last))
    return found


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """What a search is told and never changes."""

    begin_BW: Int[Array, "B W"]
    ends_E: Int[Array, " E"]
    most: Int[Array, ""]
    penalty: Float[Array, ""]
    strategy: Strategy
    early_stopping: Union[bool, str] = dataclasses.field(metadata={"static": True})

    def score(self, log_p: jax.Array, size: jax.Array) -> jax.Array:
        """Returns the score of an ended text of `size` tokens."""
        return log_p / jnp.power(size.astype(jnp.float32), self.penalty)


@functools.lru_cache(maxsize=16)
def _compiled(model: Model, dtype: str) -> Any:
    return jax.jit(functools.partial(_search, model, dtype))


def _search(model: Model, dtype: str, params: Params, state: State, logits_RV: jax.Array, rules: Rules) -> Texts:
    (batch, width), length = rules.begin_BW.shape, state.ids_BL.shape[1]

    def step(search: Search) -> Search:
        last_BW = _at(search.running.ids_BWL, rules.begin_BW[:, 0] + search.written - 1)
        logits_RV, cache = model.decode_step(params, last_BW.reshape(-1), search.cache, compute_dtype=dtype)
        return _advanced(dataclasses.replace(search, cache=cache), logits_RV, rules)

    ids_BWL = state.ids_BL.reshape(batch, width, length)
    none_BW, zeros_BW = jnp.full((batch, width), NEVER_CHOSEN), jnp.zeros((batch, width), jnp.int32)
    # All beams begin alike: only the first counts, or all would find the same.
    first_BW = none_BW.at[:, 0].set(0.0)
    running, ended = (Texts(ids_BWL, jnp.zeros(ids_BWL.shape, jnp.float32), score_BW, zeros_BW) for score_BW in (first_BW, none_BW))
    full_BW, open_B1 = jnp.zeros((batch, width), bool), jnp.ones((batch, 1), bool)
    begun = Search(state.cache, running, ended, full_BW, open_B1, jnp.array(True), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(lambda search: search.may_go_on, step, _advanced(begun, logits_RV, rules)).ended


def _advanced(search: Search, logits_RV: jax.Array, rules: Rules) -> Search:
    """Adds one token to the running texts, given the logits after each."""
    batch, width, length = search.running.ids_BWL.shape
    begin_BW, written = rules.begin_BW, search.written + 1
    at_B = begin_BW[:, 0] + search.written
    before = (begin_BW + search.written).reshape(-1)
    history = History(search.running.ids_BWL.reshape(-1, length), before, begin_BW.reshape(-1), rules.ends_E, rules.most)
    plain_RV = jax.nn.log_softmax(logits_RV, axis=-1)
    sums_RV = rules.strategy.scores(plain_RV, history) + search.running.score_BW.reshape(-1, 1)
    candidates, from_BC = _best(search.running, sums_RV.reshape(batch, -1), plain_RV.reshape(batch, -1), at_B, rules.ends_E.shape[0])
    ends_BC = jnp.isin(_at(candidates.ids_BWL, at_B), rules.ends_E) | (written >= rules.most)

    still = dataclasses.replace(candidates, score_BW=candidates.score_BW + ends_BC * NEVER_CHOSEN)
    order_BW = jax.lax.top_k(still.score_BW, width)[1]
    running = _taken(still, order_BW)
    ended, full_BW = _ended(search, candidates, ends_BC, written, rules)
    open_B1 = search.open_B1 & _may_improve(running, ended, full_BW, written, rules)
    all_over = jnp.all(full_BW) & (rules.early_stopping is True)
    beam_BW = jnp.arange(batch)[:, None] * width + jnp.take_along_axis(from_BC, order_BW, axis=1)
    cache = kv.rows(search.cache, beam_BW.reshape(-1), memory=False)
    return Search(cache, running, ended, full_BW, open_B1, jnp.any(open_B1) & ~all_over & ~jnp.all(ends_BC), written)


def _ended(search: Search, candidates: Texts, ends_BC: jax.Array, written: jax.Array, rules: Rules) -> tuple[Texts, jax.Array]:
    """Returns (the best ended texts, those that have just ended among them; whether there is one in each place)."""
    width = search.is_full_BW.shape[1]
    # The candidates after the first ones are there to run on, and may not end.
    may_end_BC = ends_BC & (jnp.arange(ends_BC.shape[1]) < width)
    over_B1 = jnp.all(search.is_full_BW, axis=1, keepdims=True) & (rules.early_stopping is True)
    score_BC = rules.score(candidates.score_BW, written)
    for refused in (over_B1, ~search.open_B1, ~may_end_BC):
        score_BC = score_BC + refused * NEVER_CHOSEN
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), search.ended, dataclasses.replace(candidates, score_BW=score_BC))
    best_BW = jax.lax.top_k(both.score_BW, width)[1]
    full_BX = jnp.concatenate([search.is_full_BW, may_end_BC], axis=1)
    return _taken(both, best_BW), jnp.take_along_axis(full_BX, best_BW, axis=1)


def _may_improve(running: Texts, ended: Texts, full_BW: jax.Array, written: jax.Array, rules: Rules) -> jax.Array:
    """Returns [B, 1], whether the best running text may yet beat the worst ended one."""
    furthest = written
    if rules.early_stopping == "never":  # with a penalty below 0, which favours short texts, a running text is at its best now
        furthest = jnp.where(rules.penalty > 0, rules.most, written)
    hope_B1 = rules.score(running.score_BW[:, :1], furthest)
    worst_BW = jnp.where(full_BW, jnp.min(ended.score_BW, axis=1, keepdims=True), NEVER_CHOSEN)
    return jnp.any(hope_B1 > worst_BW, axis=1, keepdims=True)


def _best(running: Texts, sums_BX: jax.Array, plain_BX: jax.Array, at_B: jax.Array, ends: int) -> tuple[Texts, jax.Array]:
    """Returns the best candidates for the next token, all beams of a prompt together, and the beam that each continues.

    There are so many that as many as there are beams do not end, if the others do.
    """
    width = running.score_BW.shape[1]
    score_BC, which_BC = jax.lax.top_k(sums_BX, max(2, 1 + ends) * width)
    from_BC, token_BC = jnp.divmod(which_BC, sums_BX.shape[1] // width)
    taken = _taken(running, from_BC)
    row_B1, column_1C = jnp.arange(score_BC.shape[0])[:, None], jnp.arange(score_BC.shape[1])[None]
    log_p_BC = jnp.take_along_axis(plain_BX, which_BC, axis=1)
    candidates = Texts(
        taken.ids_BWL.at[row_B1, column_1C, at_B[:, None]].set(token_BC.astype(jnp.int32)),
        taken.log_p_BWL.at[row_B1, column_1C, at_B[:, None]].set(log_p_BC),
        score_BC,
        taken.size_BW + 1,
    )
    return candidates, from_BC


def _taken(texts: Texts, index_BX: jax.Array) -> Texts:
    """Returns the texts of each prompt that the indices name."""

    def of(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, index_BX.reshape(*index_BX.shape, *[1] * (x.ndim - 2)), axis=1)

    return jax.tree.map(of, texts)


def _at(ids_BXL: jax.Array, at_B: jax.Array) -> jax.Array:
    """Returns the ids [B, X] at one index of each prompt's texts."""
    return jnp.take_along_axis(ids_BXL, at_B[:, None, None], axis=2)[..., 0]
