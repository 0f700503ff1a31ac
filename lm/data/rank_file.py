"""A file of tiktoken's ranks as a tokenizer.json (imports no jax).

A line holds the bytes of a token in base64 and its rank. Encoding cuts a text by a pattern, and joins the neighbours in a piece whose
bytes together have the lowest rank until no two have any: the merges of byte pair encoding, in the order of the ranks of their results.
"""

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Optional

from lm.data.token_ids import read_file, wrong_file
from lm.errors import UserError

_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = rf"{_SHORT}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclasses.dataclass(frozen=True)
class Encoding:
    """A published encoding: how many ranks it has, the pattern that cuts a text, its special tokens, and which of them ends a document."""

    ranks: int
    pattern: str
    special: Mapping[str, int]
    end: str = "<|endoftext|>"


_LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)), "<|start_header_id|>"]
_LLAMA3 += ["<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>", *(f"<|reserved_special_token_{i}|>" for i in range(5, 251))]
_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
_FIM = {"<|fim_prefix|>": 100_258, "<|fim_middle|>": 100_259, "<|fim_suffix|>": 100_260, "<|endofprompt|>": 100_276}
ENCODINGS = {
    "gpt2": Encoding(50_256, _GPT2, {"<|endoftext|>": 50_256}),
    "p50k_base": Encoding(50_280, _GPT2, {"<|endoftext|>": 50_256}),
    "cl100k_base": Encoding(100_256, _CL100K, {"<|endoftext|>": 100_257, **_FIM}),
    "o200k_base": Encoding(199_998, _O200K, {"<|endoftext|>": 199_999, "<|endofprompt|>": 200_018}),
    "llama3": Encoding(128_000, _CL100K, {name: 128_000 + i for i, name in enumerate(_LLAMA3)}, "<|end_of_text|>"),
    "qwen": Encoding(151_643, _CL100K.replace("{1,3}", ""), {name: 151_643 + i for i, name in enumerate(_QWEN)}),
}


def as_tokenizer_json(path: str, encoding: Optional[str]) -> tuple[str, str]:
    """Returns (a tokenizer.json that encodes as tiktoken does, the spelling of its end of document) of a file of ranks.

    Args:
      path: the file.
      encoding: the published encoding whose pattern cuts a text; None: the one with as many ranks.

    Raises:
      UserError: the file holds no ranks, or no encoding is known to have so many.
    """
    ranks = read(path)
    known = next((name for name, each in ENCODINGS.items() if each.ranks == len(ranks)), None)
    chosen = encoding or known
    if chosen is None:
        raise UserError(
            f"{path} has {len(ranks):,} ranks, as no published encoding has: name the one whose pattern cuts its text, such as"
            f" --config.data.tokenizer.encoding=cl100k_base ({', '.join(ENCODINGS)})"
        )
    published = ENCODINGS[chosen]
    end = published.end
    special = dict(published.special) if chosen == known else {end: max(ranks.values()) + 1}
    letters = byte_letters()
    spelled = {token: "".join(letters[byte] for byte in token) for token in ranks}
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()} | special
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges(ranks, spelled), "ignore_merges": True, "byte_fallback": False}
    cut = {"type": "Split", "pattern": {"Regex": published.pattern}, "behavior": "Isolated", "invert": False}
    return _tokenizer_json(model, special, [cut]), end


def bytes_as_tokenizer_json(first: int, special: Mapping[str, int]) -> str:
    """Returns a tokenizer.json whose ids are the bytes of a text, the byte 0 being `first`, beside special tokens with their ids."""
    vocabulary = dict(special) | {letter: first + byte for byte, letter in enumerate(byte_letters())}
    return _tokenizer_json({"type": "BPE", "vocab": vocabulary, "merges": []}, special, [])


def _tokenizer_json(model: dict[str, Any], special: Mapping[str, int], cuts: list[dict[str, Any]]) -> str:
    """Returns the tokenizer.json of a model of bytes spelled as letters."""
    to_letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    options = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": name, **options} for name, i in sorted(special.items(), key=lambda item: item[1])],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, to_letters]},
        "post_processor": None,
        "decoder": to_letters,
        "model": model,
    }
    return json.dumps(tokenizer)


def read(path: str) -> dict[bytes, int]:
    """Returns the rank of each token. Raises UserError for a line that holds none, naming it, and where a byte has no token."""
    content = read_file(path, "tiktoken")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            token, rank = base64.b64decode(parts[0], validate=True), int(parts[1])
        except (ValueError, IndexError):
            shown = line[:40].decode("utf-8", errors="replace")
            raise wrong_file(path, "tiktoken", content, f"line {number}, {shown!r}, is no token in base64 and its rank") from None
        ranks[token] = rank
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise wrong_file(path, "tiktoken", content, f"{len(missing)} bytes have no token, such as {missing[0]}")
    if len({*ranks.values()}) < len(ranks):
        raise wrong_file(path, "tiktoken", content, "two tokens have one rank")
    return ranks


def merges(ranks: Mapping[bytes, int], spelled: Mapping[bytes, str]) -> list[list[str]]:
    """Returns every pair of tokens that make a token, in the order of the ranks of what they make."""
    found = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        pairs = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        found += [(rank, ranks[left], ranks[right], spelled[left], spelled[right]) for left, right in pairs]
    return [[left, right] for _, _, _, left, right in sorted(found)]


def byte_letters() -> list[str]:
    """Returns the character that stands for each byte in the spellings of byte-level tokens (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]
