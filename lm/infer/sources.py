"""Finds what a text model is made of: a run's checkpoint and tokenizer, or those of a directory in the Hugging Face layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from lm import config as config_lib
from lm.data.objectives.config import MaskedLM, NextToken, PrefixLM
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.train import record, sealed
from lm.train.config import RunConfig
from lm.train.run_tokenizer import run_tokenizer

if TYPE_CHECKING:
    from lm.infer.text_model import TextModel

HUGGING_FACE = "config.json"


def load(path: Path, *, step: Optional[int] = None, data_dir: Optional[str] = None, overrides: Sequence[str] = ()) -> "TextModel":
    """Returns the text model of a run or of a directory (see lm.infer.load).

    `overrides` are settings "data.objective...=value" of the objective whose prompts the model knows (default: the run's).
    """
    if record.read(path) is not None or not (path / HUGGING_FACE).is_file():
        return _of_run(path, step, data_dir, overrides)
    if step is not None or overrides:
        raise UserError(f"{path} is no run but a model's directory, without steps or an objective: leave those flags out")
    return _of_directory(path)


def require(path: Path, step: Optional[int] = None) -> None:
    """Raises UserError for what is neither a run nor a model's directory (imports no jax)."""
    if record.read(path) is not None or not (path / HUGGING_FACE).is_file():
        read_run(path, step)


def read_run(workdir: Path, step: Optional[int] = None) -> tuple[record.Record, RunConfig]:
    """Returns the record and the configuration of a run (imports no jax). Raises UserError for none, or for no such checkpoint."""
    saved = record.read(workdir)
    if saved is None:
        raise UserError(
            f"{workdir} holds no run (no {record.FILE}): name a work directory that lm.run or a study wrote,"
            " or the folder of a Hugging Face model"
        )
    config = config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])
    sealed.require(workdir, step)
    return saved, config


def _of_run(workdir: Path, step: Optional[int], data_dir: Optional[str], overrides: Sequence[str]) -> "TextModel":
    saved, config = read_run(workdir, step)
    tokenizer = run_tokenizer(config, data_dir or config.data_dir, saved)
    if overrides:
        config = config_lib.apply_overrides(config, list(overrides))
        tokenizer = config.data.objective.tokenizer(getattr(tokenizer, "base", tokenizer))
        config.data.objective.require_vocabulary(tokenizer, config.model.vocab_size, config.data.sequence_length)

    import jax

    from lm.data.objectives.base import SpecialIds
    from lm.infer.text_model import TextModel
    from lm.model import architectures
    from lm.model.layers import listed
    from lm.sharding import make_mesh
    from lm.train import checkpoint

    stored = architectures.build(config.model)
    placed = stored.shardings(make_mesh(MeshConfig(), jax.devices()[:1]))
    target = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), stored.abstract(), placed)
    params = listed(checkpoint.restore_params(workdir, target, step)[0])
    source = record.origin(saved).get("ids") or {}
    special = SpecialIds(tokenizer, config.data.objective, config.model.vocab_size)
    # An import that nobody asks for another objective's prompts begins as its own tokenizer and transformers do.
    imported = source if saved["status"] == "imported" and not overrides else {}
    return TextModel(config.model, params, special, imported, stops=source.get("stops", ()), compute_dtype=config.compute_dtype)


def _of_directory(folder: Path) -> "TextModel":
    import jax

    from lm import hf
    from lm.data.objectives.base import SpecialIds
    from lm.data.tokenizer import build
    from lm.hf.ids import of_source
    from lm.infer.text_model import TextModel
    from lm.model.layers import listed

    config, arrays = hf.load(folder)
    ids = of_source(folder, config)
    if ids.tokenizer is None:
        raise UserError(f"{folder} has no tokenizer, and texts need one: put tokenizer.json there")
    tokenizer = build(ids.tokenizer, [], "")
    if tokenizer.vocab_size > config.vocab_size:
        there, here = tokenizer.vocab_size, config.vocab_size
        raise UserError(f"{folder} has a tokenizer of {there} ids, and its model knows {here}: it is another model's")
    kinds: dict[str, Any] = {"encoder_decoder": PrefixLM(), "encoder": MaskedLM()}
    special = SpecialIds(tokenizer, kinds.get(config.architecture, NextToken()), config.vocab_size)
    params = listed(jax.tree.map(jax.numpy.asarray, arrays))
    return TextModel(config, params, special, ids.recorded(), stops=ids.stops)
