"""The token that ends a document, as the files beside a tokenizer.json name it, or as its usual spellings do (imports no jax)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from lm.errors import UserError

# A tokenizer.json does not say which of its tokens ends a document. Of these only special tokens count: BART's has an ordinary
# <|endoftext|>, which ends nothing. Those of the second list end a turn or a part, and are taken where none of the first is special.
DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>", "<|end▁of▁sentence|>")
PART_ENDS = ("<|eot_id|>", "[SEP]")
# These names were taken before specials were told from ordinary tokens: fingerprints of that time do not name the choice.
FORMERLY = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "[SEP]")
LARGEST_ID = 2**31 - 1  # ids are int32
FILES = ("config.json", "generation_config.json", "tokenizer_config.json")  # in the order in which they are believed


def declared(folder: Path) -> Iterator[tuple[str, Union[int, str]]]:
    """Yields (file, id or spelling) of every end that the files of a model's directory name. Negative ids, which mean none, are left out.

    Raises:
      UserError: one of the files is not JSON, or an id is beyond 32 bits.
    """
    for name in FILES:
        values = _object(folder / name)
        if name == "tokenizer_config.json":
            token = values.get("eos_token")
            token = token.get("content") if isinstance(token, dict) else token
            found: list[Any] = [token] if isinstance(token, str) and token else []
        else:
            ids = values.get("eos_token_id")
            found = [i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int and i >= 0]
            if any(i > LARGEST_ID for i in found):
                raise UserError(f"{folder / name}: eos_token_id {max(found)} is no id of a token: correct it, or remove the key")
        for each in found:
            yield name, each


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def find(tokenizer: Any, path: str) -> tuple[str, str]:
    """Returns (spelling, where it is from) of the token that ends a document: the files beside `path` come first, then the usual names.

    Args:
      tokenizer: the tokenizer of the `tokenizers` library.
      path: its tokenizer.json.

    Raises:
      UserError: there is none, or there are several and nothing tells which it is.
    """
    for file, value in declared(Path(path).parent):
        spelling = tokenizer.id_to_token(value) if isinstance(value, int) else value
        if spelling is not None and tokenizer.token_to_id(spelling) is not None:
            return spelling, file
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    ends = [name for name in DOCUMENT_ENDS if name in special] or [name for name in PART_ENDS if name in special][:1]
    if len(ends) > 1:
        advice = f"name one with --config.data.tokenizer.eos_token='{ends[0]}' (of an import: --eos_token='{ends[0]}')"
        raise UserError(f"{path} has several tokens that may end a document, {' and '.join(ends)}: {advice}")
    if not ends:
        raise UserError(
            f"{path} has no special token of a usual name that ends a document: name it with --config.data.tokenizer.eos_token (of an"
            " import: --eos_token)"
        )
    return ends[0], "its name"


def formerly(tokenizer: Any) -> str:
    """Returns the spelling that an earlier version took for the end, or an empty one."""
    return next((name for name in FORMERLY if tokenizer.token_to_id(name) is not None), "")
