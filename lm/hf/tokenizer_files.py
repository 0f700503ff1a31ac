"""The tokenizer in a model's directory: which file holds it, and its special tokens (imports no jax)."""

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

from lm.data import rank_file
from lm.data.config import HuggingFaceTokenizer, SentencePieceFile, TiktokenFile
from lm.data.own_ids import SENTINEL
from lm.data.piece_file import PieceFile
from lm.data.piece_file import read as read_pieces
from lm.data.tokenizer import from_json, read_tokenizer_json
from lm.hf.files import TOKENIZER, TOKENIZER_FILES, read_json
from lm.model.config import ModelConfig

PIECES = ("spiece.model", "tokenizer.model")  # not sentencepiece.bpe.model: XLM-R, mBART and CamemBERT number its pieces otherwise
T5_SENTINELS = 100  # that transformers' tokenizer of T5 adds to the pieces
FileTokenizer = Union[HuggingFaceTokenizer, SentencePieceFile, TiktokenFile]


def find(folder: Path, values: Mapping[str, Any]) -> Optional[FileTokenizer]:
    """Returns the tokenizer of a model's directory: its tokenizer.json, its SentencePiece model, or its ranks; None if there is none.

    Args:
      folder: the directory.
      values: its config.json.
    """
    if (folder / TOKENIZER).is_file():
        return HuggingFaceTokenizer(str(folder / TOKENIZER))
    ranks = sorted(str(path) for path in folder.glob("*.tiktoken"))
    for path in (folder / name for name in PIECES if (folder / name).is_file()):
        with open(path, "rb") as file:
            if file.read(1) == b"\n":  # the first field of a SentencePiece model; Llama 3 has ranks under this name
                return SentencePieceFile(str(path), _extra_ids(path, values))
        ranks.append(str(path))
    return TiktokenFile(ranks[0]) if ranks else None


def _extra_ids(path: Path, values: Mapping[str, Any]) -> int:
    file = path.parent / TOKENIZER_FILES[1]
    given = read_json(file).get("extra_ids") if file.is_file() else None
    extra = given if isinstance(given, int) else T5_SENTINELS if values.get("model_type") == "t5" else 0
    _, processor = read_pieces(str(path))
    own = any(SENTINEL.fullmatch(processor.id_to_piece(i)) for i in range(processor.get_piece_size()))
    return 0 if own else extra


def library(chosen: FileTokenizer, model: ModelConfig) -> Any:
    """Returns what tells the special tokens of a tokenizer, with the methods of the `tokenizers` library that lm.hf.ids calls."""
    if isinstance(chosen, HuggingFaceTokenizer):
        return read_tokenizer_json(chosen.path)[1]
    if isinstance(chosen, TiktokenFile):
        return from_json(rank_file.as_tokenizer_json(chosen.path, chosen.encoding)[0])
    return _Pieces(chosen, model)


class _Pieces:
    """The special tokens of a SentencePiece model."""

    def __init__(self, chosen: SentencePieceFile, model: ModelConfig):
        self._tokenizer = PieceFile(chosen.path, chosen.extra_ids)
        self._ids = self._tokenizer.ids()
        file = Path(chosen.path).parent / TOKENIZER_FILES[1]
        flags = read_json(file) if file.is_file() else {}
        pair, begin = model.architecture == "encoder_decoder", self._tokenizer.token_to_id("<bos>" if "<bos>" in self._ids else "<s>")
        self._before = [begin] if begin is not None and flags.get("add_bos_token", not pair) else []
        self._after = [self._tokenizer.eos_id] if flags.get("add_eos_token", pair) else []

    def token_to_id(self, name: str) -> Optional[int]:
        return self._ids.get(name)

    def id_to_token(self, i: int) -> Optional[str]:
        return self._tokenizer.spelling(i) if 0 <= i < self._tokenizer.vocab_size else None

    def get_added_tokens_decoder(self) -> dict[int, Any]:
        special = {i: name for name, i in self._ids.items() if self._tokenizer.is_control(i)}
        return {i: types.SimpleNamespace(content=name, special=True) for i, name in special.items()}

    def encode(self, text: str) -> Any:
        ids = self._tokenizer.encode(text).tolist()
        mask = [1] * len(self._before) + [0] * len(ids) + [1] * len(self._after)
        return types.SimpleNamespace(ids=[*self._before, *ids, *self._after], special_tokens_mask=mask)


def moved(chosen: FileTokenizer, folder: Path) -> FileTokenizer:
    """Returns a tokenizer whose file is in another folder."""
    return dataclasses.replace(chosen, path=str(folder / Path(chosen.path).name))
