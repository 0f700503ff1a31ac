"""Text to token ids and back: bytes, SentencePiece trained on the corpus, or the file of a tokenizer that is there.

Text never yields a control id (padding, end of document, mask), whatever it spells: only the pipeline places them.
"""

import dataclasses
import functools
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Optional, Protocol, SupportsInt, Union, runtime_checkable

import numpy as np

from lm.data import end_of_text, own_ids, rank_file
from lm.data.own_ids import OwnIds
from lm.data.piece_file import PieceFile
from lm.data.piece_file import read as read_piece_file
from lm.data.store import digest, new_directory, shuffled
from lm.data.token_ids import checked, read_file, utf8, wrong_file
from lm.errors import UserError

Log = Callable[[str], None]
Meet = Callable[[UserError], None]


@dataclasses.dataclass(frozen=True)
class ByteTokenizer:
    """UTF-8 bytes shifted by the control ids: pad 0, end of document 1, mask 2; a byte b is b + 3."""

    name: ClassVar[str] = "bytes"
    sentinels: int = 0  # the last ids of bytes stand for sentinels, as in ByT5 (100), most of which no UTF-8 text has
    start_token: Optional[Literal["pad"]] = None  # what a decoder reads first: pad, as ByT5's does; none: the end of document


@dataclasses.dataclass(frozen=True)
class SentencePieceTokenizer:
    """SentencePiece trained on the corpus, with byte fallback and identity normalisation."""

    name: ClassVar[str] = "sentencepiece"
    vocab_size: int = 1024
    model_type: Literal["bpe", "unigram"] = "bpe"
    whitespace_pieces: bool = True  # whether pieces may be whitespace alone (indentation of code)
    # Where measured, on one core, 10 MB took BPE some seconds and unigram more than 3 minutes (2 MB: 30 s).
    training_bytes: int = 10_000_000  # bytes of training documents, in a fixed shuffled order, that the pieces are learned from


@dataclasses.dataclass(frozen=True)
class HuggingFaceTokenizer:
    """A `tokenizer.json` file."""

    name: ClassVar[str] = "huggingface"
    path: str = ""  # the file
    eos_token: Optional[str] = None  # spelling of the end-of-document token; none: that of a config.json beside it, or a usual name
    start_token: Optional[str] = None  # spelling of the token that a decoder reads first; none: the end-of-document token


@dataclasses.dataclass(frozen=True)
class SentencePieceFile:
    """A SentencePiece model that is there, such as T5's spiece.model or Llama's tokenizer.model, with its own normalisation and ids."""

    name: ClassVar[str] = "sentencepiece_file"
    path: str = ""  # the file
    extra_ids: int = 0  # sentinels <extra_id_N> above its pieces (T5: 100)
    eos_token: Optional[str] = None  # spelling of the end-of-document token; none: the model's own end
    start_token: Optional[str] = None  # spelling of the token that a decoder reads first; none: the end-of-document token


@dataclasses.dataclass(frozen=True)
class TiktokenFile:
    """A file of tiktoken's ranks, such as cl100k_base.tiktoken."""

    name: ClassVar[str] = "tiktoken"
    path: str = ""  # the file
    encoding: Optional[Literal["gpt2", "p50k_base", "cl100k_base", "o200k_base", "llama3", "qwen"]] = None  # none: that of as many ranks
    eos_token: Optional[str] = None  # spelling of the end-of-document token; none: the encoding's
    start_token: Optional[str] = None  # spelling of the token that a decoder reads first; none: the end-of-document token


Config = Union[ByteTokenizer, SentencePieceTokenizer, HuggingFaceTokenizer, SentencePieceFile, TiktokenFile]


@runtime_checkable
class Tokenizer(Protocol):
    """Makes text into token ids and back.

    `encode` gives int32 [tokens] without an end of document; `decode` drops control ids and replaces invalid UTF-8 by U+FFFD. Both raise
    UserError: `encode` on text that is not Unicode (lone surrogates), `decode` on ids beyond the vocabulary.
    """

    name: str
    vocab_size: int  # ids are below it
    pad_id: int
    eos_id: int
    start_id: int  # what a decoder reads first; the end of document, but for imported models that begin otherwise
    mask_id: Optional[int]
    own: OwnIds  # the mask, and what else it has of its own for objectives
    fingerprint: str

    def encode(self, text: str) -> np.ndarray: ...

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def decode(self, ids: Union[np.ndarray, Iterable[SupportsInt]]) -> str: ...


def build(config: Config, corpora: Sequence[Any], data_dir: str, log: Log = print, unreadable: Sequence[Meet] = ()) -> Tokenizer:
    """Trains or loads the tokenizer of a data set.

    Args:
      config: the tokenizer.
      corpora: the mixture's: `.fingerprint` and `.split("train")`.
      data_dir: the directory of the caches.
      log: takes lines.
      unreadable: for each corpus, what takes the error of a document that cannot be read (default: it is raised).
    """
    if isinstance(config, SentencePieceTokenizer):
        return SentencePiece(_trained(config, corpora, data_dir, log, unreadable))
    if isinstance(config, HuggingFaceTokenizer):
        return HuggingFace(config)
    if isinstance(config, SentencePieceFile):
        return _of_piece_file(config)
    if isinstance(config, TiktokenFile):
        return Tiktoken(config)
    return Bytes(config.sentinels, start_token=config.start_token)


class Bytes:
    """UTF-8 bytes above three control ids: a byte b is b + 3.

    Sentinels, as ByT5 has them, are the ids of bytes from the last one down (Xue et al. 2022, section 3.1). No UTF-8 text has the bytes of
    the first 11; those of others stand for text too.
    """

    name = "bytes"
    pad_id, eos_id, start_id = 0, 1, 1
    mask_id: Optional[int] = 2
    vocab_size = 259
    fingerprint = "bytes3"

    def __init__(self, sentinels: int = 0, *, start_token: Optional[str] = None):
        self.start_id = self.pad_id if start_token else self.eos_id
        if not 0 <= sentinels <= 128:
            raise UserError(f"data.tokenizer.sentinels={sentinels} must be between 0 and 128: set --config.data.tokenizer.sentinels=100")
        self.own = OwnIds(self.mask_id, sentinels=tuple(range(self.vocab_size - 1, self.vocab_size - 1 - sentinels, -1)))
        if sentinels:
            self.fingerprint = digest("bytes3", sentinels)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32) + 3

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Union[np.ndarray, Iterable[SupportsInt]]) -> str:
        array = checked(ids, self.vocab_size)
        written = (array[array >= 3] - 3).astype(np.uint8).tobytes()
        for number in range(min(len(self.own.sentinels), 11)):
            written = written.replace(bytes([255 - number]), f"<extra_id_{number}>".encode())
        return written.decode("utf-8", errors="replace")


# SentencePiece writes a space as U+2581 and reads every U+2581 back as a space, so the character itself has to be spelled otherwise.
# The escape sign is of the private use area and is escaped too, which makes the spelling one to one.
_SPACE_SIGN, _ESCAPE = "\u2581", "\ue000"


def escape(text: str) -> str:
    """Replaces SentencePiece's sign for a space, which it would read as one; `unescape` brings it back."""
    if _SPACE_SIGN in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ESCAPE + "e").replace(_SPACE_SIGN, _ESCAPE + "s")
    return text


def unescape(text: str) -> str:
    """Undoes `escape`."""
    if _ESCAPE not in text:
        return text
    return re.sub(_ESCAPE + "([es])", lambda match: _ESCAPE if match[1] == "e" else _SPACE_SIGN, text)


class SentencePiece:
    """A SentencePiece model (Kudo and Richardson 2018) with byte fallback: lossless on all of Unicode."""

    name = "sentencepiece"
    pad_id, eos_id, start_id = 0, 1, 1  # 2 is SentencePiece's obligatory <unk>, which byte fallback leaves unused
    mask_id: Optional[int] = 3
    own = OwnIds(mask_id)
    _controls = 4

    def __init__(self, model: bytes):
        import sentencepiece

        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocab_size = self._processor.get_piece_size()
        self.fingerprint = digest("sentencepiece", model)

    def encode(self, text: str) -> np.ndarray:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        escaped = [utf8(escape(text)).decode() for text in texts]
        return [np.asarray(ids, np.int32) for ids in self._processor.encode(escaped, num_threads=_threads())]

    def decode(self, ids: Union[np.ndarray, Iterable[SupportsInt]]) -> str:
        array = checked(ids, self.vocab_size)
        return unescape(self._processor.decode(array[array >= self._controls].tolist()))


def _threads() -> int:
    """Returns the threads that encode: those that the library `tokenizers` is told to have, else as many as there are cores."""
    said = os.environ.get("RAYON_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else os.cpu_count() or 1


def _of_piece_file(config: SentencePieceFile) -> Tokenizer:
    """Returns the tokenizer of a SentencePiece model. One that a run trained here is that run's tokenizer, so that others may train on."""
    if config == SentencePieceFile(path=config.path):
        content, processor = read_piece_file(config.path)
        if processor.bos_id() < 0 and tuple(processor.id_to_piece(i) for i in range(4)) == ("<pad>", "</s>", "<unk>", "<mask>"):
            return SentencePiece(content)
    return PieceFile(config.path, config.extra_ids, config.eos_token, config.start_token)


def _trained(config: SentencePieceTokenizer, corpora: Sequence[Any], data_dir: str, log: Log, unreadable: Sequence[Meet]) -> bytes:
    settings = {field: getattr(config, field) for field in ("vocab_size", "model_type", "whitespace_pieces", "training_bytes")}
    key = digest("sentencepiece", 1, settings, [corpus.fingerprint for corpus in corpora])
    directory = os.path.join(data_dir, "tokenizers", key)
    path = os.path.join(directory, "tokenizer.model")
    if not os.path.isdir(directory):
        log(f"training a SentencePiece {config.model_type} of {config.vocab_size} pieces")
        model = _train(config, corpora, unreadable)
        with new_directory(directory) as temporary:
            with open(os.path.join(temporary, "tokenizer.model"), "wb") as file:
                file.write(model)
            with open(os.path.join(temporary, "sha256"), "w") as file:
                file.write(digest(model))
    try:
        with open(path, "rb") as file, open(os.path.join(directory, "sha256")) as sha:
            model, expected = file.read(), sha.read()
    except FileNotFoundError:
        model, expected = b"", ""
    if digest(model) != expected:
        raise UserError(f"the tokenizer in {directory} is damaged; delete that directory and run again")
    return model


def _train(config: SentencePieceTokenizer, corpora: Sequence[Any], unreadable: Sequence[Meet]) -> bytes:
    """Returns a SentencePiece model, trained on one thread and a fixed sample, so that the same corpus gives the same bytes."""
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_text(corpora, unreadable, config.training_bytes),
            model_writer=model,
            vocab_size=config.vocab_size,
            model_type=config.model_type,
            allow_whitespace_only_pieces=config.whitespace_pieces,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            control_symbols=["<mask>"],
            num_threads=1,
            max_sentence_length=1 << 20,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).split("]")[-1].split(" Increase")[0].strip() or str(error)
        raise UserError(
            f"SentencePiece cannot train {config.vocab_size} pieces on this corpus ({reason}); change --config.data.tokenizer.vocab_size"
        ) from error
    return model.getvalue()


def _training_text(corpora: Sequence[Any], unreadable: Sequence[Meet], limit: int) -> Iterator[str]:
    """Yields training documents in a fixed shuffled order, an equal share of the bytes from each corpus, in slices of 4,000 characters."""
    for number, corpus in enumerate(corpora):
        split, taken = corpus.split("train"), 0
        for i in shuffled(len(split), "tokenizer", corpus.fingerprint):
            if taken * len(corpora) >= limit:
                break
            try:
                text = split[int(i)]
            except UserError as error:
                if not unreadable:
                    raise
                unreadable[number](error)
                continue
            taken += len(utf8(text))
            for start in range(0, len(text), 4000):
                # The trainer drops a whole slice for U+2585 or NUL, its own signs; encoding falls back to their bytes.
                yield escape(text[start : start + 4000]).replace("\u2585", "").replace("\x00", "")


def read_tokenizer_json(path: str) -> tuple[bytes, Any]:
    """Returns (content, tokenizer of the `tokenizers` library) of a tokenizer.json; UserError if it is none."""
    content = read_file(path, "huggingface")
    try:
        return content, from_json(content.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception on a file it cannot parse
        raise wrong_file(path, "huggingface", content, error) from error


def _of_text(tokenizer: Any, content: Mapping[str, Any], vocabulary: Mapping[str, int], end: str) -> tuple[Any, bool]:
    """Returns (a tokenizer that makes no reserved token of text, whether `tokenizer` itself would make one).

    Reserved are special tokens, the signs of objectives, and the end of a document if it is an added token. The library's option for
    special tokens leaves alone those that are pieces of the model too, as T5's </s> is.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # special spellings in text are text
    special = {token["content"] for token in content.get("added_tokens") or [] if token["special"] or token["content"] == end}
    reserved = special | own_ids.spellings(vocabulary)
    probes = {name: tokenizer.encode(f"{name} a{name}", add_special_tokens=False).ids for name in reserved}
    if not any(vocabulary[name] in ids for name, ids in probes.items()):
        return tokenizer, False
    encoder = from_json(own_ids.text_alone(content, reserved))
    encoder.encode_special_tokens = True
    return encoder, True


def from_json(text: str) -> Any:
    """Returns the tokenizer of the `tokenizers` library that a tokenizer.json describes."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(text)
    if tokenizer.pre_tokenizer is None and tokenizer.decoder is None:
        tokenizer.decoder = tokenizers.decoders.Fuse()  # the pieces are the text; the library would put blanks between them
    return tokenizer


class HuggingFace:
    """A `tokenizer.json` read by the `tokenizers` library. Whether it is lossless depends on the file."""

    name = "huggingface"
    _pad_names = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>")
    _mask_names = ("<mask>", "[MASK]", "<|mask|>")

    def __init__(self, config: HuggingFaceTokenizer, content: Optional[bytes] = None):
        if content is None:
            content, self._tokenizer = read_tokenizer_json(config.path)
        else:
            self._tokenizer = from_json(content.decode())
        self._path, parsed = config.path, json.loads(content)
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = 1 + max(vocabulary.values(), default=-1)
        spelling, source = (config.eos_token, "eos_token") if config.eos_token else end_of_text.find(self._tokenizer, config.path)
        implied = not config.eos_token and spelling == end_of_text.formerly(self._tokenizer)
        self._encoder, reached = _of_text(self._tokenizer, parsed, vocabulary, spelling)
        self.eos_id, self.eos_token = self._named(spelling, "end-of-document token", "eos_token"), f"{spelling}, from {source}"
        self.start_id = self._named(config.start_token, "first token", "start_token") if config.start_token else self.eos_id
        pad = self._find(self._pad_names)
        model = parsed["model"]
        self.unk_id = model.get("unk_id") if model.get("unk_token") is None else self._tokenizer.token_to_id(model["unk_token"])
        self.pad_id, self.mask_id = self.eos_id if pad is None else pad, self._find(self._mask_names)
        self.own = own_ids.find(vocabulary, self.mask_id, own_ids.around(self._tokenizer))
        as_before = not reached and not self.own.beyond_mask  # the tokens are those of earlier versions
        self.fingerprint = digest("huggingface", content, None if implied else spelling, *([] if as_before else ["own ids"]))
        if self.eos_id in self.encode(spelling):
            raise UserError(
                f"{config.path}: the text {spelling} yields the end-of-document id {self.eos_id} (from {source}): mark that token as"
                " special in the file, or name another with --config.data.tokenizer.eos_token"
            )

    def _named(self, spelling: str, what: str, key: str) -> int:
        found = self._tokenizer.token_to_id(spelling)
        if found is None:
            raise UserError(f"{self._path} has no {what} {spelling}; name one with --config.data.tokenizer.{key}")
        return found

    def spelling(self, i: int) -> str:
        """Returns the spelling of the token of an id."""
        return self._tokenizer.id_to_token(i) or ""

    def _find(self, names: Iterable[Optional[str]]) -> Optional[int]:
        found = (self._tokenizer.token_to_id(name) for name in names if name is not None)
        return next((i for i in found if i is not None), None)

    @functools.cached_property
    def _control_ids(self) -> np.ndarray:
        return np.asarray([i for i in {self.eos_id, self.start_id, self.pad_id, self.mask_id, *self.own.ends} if i is not None])

    def encode(self, text: str) -> np.ndarray:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        for text in texts:
            utf8(text)
        return [np.asarray(encoding.ids, np.int32) for encoding in self._encoder.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Union[np.ndarray, Iterable[SupportsInt]]) -> str:
        array = checked(ids, self.vocab_size)
        return self._tokenizer.decode(array[~np.isin(array, self._control_ids)].tolist(), skip_special_tokens=False)


class Tiktoken(HuggingFace):
    """A file of tiktoken's ranks. It is lossless."""

    name = "tiktoken"

    def __init__(self, config: TiktokenFile):
        text, end = rank_file.as_tokenizer_json(config.path, config.encoding)
        super().__init__(HuggingFaceTokenizer(config.path, config.eos_token or end, config.start_token), text.encode())
