"""Continues texts with a model: prompts of any lengths in one batch, read by one compiled program and continued by another."""

import dataclasses
import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lm.errors import UserError
from lm.infer.sampling import NO_ID, History
from lm.infer.strategy import Steps, Strategy, compose
from lm.model import cache as kv
from lm.model.architectures import Model
from lm.model.parts.positions import limit
from lm.types import Inputs, Params

Ids = Union[int, Sequence[int], None]
SHORTEST = 16  # length of the first bucket
LARGEST_SEED = 2**32 - 1


class Written(NamedTuple):
    """A text that a model wrote, without its prompt and the id that ended it."""

    ids: list[int]
    log_probs: list[float]  # of each id, in nats, under the model as it is: without temperature or penalties
    ended: bool  # by an id that ends texts, or the caller; and not by its length
    end_log_prob: Optional[float] = None  # of the id that ended it, where one did


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The state that the loop over tokens carries. The model has read all ids but the last of each row."""

    cache: kv.Cache
    ids_BL: Int[Array, "B L"]  # the stream of the decoder: what it began with, and what it wrote
    log_p_BL: Float[Array, "B L"]
    length_B: Int[Array, " B"]
    done_B: Bool[Array, " B"]
    written: Int[Array, ""]  # tokens of a row that has not ended


def bucket(length: int, most: Optional[int] = None) -> int:
    """Returns the length that arrays for `length` tokens have: 16, 24, 32, 48, 64, 96, ..., but no more than `most`."""
    size = SHORTEST
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
    return size if most is None else min(size, max(most, length))


def generate(model: Model, params: Params, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
    """Returns the ids that the model writes after each prompt (see Session). A text ends before an `eos_id` or after `max_new_tokens`."""
    session = Session(model, params, prompts, **options)
    session.advance()
    return [text.ids for text in session.written()]


class Session:
    """Texts that a model is writing: prompts have been read, and `advance` writes on.

    Draws depend on the prompt, its number among equal prompts and the seed, and not on the other rows. Neither do logits, up to rounding,
    which in bfloat16 is large enough to change texts. The whole prompt of a prefix LM is its prefix. Prompts that are equal are read once.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        strategy: Steps = (),
        eos_id: Ids = None,
        start_id: Ids = None,
        seed: int = 0,
        compute_dtype: Any = jnp.float32,
    ):
        """Reads the prompts.

        Args:
          model: the model, which must not be encoder-only.
          params: its parameters.
          prompts: token ids. The encoder of an encoder-decoder reads them.
          max_new_tokens: the largest number of new tokens.
          strategy: how the next token is chosen: steps in any order (lm.infer.strategy); greedy without any.
          eos_id: the id that ends a text, or several of them (None: all texts have `max_new_tokens`).
          start_id: the first id of the decoder of an encoder-decoder, or its first ids.
          seed: the seed of the draws.
          compute_dtype: the dtype of activations and of the cache.

        Raises:
          UserError: a prompt is empty, an id is beyond the vocabulary, a text is longer than the model reads, the strategy contradicts
            itself, or the model is encoder-only.
        """
        self.prompts = [tuple(map(int, prompt)) for prompt in prompts]
        self.ends, starts = as_ids(eos_id), as_ids(start_id)
        check(model, self.prompts, max_new_tokens, starts)
        self.params, self.most = params, max_new_tokens
        self.strategy: Strategy = compose(strategy)
        self.programs = programs(model, jnp.dtype(compute_dtype).name)
        self.ends_E = np.full(bucket(len(self.ends)), NO_ID, np.int32)
        self.ends_E[: len(self.ends)] = self.ends
        self.keys_B = row_keys(seed, self.prompts)
        self.logits_BV, self.state = read(self.programs, model, params, self.prompts, self.prompts, max_new_tokens, starts)
        self.begin_B = np.asarray(self.state.length_B).copy()  # the state's own is given away
        self.stopped = np.zeros(len(prompts), bool)

    def advance(self, tokens: Optional[int] = None) -> None:
        """Writes up to so many further tokens of each text (None: all of them)."""
        until = self.most if tokens is None else min(int(self.state.written) + tokens, self.most)
        rest = (self.begin_B, self.ends_E, np.int32(self.most), self.keys_B, self.strategy, np.int32(until))
        self.state = self.programs.write(self.params, self.state, self.logits_BV, *rest)

    def stop(self, rows: Sequence[int]) -> None:
        """Ends the texts of some rows where they are."""
        self.stopped[list(rows)] = True
        self.state = dataclasses.replace(self.state, done_B=self.state.done_B | self.stopped)

    @property
    def done(self) -> bool:
        """True when all texts have ended."""
        return bool(np.all(self.state.done_B))

    def written(self) -> list[Written]:
        """Returns the texts so far."""
        texts = texts_of(self.state.ids_BL, self.state.log_p_BL, self.begin_B, self.state.length_B, self.ends)
        return [text._replace(ended=text.ended or bool(stopped)) for text, stopped in zip(texts, self.stopped, strict=True)]


def texts_of(ids_BL: Any, log_p_BL: Any, begin_B: np.ndarray, length_B: Any, ends: tuple[int, ...]) -> list[Written]:
    """Returns what stands in each row between two indices, without an id that ends it."""
    ids_BL, log_p_BL, found = np.asarray(ids_BL), np.asarray(log_p_BL), []
    for row, (begin, end) in enumerate(zip(begin_B.tolist(), np.asarray(length_B).tolist(), strict=True)):
        ended = end > begin and int(ids_BL[row, end - 1]) in ends
        part = slice(begin, end - ended)
        last = float(log_p_BL[row, end - 1]) if ended else None
        found.append(Written(ids_BL[row, part].tolist(), log_p_BL[row, part].tolist(), ended, last))
    return found


class Programs(NamedTuple):
    """The two compiled programs of a model. JAX compiles each once for each set of buckets and kind of strategy."""

    read: Any
    write: Any


@functools.lru_cache(maxsize=16)
def programs(model: Model, dtype: str) -> Programs:
    """Returns the programs of a model that computes in `dtype`."""
    return Programs(
        jax.jit(functools.partial(_read, model, dtype)),
        jax.jit(functools.partial(_write, model, dtype), donate_argnums=1),
    )


def read(
    programs: Programs, model: Model, params: Params, prompts: Sequence[tuple[int, ...]], rows: Sequence[tuple[int, ...]], new: int,
    starts: tuple[int, ...],
) -> tuple[jax.Array, State]:  # fmt: skip
    """Reads prompts, each that is there several times once, and returns (logits_BV of the next token, the state) of `rows` of them."""
    once = list(dict.fromkeys(prompts))
    most = limit(model.config)
    tokens_UT, lengths_U = padded(once, bucket(max(map(len, once)), most))
    which_B = np.array([once.index(prompt) for prompt in rows], np.int32)
    streams = [starts] * len(rows) if model.config.architecture == "encoder_decoder" else rows
    ids_BL, length_B = padded(streams, bucket(max(map(len, streams)) + new, most))
    begun = jnp.asarray(starts, jnp.int32)
    return programs.read(params, tokens_UT, lengths_U, begun, which_B, ids_BL, length_B)


def _read(
    model: Model, dtype: str, params: Params, tokens_UT: jax.Array, lengths_U: jax.Array, starts_T: jax.Array, which_B: jax.Array,
    ids_BL: jax.Array, length_B: jax.Array,
) -> tuple[jax.Array, State]:  # fmt: skip
    """Reads prompts; returns (logits after each row's last token, state) of the rows `which_B` of them."""
    batch, longest = tokens_UT.shape
    inputs, memory = Inputs(tokens_UT), 0
    if model.config.architecture == "encoder_decoder":
        segments_US = (jnp.arange(longest) < lengths_U[:, None]).astype(jnp.int32)
        first_UT = jnp.broadcast_to(starts_T, (batch, *starts_T.shape))
        inputs = Inputs(first_UT, encoder_tokens=tokens_UT, encoder_segments=segments_US)
        memory, lengths_U = longest, jnp.full_like(lengths_U, first_UT.shape[1])
    cache = model.init_cache(batch, ids_BL.shape[1], dtype, memory=memory)
    logits_UV, cache = model.prefill(params, inputs, lengths_U, cache, compute_dtype=dtype)
    empty_B, nothing_BL = jnp.zeros(length_B.shape, bool), jnp.zeros(ids_BL.shape, jnp.float32)
    state = State(kv.rows(cache, which_B), ids_BL, nothing_BL, length_B, empty_B, jnp.zeros((), jnp.int32))
    return logits_UV[which_B], state


def _write(
    model: Model, dtype: str, params: Params, state: State, logits_BV: jax.Array, begin_B: jax.Array, ends_E: jax.Array, most: jax.Array,
    keys_B: jax.Array, strategy: Strategy, until: jax.Array,
) -> State:  # fmt: skip
    """Writes tokens until every row has ended or has `until` of them. `logits_BV` are those of the first."""
    row_B = jnp.arange(begin_B.shape[0])

    def emit(state: State, logits_BV: jax.Array) -> State:
        history = History(state.ids_BL, state.length_B, begin_B, ends_E, most)
        keys = jax.vmap(jax.random.fold_in)(keys_B, history.new_B) if strategy.samples else keys_B
        token_B = strategy.choose(strategy.scores(logits_BV, history), keys)
        log_p_B = logits_BV[row_B, token_B] - jax.nn.logsumexp(logits_BV, axis=-1)
        at_B = jnp.where(state.done_B, state.ids_BL.shape[1], state.length_B)
        return dataclasses.replace(
            state,
            ids_BL=state.ids_BL.at[row_B, at_B].set(token_B, mode="drop"),
            log_p_BL=state.log_p_BL.at[row_B, at_B].set(log_p_B.astype(jnp.float32), mode="drop"),
            length_B=state.length_B + ~state.done_B,
            done_B=state.done_B | jnp.isin(token_B, ends_E) | (history.new_B + 1 >= most),
            written=state.written + 1,
        )

    def step(state: State) -> State:
        last_B = state.ids_BL[row_B, state.length_B - 1]  # of a row that has ended, again and again
        logits_BV, cache = model.decode_step(params, last_B, state.cache, compute_dtype=dtype)
        return emit(dataclasses.replace(state, cache=cache), logits_BV)

    state = jax.lax.cond(state.written == 0, emit, lambda state, _: state, state, logits_BV)
    return jax.lax.while_loop(lambda state: (state.written < until) & ~jnp.all(state.done_B), step, state)


def padded(rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (ids [B, length], zeros after the end of each; their lengths)."""
    ids_BT = np.zeros((len(rows), length), np.int32)
    for row, ids in enumerate(rows):
        ids_BT[row, : len(ids)] = ids
    return ids_BT, np.array([len(ids) for ids in rows], np.int32)


def as_ids(given: Ids) -> tuple[int, ...]:
    """Returns one id, several or none as a tuple."""
    return () if given is None else (given,) if isinstance(given, int) else tuple(given)


def row_keys(seed: int, prompts: Sequence[tuple[int, ...]]) -> jax.Array:
    """Returns a random key for each text: a function of the seed, its prompt, and its number among equal prompts.

    Raises:
      UserError: the seed is no whole number of 32 bits.
    """
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"seed={seed}: give a whole number from 0 to {LARGEST_SEED}")
    words, seen = [], dict[tuple[int, ...], int]()
    for prompt in prompts:
        seen[prompt] = seen.get(prompt, -1) + 1
        words.append((zlib.crc32(np.asarray(prompt, np.int64).tobytes()), seen[prompt]))
    return _folded(np.uint32(seed), np.array(words, np.uint32))


@jax.jit
def _folded(seed: jax.Array, words_B2: jax.Array) -> jax.Array:
    def of_row(words_2: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), words_2[0]), words_2[1])

    return jax.vmap(of_row)(words_B2)


def check(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int, starts: tuple[int, ...]) -> None:
    """Raises UserError where the model cannot write what is asked for."""
    config = model.config
    if config.architecture == "encoder":
        raise UserError("an encoder-only model does not continue texts: it has no causal stack")
    if config.architecture == "encoder_decoder" and not starts:
        raise UserError("the decoder of an encoder-decoder needs a first id: give start_id (in training here it is the end of document)")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens} must be 1 or more")
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError("a prompt is empty: give at least one token")
    for prompt in (*prompts, starts):
        wrong = [token for token in prompt if not 0 <= token < config.vocab_size]
        if wrong:
            raise UserError(f"token id {wrong[0]} is beyond the vocabulary of {config.vocab_size}: the tokenizer is not this model's")
    _check_lengths(model, max(map(len, prompts)), max_new_tokens, starts)


def _check_lengths(model: Model, longest: int, new: int, starts: tuple[int, ...]) -> None:
    most, name = limit(model.config), model.config.positions
    if most is None:
        return
    begun, pair = longest, model.config.architecture == "encoder_decoder"
    if pair:
        begun = len(starts)
    if longest > most:
        raise UserError(f"the prompt has {longest} tokens, and the {name} positions end at max_length={most}: shorten it")
    if begun + new > most:
        read = "" if pair else f"{longest} of the prompt and "
        raise UserError(
            f"{read}{new} new tokens are too many: the {name} positions end at max_length={most}; ask for {most - begun} at most"
        )
