"""The ids of a model's special tokens: as its files give them (`of_source`), and as a run's export writes them (`to_write`)."""

import dataclasses
from pathlib import Path
from typing import Any, Optional, Union

from lm.data import end_of_text
from lm.data.config import ByteTokenizer, HuggingFaceTokenizer
from lm.data.own_ids import around
from lm.data.tokenizer import Bytes, Tokenizer
from lm.errors import UserError
from lm.hf import options, tokenizer_files
from lm.hf.files import CONFIG, GENERATION, TOKENIZER, TOKENIZER_FILES, read_json
from lm.model.config import ModelConfig

Keys = dict[str, Any]
BYTE_SENTINELS = 100  # of ByT5 (Xue et al. 2022, section 3.1)


@dataclasses.dataclass(frozen=True)
class SourceIds:
    """The ids of a model's special tokens, from its files.

    `tokenizer` is that of the directory, with the spellings of the tokens that end a document and that a decoder reads first; None if it
    has none. `stops` end a text, the end of document first among them. `first` is what a decoder's stream begins with, and `before` and
    `after` what the model's own tokenizer puts around a text. `config` and `generation` are keys that an export writes back. `notes` are
    lines for the user: what was decided, and what disagrees.
    """

    tokenizer: Union[tokenizer_files.FileTokenizer, ByteTokenizer, None] = None
    stops: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    config: Keys = dataclasses.field(default_factory=dict)
    generation: Keys = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def recorded(self) -> Keys:
        """Returns what the record of a run keeps."""
        return {name: getattr(self, name) for name in ("stops", "first", "before", "after", "config", "generation")}


def of_source(folder: Path, model: ModelConfig, eos_token: Optional[str] = None) -> SourceIds:
    """Returns the ids that the files of a model's directory give.

    A document ends in `eos_token`, or in the first id of config.json, then of generation_config.json, then in the token of
    tokenizer_config.json, then in one of a usual name. All ids of the first two end a text. Ids that the tokenizer lacks count as none.

    Args:
      folder: the directory of the model.
      model: its configuration.
      eos_token: the spelling of the one token that ends a text, whatever the files say.

    Raises:
      UserError: the tokenizer has no such token, or nothing tells which token ends a document.
    """
    values, file = read_json(folder / CONFIG), folder / GENERATION
    config = {key: value for key, value in values.items() if key.endswith("_token_id")}
    old = {} if model.architecture == "encoder" else {key: values[key] for key in sorted(options.GENERATION) if values.get(key) is not None}
    generation = read_json(file) if file.is_file() else old
    chosen = tokenizer_files.find(folder, values)
    if chosen is None:
        return _without_file(folder, model, config, generation)
    library = tokenizer_files.library(chosen, model)
    if eos_token is None:
        eos_token, source = end_of_text.find(library, chosen.path)
        others = [value for _, value in end_of_text.declared(folder) if isinstance(value, int) and library.id_to_token(value) is not None]
        stops, notes = tuple(dict.fromkeys([library.token_to_id(eos_token), *others])), _disagreements(folder, library)
    else:
        found, source, notes = library.token_to_id(eos_token), "--eos_token", []
        if found is None:
            raise UserError(f"{chosen.path} has no token {eos_token!r}: name another with --eos_token")
        stops, config, generation = (found,), {**config, "eos_token_id": found}, {**generation, "eos_token_id": found}
    ends = " or ".join(f"{library.id_to_token(i)} ({i})" for i in stops)
    notes.insert(0, f"a text ends at {ends}; documents end in the first, which is from {source}")
    bos = config.get("bos_token_id") if model.architecture == "decoder" else None
    before, after = _around(folder, library, chosen, bos)
    start = _start(library, model, {**generation, **config}, before)
    start = stops[0] if start is None else start
    forced = generation.get("forced_bos_token_id") if model.architecture == "encoder_decoder" else None
    first = (start,) if forced is None else (start, forced)
    spelled = None if start == stops[0] else library.id_to_token(start)
    chosen = dataclasses.replace(chosen, eos_token=eos_token, start_token=spelled)
    return SourceIds(chosen, stops, first, before, after, config, generation, tuple(notes))


def _without_file(folder: Path, model: ModelConfig, config: Keys, generation: Keys) -> SourceIds:
    """Returns the ids of a model without a tokenizer.json: ByT5's tokenizer is bytes and has none, others are not there."""
    file = folder / TOKENIZER_FILES[1]
    stops = tuple(dict.fromkeys(end for _, end in end_of_text.declared(folder) if isinstance(end, int) and end < model.vocab_size))
    if not file.is_file() or read_json(file).get("tokenizer_class") != "ByT5Tokenizer":
        return SourceIds(stops=stops, config=config, generation=generation)
    start = config.get("decoder_start_token_id", generation.get("decoder_start_token_id"))
    first = Bytes.pad_id if start == Bytes.pad_id else Bytes.eos_id
    chosen = ByteTokenizer(sentinels=BYTE_SENTINELS, start_token="pad" if first == Bytes.pad_id else None)
    return SourceIds(chosen, stops, (first,), (), (Bytes.eos_id,), config, generation, ("its tokenizer is bytes, as ByT5's is",))


def _disagreements(folder: Path, library: Any) -> list[str]:
    """Returns a line for each end that the tokenizer lacks, and one if the files disagree. More ends for generation are usual."""
    ends: dict[str, set[str]] = {file: set() for file in end_of_text.FILES}
    lines = []
    for file, value in end_of_text.declared(folder):
        spelling = library.id_to_token(value) if isinstance(value, int) else value
        if spelling is None or library.token_to_id(spelling) is None:
            lines.append(f"{file} ends a text at {value}, which is no token of {TOKENIZER}: left out")
        else:
            ends[file].add(spelling)
    config, generation, named = ends.values()
    if (generation and not config <= generation) or (config | generation and not named <= config | generation):
        each = [f"{file} {' '.join(sorted(found))}" for file, found in ends.items() if found]
        lines.append(f"the files disagree on what ends a text: {', '.join(each)}")
    return lines


def _around(folder: Path, library: Any, chosen: tokenizer_files.FileTokenizer, bos: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns what a model's own tokenizer puts before and after a text, as its template says.

    A tokenizer.json without a template puts the token there that tokenizer_config.json asks for, or else `bos`, the id that config.json
    names for a decoder.
    """
    if not isinstance(chosen, HuggingFaceTokenizer) or library.post_processor is not None:
        return around(library)
    file = folder / TOKENIZER_FILES[1]
    flags = read_json(file) if file.is_file() else {}
    token = flags.get("bos_token")
    named = library.token_to_id(token["content"] if isinstance(token, dict) else token) if token else bos
    return ((named,) if flags.get("add_bos_token", bos is not None) and _is_token(library, named) else ()), ()


def _is_token(library: Any, i: Any) -> bool:
    return type(i) is int and 0 <= i <= end_of_text.LARGEST_ID and library.id_to_token(i) is not None


def _start(library: Any, model: ModelConfig, keys: Keys, before: tuple[int, ...]) -> Optional[int]:
    """Returns the id that a decoder reads first: what its tokenizer puts before a text, or what its files name."""
    if model.architecture == "encoder":
        return None
    if model.architecture == "encoder_decoder":
        named = [keys.get("decoder_start_token_id"), keys.get("bos_token_id")]
    else:
        named = [*before[-1:], keys.get("bos_token_id")]
    return next((i for i in named if _is_token(library, i)), None)


def to_write(model: ModelConfig, tokenizer: Optional[Tokenizer], source: Optional[Keys]) -> tuple[Keys, Keys]:
    """Returns the ids that an export adds to (config.json, generation_config.json).

    Args:
      model: the configuration of the model.
      tokenizer: the run's tokenizer; None if it is not at hand.
      source: what `SourceIds.recorded` kept, for a run whose weights came from elsewhere.
    """
    # The run may have another tokenizer than the model that its weights came from, whose ids then say nothing of its texts.
    if source and (tokenizer is None or tokenizer.eos_id in source["stops"]):
        return dict(source["config"]), dict(source["generation"])
    if tokenizer is None:
        return {}, {}
    eos, pad, start = tokenizer.eos_id, tokenizer.pad_id, tokenizer.start_id
    # transformers takes no gradient of the padding's row of the embedding, so an end of document that pads is not named as padding there.
    # Its encoder-decoders do not go without.
    named = pad != eos or model.architecture == "encoder_decoder"
    config = {"bos_token_id": start, "eos_token_id": eos, "pad_token_id": pad if named else None}
    if model.architecture == "encoder":
        return config, {}
    generation = {"bos_token_id": start, "eos_token_id": eos, "pad_token_id": pad}
    if model.architecture == "encoder_decoder":
        config |= {"decoder_start_token_id": start, "forced_bos_token_id": None, "forced_eos_token_id": None}
        generation["decoder_start_token_id"] = start
    return config, generation
