"""A text as a model expects it under its training objective, and what the model wrote as text."""

from collections.abc import Sequence
from typing import Optional

from lm.data.objectives.base import SpecialIds


def prompt_ids(text: str, ids: SpecialIds, architecture: str, blank: Optional[str] = None) -> list[int]:
    """What the model reads before it writes: an encoder-decoder's encoder's stream, or the beginning of the only stream.

    A stream of training begins with the end-of-document id, and so does a prompt; only an encoder's does not. Objectives whose inputs end
    with that id end the prompt so too, and UL2's begins with the mode that continues a text. Each `blank` in the text is what the
    objective puts there: a sentinel, a mask, or the middle to be filled in. UserError for an objective without blanks.
    """
    encoded = [ids.tokenizer.encode(part).tolist() for part in (text.split(blank) if blank else [text])]
    inputs = ids.objective.prompt(encoded, ids)
    return inputs if architecture == "encoder_decoder" else [ids.eos, *inputs]


def written(found: Sequence[int], ids: SpecialIds) -> str:
    """Text with the ids above the tokenizer's as <0>, <1>, ... from the top of the vocabulary down: sentinels, where there are some."""
    pieces: list[str] = []
    run: list[int] = []
    for i in [*found, None]:
        if i is not None and i < ids.tokenizer.vocab_size:
            run.append(i)
            continue
        pieces += [ids.tokenizer.decode(run)] + ([] if i is None else [f"<{ids.vocab_size - 1 - i}>"])
        run = []
    return "".join(pieces)
