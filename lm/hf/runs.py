"""Makes runs from models in the Hugging Face layout, and models from runs, for `python -m lm.hf`.

An imported run has taken no step. It has run.json (status "imported"), config.json for lm.run, a checkpoint with weights only, and the
tokenizer. `lm.infer` continues texts with it, and `lm.run --config=RUN/config.json --workdir=RUN` trains it on.
"""

import hashlib
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm.data.config import DataConfig, HuggingFaceTokenizer
from lm.data.objectives.config import MaskedLM, NextToken, PrefixLM
from lm.errors import UserError
from lm.hf.convert import MAX_SHARD_BYTES, Params, load, save
from lm.hf.files import CONFIG, copied
from lm.model.config import ModelConfig
from lm.train import record
from lm.train.config import EvalConfig, RunConfig

TOKENIZER = "tokenizer.json"
LONGEST = 1024  # length of the rows of an imported run, unless its model has fewer positions


def import_run(directory: Path, workdir: Path, *, eos_token: Optional[str] = None) -> RunConfig:
    """Makes a run from a model, and returns its configuration.

    Args:
      directory: the directory of the model.
      workdir: the work directory of the run.
      eos_token: the spelling of the tokenizer's end-of-document token (default: the usual names).

    Raises:
      UserError: `workdir` holds a run or another config.json, `load` refuses the model, or the tokenizer has ids beyond its vocabulary.
    """
    from lm.train import checkpoint

    if record.read(workdir) is not None or checkpoint.steps(workdir):
        raise UserError(f"{workdir} holds a run already: choose another --workdir")
    if (workdir / CONFIG).exists():  # the model's own directory, as a rule: an import writes a file of that name
        raise UserError(f"{workdir} has a {CONFIG} already and is not a run: choose another --workdir")
    model, params = load(directory)
    tokenizer = _tokenizer(directory, workdir, model, eos_token)
    with record.writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    copied(directory, workdir, TOKENIZER)
    data = _data(workdir, model, eos_token)
    evaluation = EvalConfig(stride=min(EvalConfig().stride, data.sequence_length))
    config = RunConfig(model=model, data=data, evaluation=evaluation)
    _write(config, params, workdir, tokenizer, str(directory))
    return config


def _tokenizer(directory: Path, workdir: Path, model: ModelConfig, eos_token: Optional[str]) -> dict[str, Any]:
    """Returns the record's entry of the tokenizer. Without a tokenizer its fingerprint is None, which no tokenizer has."""
    from lm.data.tokenizer import build

    path = directory / TOKENIZER
    if not path.is_file():
        return {"name": "huggingface", "vocab_size": None, "fingerprint": None}
    found = build(HuggingFaceTokenizer(path=str(path), eos_token=eos_token), [], "")
    if found.vocab_size > model.vocab_size:
        there, here = found.vocab_size - 1, model.vocab_size
        raise UserError(f"{path} has ids up to {there} and the model has a vocabulary of {here}: it is not the tokenizer of this model")
    return {"name": found.name, "vocab_size": found.vocab_size, "fingerprint": found.fingerprint}


def _data(workdir: Path, model: ModelConfig, eos_token: Optional[str]) -> DataConfig:
    objective: Any = {"encoder_decoder": PrefixLM(), "encoder": MaskedLM()}.get(model.architecture, NextToken())
    tokenizer = HuggingFaceTokenizer(path=str(workdir / TOKENIZER), eos_token=eos_token)
    return DataConfig(tokenizer=tokenizer, objective=objective, sequence_length=min(model.max_length, LONGEST))


def _write(config: RunConfig, params: Params, workdir: Path, tokenizer: dict[str, Any], source: str) -> None:
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
    made |= {"status": "imported", "imported": {"from": source, "weights": weights.hexdigest()}}
    record.write_json(workdir / CONFIG, config_lib.to_dict(config))
    record.write(workdir, made)  # last: a directory without it is not a run


def export_run(
    workdir: Path, directory: Path, *, step: Optional[int] = None, family: Optional[str] = None, max_shard_bytes: int = MAX_SHARD_BYTES
) -> int:
    """Writes a checkpoint of a run (default: the newest) as `save` does, with its tokenizer.json if it has one.

    Returns:
      The step of the checkpoint.
    """
    import jax

    from lm.mesh import MeshConfig
    from lm.model import architectures
    from lm.sharding import make_mesh
    from lm.train import checkpoint

    saved = record.read(workdir)
    if saved is None:
        raise UserError(f"{workdir} holds no run (no {record.FILE}): name a work directory that lm.run, a study or an import wrote")
    config = config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])
    model = architectures.build(config.model)
    placed = model.shardings(make_mesh(MeshConfig(), jax.devices()[:1]))
    target = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), model.abstract(), placed)
    params, found = checkpoint.restore_params(workdir, target, step)
    save(directory, config.model, params, family=family, max_shard_bytes=max_shard_bytes)
    chosen = config.data.tokenizer
    if isinstance(chosen, HuggingFaceTokenizer) and Path(chosen.path).name == TOKENIZER:
        copied(Path(chosen.path).parent, directory, TOKENIZER)
    return found
