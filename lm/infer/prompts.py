"""Converts a text to the prompt that a training objective asks for, and the ids that a model wrote back to text."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from lm.data.objectives.base import SpecialIds


def prompt_ids(text: str, ids: SpecialIds, architecture: str, blank: Optional[str] = None) -> list[int]:
    """Returns the ids that the model reads first: the stream of an encoder, or the beginning of a decoder's stream.

    A decoder's stream begins with the tokenizer's start id, as in training. Objectives whose inputs end with that id end the prompt with it
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
    return inputs if architecture == "encoder_decoder" else [ids.start, *inputs]


def as_imported(text: str, ids: SpecialIds, architecture: str, source: Mapping[str, Any]) -> list[int]:
    """Returns the ids that an imported model reads first: the text between what the model's own tokenizer puts around it.

    Args:
      text: the prompt.
      ids: the ids of tokenizer and objective.
      architecture: the model's architecture.
      source: the ids that the import recorded (lm.train.record.origin).
    """
    encoded = ids.tokenizer.encode(text).tolist()
    if architecture == "encoder_decoder":
        return [*source["before"], *encoded, *source["after"]]
    return [*source["before"], *encoded] or [ids.start]  # what would end the text is left out


def written(found: Sequence[int], ids: SpecialIds, after: Sequence[int] = ()) -> str:
    """Returns the text of ids. Ids beyond the tokenizer's, such as sentinels, become <0>, <1>, ... from the top of the vocabulary down.

    Tokenizers that mark words by the space before them (Llama 2, Mistral, T5) drop it where a text begins, and what continues a prompt
    does not begin one: give the ids of the prompt as `after`, and the space stays.
    """
    pieces: list[str] = []
    run: list[int] = []
    for i in [*found, None]:
        if i is not None and i < ids.tokenizer.vocab_size:
            run.append(i)
            continue
        before = [] if pieces else after
        pieces += [_continued(run, ids, before)] + ([] if i is None else [f"<{ids.vocab_size - 1 - i}>"])
        run = []
    return "".join(pieces)


def _continued(run: Sequence[int], ids: SpecialIds, before: Sequence[int]) -> str:
    """Returns the text of ids that follow others, or their own where they change the text before them."""
    whole, first = ids.tokenizer.decode([*before, *run]), ids.tokenizer.decode(before)
    return whole.removeprefix(first) if whole.startswith(first) else ids.tokenizer.decode(run)
