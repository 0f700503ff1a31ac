"""The strategy of decoding: steps that are applied to the logits in one order, and then the most likely token or a draw."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Union

import jax
from jaxtyping import Array, Float, Int

from lm.errors import UserError
from lm.infer.penalties import (
    Banned,
    ForcedFirst,
    ForcedLast,
    FrequencyPenalty,
    MinLength,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from lm.infer.sampling import Greedy, History, MinP, Temperature, TopK, TopP, Typical, draw, most_likely

Step = Union[
    RepetitionPenalty, PresencePenalty, FrequencyPenalty, NoRepeatNGram, Banned, MinLength, ForcedFirst, ForcedLast,
    Greedy, Temperature, TopK, TopP, MinP, Typical,
]  # fmt: skip
# The order of transformers' generate. It has no penalties of presence and frequency; vLLM puts them after that of repetition.
ORDER: tuple[type, ...] = (
    RepetitionPenalty, PresencePenalty, FrequencyPenalty, NoRepeatNGram, Banned, MinLength, ForcedFirst, ForcedLast,
    Greedy, Temperature, TopK, TopP, MinP, Typical,
)  # fmt: skip


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Strategy:
    """Steps in their order. `compose` makes one."""

    steps: tuple[Step, ...] = ()
    samples: bool = dataclasses.field(default=False, metadata={"static": True})

    def scores(self, logits_BV: Float[Array, "B V"], history: History) -> Float[Array, "B V"]:
        """Returns the logits after all steps."""
        for step in self.steps:
            logits_BV = step(logits_BV, history)
        return logits_BV

    def choose(self, scores_BV: Float[Array, "B V"], keys_B: jax.Array) -> Int[Array, " B"]:
        """Returns the most likely token of each row, or draws one by the row's key."""
        return draw(scores_BV, keys_B) if self.samples else most_likely(scores_BV)


Steps = Union[Strategy, Step, Sequence[Step]]


def compose(steps: Steps = ()) -> Strategy:
    """Returns a strategy of steps, given in any order. Without a step that draws, decoding is greedy.

    Raises:
      UserError: there are two steps of one kind, or greedy decoding and one that draws.
    """
    if isinstance(steps, Strategy):
        return steps
    given: tuple[Any, ...] = tuple(steps) if isinstance(steps, (list, tuple)) else (steps,)
    for step in given:
        if type(step) not in ORDER:
            raise UserError(f"{step!r} is no step of decoding: give some of {', '.join(kind.__name__ for kind in ORDER)}")
    ordered = tuple(sorted(given, key=lambda step: ORDER.index(type(step))))
    kinds = [type(step).__name__ for step in ordered]
    twice = next((name for name in kinds if kinds.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice: give it once")
    drawing = [type(step).__name__ for step in ordered if step.samples]
    if drawing and "Greedy" in kinds:
        raise UserError(f"Greedy always takes the most likely token, and {drawing[0]} is for drawing one: give one of the two")
    return Strategy(ordered, bool(drawing))
