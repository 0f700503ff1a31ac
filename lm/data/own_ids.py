"""The ids that a tokenizer has of its own for objectives, and how text is kept from yielding them (imports no jax)."""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

SENTINEL = re.compile(r"\u2581?<extra_id_(\d+)>")
# Signs of a prefix, a suffix and a middle: Qwen and OpenAI, StarCoder, SantaCoder, Code Llama, DeepSeek.
MIDDLES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)
_MARK = "\ufdd0"  # a noncharacter, which no text should hold


@dataclasses.dataclass(frozen=True)
class OwnIds:
    """A tokenizer's own ids for what objectives place beside text. Those that it lacks come from the top of the model's vocabulary."""

    mask: Optional[int] = None
    ends: tuple[int, ...] = ()  # what opens an encoder's sequence and what closes its parts, such as [CLS] and [SEP]
    sentinels: tuple[int, ...] = ()  # <extra_id_0>, <extra_id_1>, ...
    middle: tuple[int, ...] = ()  # signs of a prefix, a suffix and a middle

    @property
    def beyond_mask(self) -> bool:
        """Says whether there is more than a mask."""
        return bool(self.ends or self.sentinels or self.middle)

    def recorded(self) -> dict[str, Any]:
        """Returns what the counts of a data set keep of it, as JSON: nothing for a mask alone, so that counts of earlier versions stay."""
        lists = {"ends": list(self.ends), "sentinels": list(self.sentinels), "middle": list(self.middle)}
        return {} if self.mask is not None and not self.beyond_mask else {"own": {"mask": self.mask, **lists}}


def from_record(tokenizer: Mapping[str, Any]) -> OwnIds:
    """Returns the ids that `OwnIds.recorded` kept. Without a record there is a mask alone, whose id is not known."""
    own = tokenizer.get("own")
    return OwnIds(own["mask"], tuple(own["ends"]), tuple(own["sentinels"]), tuple(own["middle"])) if own else OwnIds(mask=0)


def find(ids: Mapping[str, int], mask: Optional[int], around: tuple[tuple[int, ...], tuple[int, ...]]) -> OwnIds:
    """Returns the ids of a vocabulary's own tokens, by their spellings.

    Args:
      ids: the id of every token by its spelling.
      mask: the id of its mask, if any.
      around: the ids that the tokenizer puts before and after a text.
    """
    before, after = around
    ends = tuple(ids[name] for name in ("[CLS]", "[SEP]") if name in ids)
    if len(ends) < 2:
        ends = (before[0], after[0]) if before and after else ()
    numbered = {int(match[1]): ids[match[0]] for match in map(SENTINEL.fullmatch, ids) if match}
    sentinels = tuple(numbered[i] for i in range(len(numbered))) if numbered.keys() == set(range(len(numbered))) else ()
    middle = next((tuple(ids[name] for name in names) for names in MIDDLES if all(name in ids for name in names)), ())
    return OwnIds(mask, ends, sentinels, middle)


def spellings(vocabulary: Iterable[str]) -> set[str]:
    """Returns those spellings of a vocabulary that are signs to an objective, whether or not a file calls them special."""
    signs = {name for names in MIDDLES for name in names}
    return {name for name in vocabulary if name in signs or SENTINEL.fullmatch(name)}


def around(library: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the ids that a tokenizer of the `tokenizers` library puts before and after a text."""
    encoded = library.encode("a")
    real = [i for i, special in enumerate(encoded.special_tokens_mask) if not special]
    if not real:
        return (), ()
    return tuple(encoded.ids[: real[0]]), tuple(encoded.ids[real[-1] + 1 :])


def text_alone(content: Mapping[str, Any], reserved: set[str]) -> str:
    """Returns a tokenizer.json that never makes reserved tokens of text, and all others as before.

    Special tokens may be pieces of the model too, as T5's </s> is. The spelling of a reserved token is replaced by one that text does not
    have, wherever it stands; ids stay. It has no post-processor, padding or truncation, so that it encodes the whole text and nothing else.

    Args:
      content: the parsed tokenizer.json.
      reserved: the spellings of the tokens that text shall not yield.
    """

    def hidden(name: Any) -> Any:
        return f"{_MARK}{name}{_MARK}" if name in reserved else name

    def made_of(merge: Any) -> list[str]:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        return [*parts, "".join(parts)]

    model = dict(content["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, Mapping):
        model["vocab"] = {hidden(name): i for name, i in vocabulary.items()}
    elif vocabulary is not None:  # Unigram
        model["vocab"] = [[hidden(name), score] for name, score in vocabulary]
    if isinstance(model.get("merges"), list):
        model["merges"] = [merge for merge in model["merges"] if reserved.isdisjoint(made_of(merge))]
    if model.get("unk_token") is not None:
        model["unk_token"] = hidden(model["unk_token"])
    added = [{**token, "content": hidden(token["content"])} for token in content.get("added_tokens") or []]
    nothing_else = dict.fromkeys(("post_processor", "padding", "truncation"))
    return json.dumps({**content, "model": model, "added_tokens": added, **nothing_else})
