"""A SentencePiece model that is there, such as T5's spiece.model or Llama's tokenizer.model, as a tokenizer (imports no jax)."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional, SupportsInt, Union

import numpy as np

from lm.data import own_ids
from lm.data.store import digest
from lm.data.token_ids import checked, read_file, utf8, wrong_file
from lm.errors import UserError

_CONTROL = 3  # the type of pieces, in a SentencePiece model, that text does not yield


class PieceFile:
    """A SentencePiece model with its own normalisation and ids: text is encoded as the model's owner encodes it.

    Whether it is lossless depends on the model. Sentinels that are pieces of it are taken out of text, and `extra_ids` more of them stand
    above its pieces, the first the highest, as in T5.
    """

    name = "sentencepiece_file"

    def __init__(self, path: str, extra_ids: int = 0, eos_token: Optional[str] = None, start_token: Optional[str] = None):
        self._path = path
        content, self._processor = read(path)
        self._pieces = self._processor.get_piece_size()
        if extra_ids < 0:
            raise UserError(f"data.tokenizer.extra_ids={extra_ids}: give 0 or more")
        self.vocab_size = self._pieces + extra_ids
        self._extra = {f"<extra_id_{i}>": self.vocab_size - 1 - i for i in range(extra_ids)}
        unknown = self._processor.unk_id()
        self.unk_id = unknown if unknown >= 0 else None
        self.eos_id = self._named(eos_token, self._processor.eos_id(), "end-of-document token", "eos_token")
        self.start_id = self._named(start_token, self.eos_id, "first token", "start_token")
        pad = self._processor.pad_id()
        self.pad_id = pad if pad >= 0 else self.eos_id
        mask = [self.token_to_id(name) for name in ("<mask>", "[MASK]")]
        self.mask_id: Optional[int] = next((i for i in mask if i is not None and self._processor.is_control(i)), None)
        self.own = own_ids.find(self.ids(), self.mask_id, ((), ()))
        self.fingerprint = digest("sentencepiece file", content, extra_ids, self.eos_id)
        if self.eos_id in self.encode(self.spelling(self.eos_id)):
            raise UserError(
                f"{path}: the text {eos_token} yields the end-of-document id; name another with --config.data.tokenizer.eos_token"
            )

    def ids(self) -> Mapping[str, int]:
        """Returns the id of every token by its spelling."""
        return {self._processor.id_to_piece(i): i for i in range(self._pieces)} | self._extra

    def token_to_id(self, name: str) -> Optional[int]:
        """Returns the id of a spelling; None if it is no token."""
        found = self._processor.piece_to_id(name)
        return found if self._processor.id_to_piece(found) == name else self._extra.get(name)

    def spelling(self, i: int) -> str:
        """Returns the spelling of the token of an id."""
        return self._processor.id_to_piece(i) if i < self._pieces else f"<extra_id_{self.vocab_size - 1 - i}>"

    def is_control(self, i: int) -> bool:
        """Returns whether text never yields an id."""
        return i >= self._pieces or self._processor.is_control(i)

    def _named(self, spelling: Optional[str], default: int, what: str, key: str) -> int:
        found = default if spelling is None else self.token_to_id(spelling)
        if found is None or found < 0:
            raise UserError(f"{self._path} has no {what} {spelling or ''}; name one with --config.data.tokenizer.{key}")
        return found

    def encode(self, text: str) -> np.ndarray:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.asarray(ids, np.int32) for ids in self._processor.encode([utf8(text).decode() for text in texts], num_threads=1)]

    @functools.cached_property
    def _control(self) -> np.ndarray:
        return np.asarray([self.is_control(i) for i in range(self.vocab_size)], bool)

    def decode(self, ids: Union[np.ndarray, Iterable[SupportsInt]]) -> str:
        array = checked(ids, self.vocab_size)
        hidden = [i for i in {self.eos_id, self.start_id, self.pad_id, self.mask_id} if i is not None]
        array = array[~np.isin(array, hidden)]
        at = np.flatnonzero(self._control[array])
        runs = np.split(array, np.sort(np.concatenate([at, at + 1])))  # text, then a control id, then text, ...
        return "".join(self.spelling(int(run[0])) if i % 2 else self._processor.decode(run.tolist()) for i, run in enumerate(runs))


def read(path: str) -> tuple[bytes, Any]:
    """Returns (content, processor) of a SentencePiece model, whose sentinels text does not yield; UserError if the file is none."""
    import sentencepiece

    content = read_file(path, "sentencepiece_file")
    if not content:  # which the library takes for no model, without a word
        raise wrong_file(path, "sentencepiece_file", content, "it is empty")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        pieces = range(processor.get_piece_size())
        if any(own_ids.SENTINEL.fullmatch(processor.id_to_piece(i)) and not processor.is_control(i) for i in pieces):
            processor = sentencepiece.SentencePieceProcessor(model_proto=_with_control_sentinels(content))
        return content, processor
    except Exception as error:  # SentencePiece and protobuf raise their own
        raise wrong_file(path, "sentencepiece_file", content, error) from error


def _with_control_sentinels(content: bytes) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # a generated module without types
    model.ParseFromString(content)
    for piece in model.pieces:
        if own_ids.SENTINEL.fullmatch(piece.piece):
            piece.type = _CONTROL
    return model.SerializeToString()
