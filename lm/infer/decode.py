"""Continues texts with a model: prompts of any lengths in one batch, one decode step, a KV cache that is updated in place."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, Union

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from lm.errors import UserError
from lm.infer.sampling import Greedy, Sampler
from lm.model.architectures import Model
from lm.model.cache import Cache
from lm.types import Inputs, Params

Ids = Union[int, Sequence[int], None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """The state that the decoding loop carries."""

    cache: Cache
    next_B: Int[Array, " B"]  # tokens that are drawn and that the model has not read yet
    out_BM: Int[Array, "B M"]
    written: Int[Array, ""]  # tokens drawn so far
    done_B: Bool[Array, " B"]


def generate(
    model: Model,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampler: Sampler = Greedy(),
    eos_id: Ids = None,
    start_id: Ids = None,
    seed: int = 0,
    compute_dtype: Any = jnp.float32,
) -> list[list[int]]:
    """Returns the continuation of each prompt, without the prompt. It ends before an `eos_id` or after `max_new_tokens`.

    The result of a row depends on its prompt, its index and the seed, not on the other rows. The whole prompt of a prefix LM is its prefix.

    Args:
      model: the model, which must not be encoder-only.
      params: its parameters.
      prompts: token ids. The encoder of an encoder-decoder reads them.
      max_new_tokens: the largest number of new tokens.
      sampler: how the next token is drawn.
      eos_id: the id that ends a text, or several of them (None: all rows have `max_new_tokens`).
      start_id: the first id of the decoder of an encoder-decoder, or its first ids.
      seed: the seed of the draws.
      compute_dtype: the dtype of activations and of the cache.

    Raises:
      UserError: a prompt is empty, an id is beyond the vocabulary, a text is longer than learned positions allow, or the model is
        encoder-only.
    """
    ends, starts = _ids(eos_id), _ids(start_id)
    _check(model, prompts, max_new_tokens, starts)
    longest = max(len(prompt) for prompt in prompts)
    tokens_BT = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, : len(prompt)] = prompt
    lengths_B = np.array([len(prompt) for prompt in prompts], np.int32)
    keys_B = jax.random.split(jax.random.key(seed), len(prompts))
    run = _compiled(model, sampler, max_new_tokens, ends, starts, jnp.dtype(compute_dtype).name)
    out_BM = np.asarray(run(params, tokens_BT, lengths_B, keys_B))
    return [list(itertools.takewhile(lambda i: i not in ends, row.tolist())) for row in out_BM]


def _ids(given: Ids) -> tuple[int, ...]:
    return () if given is None else (given,) if isinstance(given, int) else tuple(given)


@functools.lru_cache(maxsize=16)
def _compiled(model: Model, sampler: Sampler, new_tokens: int, ends: tuple[int, ...], starts: tuple[int, ...], dtype: str) -> Any:
    """Returns a jitted function: prefill, then a loop over `step` until every row is done."""

    def draw(logits_BV: jax.Array, keys_B: jax.Array, written: jax.Array) -> jax.Array:
        return sampler.sample(logits_BV, jax.vmap(jax.random.fold_in, (0, None))(keys_B, written))

    def step(params: Params, keys_B: jax.Array, state: State) -> State:
        state = _emit(state, ends)
        logits_BV, cache = model.decode_step(params, state.next_B, state.cache, compute_dtype=dtype)
        return dataclasses.replace(state, cache=cache, next_B=draw(logits_BV, keys_B, state.written))

    def run(params: Params, tokens_BT: jax.Array, lengths_B: jax.Array, keys_B: jax.Array) -> jax.Array:
        batch, longest = tokens_BT.shape
        inputs, memory = Inputs(tokens_BT), 0
        if model.config.architecture == "encoder_decoder":
            segments_BS = (jnp.arange(longest) < lengths_B[:, None]).astype(jnp.int32)
            first_BT = jnp.broadcast_to(jnp.asarray(starts, jnp.int32), (batch, len(starts)))
            inputs = Inputs(first_BT, encoder_tokens=tokens_BT, encoder_segments=segments_BS)
            longest, memory, lengths_B = len(starts), longest, jnp.full_like(lengths_B, len(starts))
        cache = model.init_cache(batch, longest + new_tokens, dtype, memory=memory)
        logits_BV, cache = model.prefill(params, inputs, lengths_B, cache, compute_dtype=dtype)
        zero = jnp.zeros((), jnp.int32)
        first = State(cache, draw(logits_BV, keys_B, zero), jnp.zeros((batch, new_tokens), jnp.int32), zero, jnp.zeros((batch,), bool))

        def unfinished(state: State) -> jax.Array:
            return (state.written < new_tokens - 1) & ~jnp.all(state.done_B)

        return _emit(jax.lax.while_loop(unfinished, functools.partial(step, params, keys_B), first), ends).out_BM

    return jax.jit(run)


def _emit(state: State, ends: tuple[int, ...]) -> State:
    """Appends the drawn tokens to the output. A row that is done repeats an id that ends it."""
    if not ends:
        token_B, done_B = state.next_B, state.done_B
    else:
        token_B = jnp.where(state.done_B, ends[0], state.next_B)
        done_B = state.done_B | jnp.isin(token_B, jnp.asarray(ends))
    out_BM = jax.lax.dynamic_update_slice_in_dim(state.out_BM, token_B[:, None], state.written, axis=1)
    return dataclasses.replace(state, next_B=token_B, out_BM=out_BM, written=state.written + 1, done_B=done_B)


def _check(model: Model, prompts: Sequence[Sequence[int]], max_new_tokens: int, starts: tuple[int, ...]) -> None:
    if model.config.architecture == "encoder_decoder" and not starts:
        raise UserError("the decoder of an encoder-decoder needs a first id: give start_id (in training here it is the end of document)")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens} must be 1 or more")
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError("a prompt is empty: give at least one token")
    for prompt in (*prompts, starts):
        wrong = [token for token in prompt if not 0 <= token < model.config.vocab_size]
        if wrong:
            raise UserError(f"token id {wrong[0]} is beyond the vocabulary of {model.config.vocab_size}: the tokenizer is not this model's")
