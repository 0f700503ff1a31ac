"""Makes runs from models in the Hugging Face layout, and models from runs, for `python -m lm.hf`.

An imported run has taken no step. It has run.json (status "imported", with the ids of the model's special tokens), config.json for lm.run,
a checkpoint with weights only, and the tokenizer. `lm.infer` continues texts with it, and `lm.run --config=RUN/config.json --workdir=RUN`
trains it on.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm import files
from lm.data.config import ByteTokenizer, DataConfig, HuggingFaceTokenizer, SentencePieceTokenizer
from lm.data.objectives.config import BartNoise, MaskedLM, NextToken, PrefixLM
from lm.data.objectives.shape import longest_that_fits
from lm.data.rank_file import bytes_as_tokenizer_json
from lm.errors import UserError
from lm.hf.convert import MAX_SHARD_BYTES, Params, load, save
from lm.hf.families import for_config
from lm.hf.files import CONFIG, REMEDY, TOKENIZER, TOKENIZER_FILES, copied, read_json
from lm.hf.ids import SourceIds, of_source, to_write
from lm.hf.tokenizer_files import moved
from lm.model.config import ModelConfig
from lm.train import record, sealed
from lm.train.config import EvalConfig, RunConfig

Log = Callable[[str], None]
LONGEST = 1024  # length of the rows of an imported run, unless its model has fewer positions


def silent(line: str) -> None:
    """Prints nothing."""
    del line


def import_run(directory: Path, workdir: Path, *, eos_token: Optional[str] = None, say: Log = silent) -> RunConfig:
    """Makes a run from a model, and returns its configuration.

    Args:
      directory: the directory of the model.
      workdir: the work directory of the run.
      eos_token: the spelling of the one token that ends a text (default: as lm.hf.ids.of_source finds those that do).
      say: prints a line.

    Raises:
      UserError: `workdir` holds a run or another config.json, `load` refuses the model, or the tokenizer has ids beyond its vocabulary.
    """
    if record.read(workdir) is not None or sealed.steps(workdir):
        raise UserError(f"{workdir} holds a run already: choose another --workdir")
    if (workdir / CONFIG).exists():  # the model's own directory, as a rule: an import writes a file of that name
        raise UserError(f"{workdir} has a {CONFIG} already and is not a run: choose another --workdir")
    model, params = load(directory)
    family = read_json(directory / CONFIG)["model_type"]
    ids = of_source(directory, model, eos_token)
    tokenizer = _tokenizer(directory, model, ids)
    with record.writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    for name in _files(ids):
        copied(directory, workdir, name)
    data = _data(workdir, model, ids)
    evaluation = EvalConfig(stride=min(EvalConfig().stride, data.sequence_length))
    config = RunConfig(model=model, data=data, evaluation=evaluation, imported_from=os.path.abspath(workdir))
    _write(config, params, workdir, tokenizer, {"from": str(directory), "family": family, "ids": ids.recorded()})
    for note in ids.notes:
        say(note)
    return config


def _tokenizer(directory: Path, model: ModelConfig, ids: SourceIds) -> dict[str, Any]:
    """Returns the record's entry of the tokenizer. Without a tokenizer its fingerprint is None, which no tokenizer has."""
    from lm.data.tokenizer import build

    if ids.tokenizer is None:
        return {"name": HuggingFaceTokenizer.name, "vocab_size": None, "fingerprint": None}
    path, found = getattr(ids.tokenizer, "path", directory), build(ids.tokenizer, [], "")
    if found.vocab_size > model.vocab_size:
        there, here = found.vocab_size - 1, model.vocab_size
        raise UserError(f"{path} has ids up to {there} and the model has a vocabulary of {here}: it is not the tokenizer of this model")
    return {"name": found.name, "vocab_size": found.vocab_size, "fingerprint": found.fingerprint}


def _files(ids: SourceIds) -> tuple[str, ...]:
    """Returns the names of the files that are copied beside a run's weights."""
    if ids.tokenizer is None:
        return ()
    own = () if isinstance(ids.tokenizer, ByteTokenizer) else (Path(ids.tokenizer.path).name,)
    return (*own, *TOKENIZER_FILES[1:])


def _data(workdir: Path, model: ModelConfig, ids: SourceIds) -> DataConfig:
    """Returns data on which the model could train on: an objective of its architecture, and rows that its positions reach."""
    masked = MaskedLM(next_sentence=any(output.name == "next_sentence" for output in model.outputs))
    pairs = BartNoise(opened=True) if _is_opened(ids) else PrefixLM()
    objective: Any = {"encoder_decoder": pairs, "encoder": masked}.get(model.architecture, NextToken())
    chosen = ids.tokenizer or HuggingFaceTokenizer(TOKENIZER)
    chosen = chosen if isinstance(chosen, ByteTokenizer) else moved(chosen, workdir)
    data = DataConfig(tokenizer=chosen, objective=objective, sequence_length=min(model.max_length, LONGEST))
    fits = longest_that_fits(data, model.architecture, model.max_length) if model.positions == "learned" else None
    return dataclasses.replace(data, sequence_length=fits or data.sequence_length)


def _is_opened(ids: SourceIds) -> bool:
    """Returns whether the tokenizer begins texts with a sign, as facebook/bart's does, and objectives can use it."""
    from lm.data.tokenizer import build

    return ids.tokenizer is not None and len(ids.before) == 1 and build(ids.tokenizer, [], "").own.ends[:1] == ids.before


def _write(config: RunConfig, params: Params, workdir: Path, tokenizer: dict[str, Any], source: dict[str, Any]) -> None:
    import jax.numpy as jnp

    from lm.model.counts import parameters
    from lm.train import checkpoint
    from lm.train.environment import environment
    from lm.types import TrainState

    state = TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state={})
    checkpoint.save(workdir, state, {}, keep=1)
    weights = hashlib.sha256()
    for name, leaf in checkpoint.named_arrays(params).items():
        weights.update(name.encode())
        weights.update(memoryview(leaf).cast("B"))
    facts = record.Facts(
        id=config_lib.identity(config, weights=weights.hexdigest()),
        data={"fingerprint": None, "tokenizer": tokenizer},
        parameters=dict(parameters(config.model)),
        flops_per_token={},
        bytes_per_token=0.0,
    )
    made = record.new(config, facts, environment(attention_backend="xla"))
    made |= {"status": "imported", "imported": {**source, "weights": weights.hexdigest()}}
    record.write_json(workdir / CONFIG, config_lib.to_dict(config))
    record.write(workdir, made)  # last: a directory without it is not a run


def export_run(
    workdir: Path,
    directory: Path,
    *,
    step: Optional[int] = None,
    family: Optional[str] = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    say: Log = silent,
) -> int:
    """Writes a checkpoint of a run (default: the newest) as `save` does, with its ids and its tokenizer.

    Returns:
      The step of the checkpoint.
    """
    saved = record.read(workdir)
    if saved is None:
        raise UserError(f"{workdir} holds no run (no {record.FILE}): name a work directory that lm.run, a study or an import wrote")
    sealed.require(workdir, step)
    config = config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])
    for_config(config.model, family, like=record.origin(saved).get("family"))  # refuses a model that no family holds

    import jax

    from lm.mesh import MeshConfig
    from lm.model import architectures
    from lm.sharding import make_mesh
    from lm.train import checkpoint

    model = architectures.build(config.model)
    placed = model.shardings(make_mesh(MeshConfig(), jax.devices()[:1]))
    target = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), model.abstract(), placed)
    params, found = checkpoint.restore_params(workdir, target, step)
    tokenizer = _at_hand(config, say)
    origin = record.origin(saved)
    ids = to_write(config.model, tokenizer, origin.get("ids"))
    family = for_config(config.model, family, like=origin.get("family")).name
    save(directory, config.model, params, family=family, max_shard_bytes=max_shard_bytes, ids=ids)
    _write_tokenizer(config, tokenizer, directory)
    return found


def _at_hand(config: RunConfig, say: Log) -> Any:
    """Returns the run's tokenizer, of which an export needs the ids of special tokens; None if its file is gone."""
    from lm.data.tokenizer import SentencePiece, build

    chosen = config.data.tokenizer
    if isinstance(chosen, SentencePieceTokenizer):
        return SentencePiece  # all that are trained here have the same special tokens
    if not isinstance(chosen, ByteTokenizer) and not Path(chosen.path).is_file():
        say(f"the run's tokenizer {chosen.path} is not there: the export has neither it nor its ids")
        return None
    return build(chosen, [], config.data_dir)


def _write_bytes(directory: Path) -> None:
    """Writes our bytes as a tokenizer.json, with which transformers reads and writes text, and an import trains on."""
    from lm.data.tokenizer import Bytes

    special = {"<pad>": Bytes.pad_id, "</s>": Bytes.eos_id, "<mask>": int(Bytes.mask_id or 0)}
    with files.writing(directory / TOKENIZER, REMEDY):
        files.write_text(directory / TOKENIZER, bytes_as_tokenizer_json(Bytes.vocab_size - 256, special))
        spelled = {"eos_token": "</s>", "bos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
        files.write_json(directory / TOKENIZER_FILES[1], {"tokenizer_class": "PreTrainedTokenizerFast", **spelled})


def _write_tokenizer(config: RunConfig, tokenizer: Any, directory: Path) -> None:
    """Copies the files of a run's tokenizer, or writes what transformers needs beside its tokenizer.json to know the special tokens."""
    from lm.data.tokenizer import Bytes

    chosen, beyond = config.data.tokenizer, config.model.vocab_size - Bytes.vocab_size
    # ByT5's tokenizer makes the ids of bytes, and ends a text as an encoder's prompt ends; it numbers an objective's ids otherwise than we.
    as_byt5 = isinstance(chosen, ByteTokenizer) and not config.data.objective.special_ids(tokenizer.own)
    if as_byt5 and config.model.architecture == "encoder_decoder":
        with files.writing(directory / TOKENIZER_FILES[1], REMEDY):
            files.write_json(directory / TOKENIZER_FILES[1], {"tokenizer_class": "ByT5Tokenizer", "extra_ids": beyond})
    if as_byt5 and config.model.architecture == "decoder" and not tokenizer.own.sentinels:
        _write_bytes(directory)
    if tokenizer is None or isinstance(chosen, (ByteTokenizer, SentencePieceTokenizer)):
        return
    folder = Path(chosen.path).parent
    if not isinstance(chosen, HuggingFaceTokenizer):
        for name in (Path(chosen.path).name, *TOKENIZER_FILES[1:]):
            copied(folder, directory, name)
        return
    with files.writing(directory / TOKENIZER, REMEDY):
        files.write_text(directory / TOKENIZER, Path(chosen.path).read_text(encoding="utf-8"))
    found = [copied(folder, directory, name) for name in TOKENIZER_FILES[1:]]
    if any(found):
        return
    spelled = {"eos_token": tokenizer.eos_id, "bos_token": tokenizer.start_id, "pad_token": tokenizer.pad_id}
    values = {name: tokenizer.spelling(i) for name, i in spelled.items()}
    with files.writing(directory / TOKENIZER_FILES[1], REMEDY):
        files.write_json(directory / TOKENIZER_FILES[1], {"tokenizer_class": "PreTrainedTokenizerFast", **values})
