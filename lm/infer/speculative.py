"""Speculative decoding: a smaller model guesses tokens, and the model reads several at once and keeps those it may have drawn."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lm.errors import UserError
from lm.infer.decode import Ids, Written, as_ids, check, programs, read, row_keys, texts_of
from lm.infer.sampling import History
from lm.infer.strategy import Steps, Strategy, compose
from lm.model import cache as kv
from lm.model.architectures import Model
from lm.types import Params


class Draft(NamedTuple):
    """The model that guesses, and how many tokens it guesses at a time."""

    model: Model
    params: Params
    guesses: int = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Round:
    """The state that the loop carries. Both models have read all ids but the last of each row."""

    cache: kv.Cache
    draft_cache: kv.Cache
    ids_BL: Int[Array, "B L"]
    log_p_BL: Float[Array, "B L"]
    length_B: Int[Array, " B"]
    done_B: Bool[Array, " B"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """What a call is told and never changes."""

    begin_B: Int[Array, " B"]
    ends_E: Int[Array, " E"]
    most: Int[Array, ""]
    keys_B: Any
    strategy: Strategy

    def shares(self, logits_BV: jax.Array, ids_BL: jax.Array, length_B: jax.Array) -> jax.Array:
        """Returns the probabilities [B, V] that the next token is drawn with; all of it is on one if the strategy is greedy."""
        scores_BV = self.strategy.scores(logits_BV, History(ids_BL, length_B, self.begin_B, self.ends_E, self.most))
        if self.strategy.samples:
            return jax.nn.softmax(scores_BV, axis=-1)
        return jax.nn.one_hot(jnp.argmax(scores_BV, axis=-1), scores_BV.shape[-1])


def write(
    model: Model, params: Params, draft: Draft, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, strategy: Steps = (),
    eos_id: Ids = None, start_id: Ids = None, seed: int = 0, compute_dtype: Any = jnp.float32,
) -> list[Written]:  # fmt: skip
    """Returns a text for each prompt, of the distribution that the model alone gives (lm.infer.decode.Session says what the arguments are).

    A guess of probability q is kept with probability min(1, p / q), p being the model's; the first that is not is replaced by a draw from
    what p has more than q (Leviathan et al. 2023, section 2.3). Greedy texts are those of the model alone.

    Raises:
      UserError: as Session does, or the two models do not belong together, or one has a window, whose cache forgets what would be needed.
    """
    given, ends, starts, small = [tuple(map(int, prompt)) for prompt in prompts], as_ids(eos_id), as_ids(start_id), draft.model
    _check_pair(model, draft)
    room = max_new_tokens + draft.guesses + 1  # guesses are read before they are known to be too many
    for each in (model, small):
        check(each, given, max_new_tokens, starts)
        check(each, given, room, starts)
    dtype = jnp.dtype(compute_dtype).name
    logits_BV, state = read(programs(model, dtype), model, params, given, given, room, starts)
    _, draft_state = read(programs(small, dtype), small, draft.params, given, given, room, starts)
    begin_B = np.asarray(state.length_B).copy()
    rules = Rules(begin_B, np.array(ends, np.int32), np.int32(max_new_tokens), row_keys(seed, given), compose(strategy))  # type: ignore[arg-type]
    begun = Round(state.cache, draft_state.cache, state.ids_BL, state.log_p_BL, state.length_B, state.done_B)
    end = _compiled(model, small, draft.guesses, dtype)(params, draft.params, begun, logits_BV, rules)
    return texts_of(end.ids_BL, end.log_p_BL, begin_B, end.length_B, ends)


def _check_pair(model: Model, draft: Draft) -> None:
    ours, theirs = model.config, draft.model.config
    if draft.guesses < 1:
        raise UserError(f"guesses={draft.guesses}: give 1 or more")
    if ours.vocab_size != theirs.vocab_size or (ours.architecture == "encoder_decoder") != (theirs.architecture == "encoder_decoder"):
        raise UserError(
            f"the draft is {theirs.architecture} with a vocabulary of {theirs.vocab_size}, and the model {ours.architecture} with"
            f" {ours.vocab_size}: they have to read the same prompts and write the same ids"
        )
    if ours.attention.window is not None or theirs.attention.window is not None:
        raise UserError("a model with a window forgets keys that rejected guesses have replaced: decode it without a draft")


@functools.lru_cache(maxsize=16)
def _compiled(model: Model, draft: Model, guesses: int, dtype: str) -> Any:
    return jax.jit(functools.partial(_run, model, draft, guesses, dtype))


def _run(
    model: Model, draft: Model, guesses: int, dtype: str, params: Params, draft_params: Params, state: Round, logits_BV: jax.Array,
    rules: Rules,
) -> Round:  # fmt: skip
    def step(state: Round) -> Round:
        uniform_BG, gumbel_BXV = _noise(rules, state.length_B, guesses, logits_BV.shape[1])
        guessed = functools.partial(draft.decode_step, draft_params, compute_dtype=dtype)
        state, q_BXV = _guess(guessed, state, gumbel_BXV, rules)
        tokens_BX = _window(state.ids_BL, state.length_B - 1, guesses + 1)
        logits_BXV, cache = model.extend(params, tokens_BX, state.cache, compute_dtype=dtype)
        return _kept(dataclasses.replace(state, cache=cache), logits_BXV, q_BXV, uniform_BG, gumbel_BXV, rules)

    first_B1V = logits_BV[:, None]
    _, gumbel_BXV = _noise(rules, state.length_B, guesses, logits_BV.shape[1])
    nothing = jnp.zeros((*logits_BV.shape[:1], 0))
    state = _kept(state, first_B1V, jnp.zeros_like(first_B1V), nothing, gumbel_BXV, rules, begin=True)
    return jax.lax.while_loop(lambda state: ~jnp.all(state.done_B), step, state)


def _noise(rules: Rules, length_B: jax.Array, guesses: int, vocabulary: int) -> tuple[jax.Array, jax.Array]:
    """Returns the uniform numbers [B, guesses] and Gumbel ones [B, guesses + 1, V] of a round."""

    def of_row(key: jax.Array, new: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(jax.random.fold_in(key, new))
        return jax.random.uniform(first, (guesses,)), jax.random.gumbel(second, (guesses + 1, vocabulary))

    return jax.vmap(of_row)(rules.keys_B, length_B - rules.begin_B)


def _guess(guessed: Any, state: Round, gumbel_BXV: jax.Array, rules: Rules) -> tuple[Round, jax.Array]:
    """Returns the state with guesses after each row's ids, and their probabilities [B, guesses + 1, V], 0 after the last."""
    row_B, ids_BL, cache, shares = jnp.arange(state.length_B.shape[0]), state.ids_BL, state.draft_cache, []
    guesses = gumbel_BXV.shape[1] - 1
    for i in range(guesses):
        length_B = state.length_B + i
        logits_BV, cache = guessed(ids_BL[row_B, length_B - 1], cache)
        shares.append(rules.shares(logits_BV, ids_BL, length_B))
        ids_BL = ids_BL.at[row_B, length_B].set(_drawn(shares[-1], gumbel_BXV[:, i]))
    _, cache = guessed(ids_BL[row_B, state.length_B + guesses - 1], cache)
    return dataclasses.replace(state, ids_BL=ids_BL, draft_cache=cache), jnp.stack([*shares, jnp.zeros_like(shares[0])], axis=1)


def _kept(
    state: Round, logits_BXV: jax.Array, q_BXV: jax.Array, uniform_BG: jax.Array, gumbel_BXV: jax.Array, rules: Rules, *,
    begin: bool = False,
) -> Round:  # fmt: skip
    """Keeps guesses up to the first that is refused, and puts a token of the model's own after them. At the beginning nothing was read."""
    row_B, ids_BL, base_B, tokens = jnp.arange(state.length_B.shape[0]), state.ids_BL, state.length_B, logits_BXV.shape[1]
    p_BXV = jnp.stack([rules.shares(logits_BXV[:, i], ids_BL, base_B + i) for i in range(tokens)], axis=1)
    guess_BG = _window(ids_BL, base_B, tokens - 1)
    p_BG, q_BG = (jnp.take_along_axis(x_BXV[:, : tokens - 1], guess_BG[..., None], axis=2)[..., 0] for x_BXV in (p_BXV, q_BXV))
    kept_B = jnp.sum(jnp.cumprod(uniform_BG * q_BG < p_BG, axis=1), axis=1).astype(jnp.int32)
    p_BV, q_BV = p_BXV[row_B, kept_B], q_BXV[row_B, kept_B]
    more_BV = jnp.maximum(p_BV - q_BV, 0.0)
    more_BV = jnp.where(jnp.sum(more_BV, axis=1, keepdims=True) > 0, more_BV, p_BV)
    # The noise of a guess that was refused is not new; that of the place after the last guess has not been used.
    ids_BL = ids_BL.at[row_B, base_B + kept_B].set(_drawn(more_BV, gumbel_BXV[:, -1]))

    found_BX = _window(ids_BL, base_B, tokens)
    number_X = jnp.arange(tokens)
    last_BX = jnp.isin(found_BX, rules.ends_E) | (base_B[:, None] + number_X + 1 - rules.begin_B[:, None] >= rules.most)
    last_BX &= number_X <= kept_B[:, None]
    count_B = jnp.where(jnp.any(last_BX, axis=1), jnp.argmax(last_BX, axis=1) + 1, kept_B + 1)
    length_B = jnp.where(state.done_B, base_B, base_B + count_B)
    log_p_BX = jnp.take_along_axis(jax.nn.log_softmax(logits_BXV), found_BX[..., None], axis=2)[..., 0]
    at_BX = jnp.where(state.done_B[:, None], ids_BL.shape[1], base_B[:, None] + number_X)
    return dataclasses.replace(
        state,
        cache=state.cache if begin else kv.cut(state.cache, length_B - 1),
        draft_cache=state.draft_cache if begin else kv.cut(state.draft_cache, length_B - 1),
        ids_BL=ids_BL,
        log_p_BL=state.log_p_BL.at[row_B[:, None], at_BX].set(log_p_BX, mode="drop"),
        length_B=length_B,
        done_B=state.done_B | jnp.any(last_BX, axis=1),
    )


def _drawn(share_BV: jax.Array, gumbel_BV: jax.Array) -> jax.Array:
    """Returns a token of each row by its share of the row's sum."""
    return jnp.argmax(jnp.log(share_BV) + gumbel_BV, axis=-1).astype(jnp.int32)


def _window(ids_BL: jax.Array, begin_B: jax.Array, size: int) -> jax.Array:
    """Returns `size` ids of each row from an index on."""
    return jnp.take_along_axis(ids_BL, begin_B[:, None] + jnp.arange(size), axis=1)
