"""Converts a text to the prompt that a training objective asks for, and the ids that a model wrote back to text."""

from collections.abc import Sequence
from typing import Optional

from lm.data.objectives.base import SpecialIds


def prompt_ids(text: str, ids: SpecialIds, architecture: str, blank: Optional[str] = None) -> list[int]:
    """Returns the ids that the model reads first: the stream of an encoder, or the beginning of a decoder's stream.

    A decoder's stream begins with the end-of-document id, as in training. Objectives whose inputs end with that id end the prompt with it
    too, and UL2's prompt begins with the mode that continues a text.

    Args:
      text: the prompt.
      ids: the ids of tokenizer and objective.
      architecture: the model's architecture.
      blank: the mark in the text that is replaced by the objective's id for a blank: a sentinel, a mask, or the middle to be filled in.

    Raises:
      UserError: the objective has no id for a blank of the text.
    """
    encoded = [ids.tokenizer.encode(part).tolist() for part in (text.split(blank) if blank else [text])]
    inputs = ids.objective.prompt(encoded, ids)
    return inputs if architecture == "encoder_decoder" else [ids.eos, *inputs]


def written(found: Sequence[int], ids: SpecialIds) -> str:
    """Returns the text of ids. Ids beyond the tokenizer's, such as sentinels, become <0>, <1>, ... from the top of the vocabulary down."""
    pieces: list[str] = []
    run: list[int] = []
    for i in [*found, None]:
        if i is not None and i < ids.tokenizer.vocab_size:
            run.append(i)
            continue
        pieces += [ids.tokenizer.decode(run)] + ([] if i is None else [f"<{ids.vocab_size - 1 - i}>"])
        run = []
    return "".join(pieces)
