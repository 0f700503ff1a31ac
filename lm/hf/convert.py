"""Converts a model in the Hugging Face layout to our configuration and parameters (`load`), and back (`save`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from lm import files
from lm.errors import UserError
from lm.hf import families
from lm.hf.family import Family
from lm.hf.files import CONFIG, GENERATION, REMEDY, Tensors, files_of_a_model, opened, read_json, write
from lm.hf.forms import Entry, entries
from lm.model.config import ModelConfig

MAX_SHARD_BYTES = 5_000_000_000
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
Params = dict[str, Any]


def load(directory: Union[str, Path]) -> tuple[ModelConfig, Params]:
    """Returns (configuration, parameters) of a directory with config.json and model.safetensors, or shards and their index.

    The parameters are float32 numpy arrays, whatever dtype the files hold.

    Raises:
      UserError: the family or an option is not supported, or tensors are missing, surplus or of the wrong shape. The message names them.
    """
    folder = Path(directory)
    values = read_json(folder / CONFIG)
    family = families.family_of(values, str(folder / CONFIG))
    with opened(folder) as tensors:
        _require_plausible(values, len(tensors.names), str(folder / CONFIG))
        config = family.config(values, tensors.names, str(folder / CONFIG))
        leaves = _shapes(config)
        table = entries(family.rules, leaves)
        theirs = _matched(family, table, tensors)
        flat = {path: np.empty(shape, np.float32) for path, shape in leaves.items()}
        for name, entry in table.items():
            parts = entry.form.load(tensors.read(theirs[name]), list(entry.shapes))
            for path, part in zip(entry.ours, parts, strict=True):
                flat[path][... if entry.layer is None else entry.layer] = part
    return config, _nested(flat)


def save(
    directory: Union[str, Path],
    config: ModelConfig,
    params: Params,
    *,
    family: Optional[str] = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    ids: Optional[tuple[dict[str, Any], dict[str, Any]]] = None,
) -> None:
    """Writes a model in float32 so that `transformers` and `load` read it.

    Args:
      directory: the directory of the model, which is created.
      config: its configuration.
      params: its parameters.
      family: one of lm.hf.FAMILIES (default: the first that can hold the configuration).
      max_shard_bytes: the largest size of a file of weights.
      ids: the ids of special tokens, as keys of config.json and of generation_config.json (default: none is known, and transformers
        takes the family's usual ones).

    Raises:
      UserError: the directory holds a model, no family can hold the configuration, or the parameters do not belong to it.
    """
    from lm.model.weights import check

    folder, (own, generation) = Path(directory), ids or ({}, {})
    chosen = families.for_config(config, family)
    for key, allowed in chosen.fixed.items():
        if key in own and own[key] not in allowed:
            raise UserError(
                f"{chosen.name} computes as we do with {key}={allowed[0]!r}, and here it is {own[key]!r}: choose another family"
            )
    check(params, _abstract(config))
    taken = files_of_a_model(folder)
    if taken:
        raise UserError(f"{folder} holds a model already ({', '.join(taken[:4])}): choose another directory")
    with files.writing(folder, REMEDY):
        folder.mkdir(parents=True, exist_ok=True)
    leaves = _leaves(params)
    table = entries(chosen.rules, {path: tuple(leaf.shape) for path, leaf in leaves.items()})
    if "head/kernel" in leaves:
        table |= {name: table[chosen.tied[name]] for name in chosen.untied}

    def make(name: str) -> np.ndarray:
        entry = table[name]
        return entry.form.save([_part(leaves[path], entry.layer) for path in entry.ours])

    write(folder, {name: 4 * int(np.prod(entry.shape)) for name, entry in table.items()}, make, max_shard_bytes)
    if generation:
        with files.writing(folder / GENERATION, REMEDY):
            files.write_json(folder / GENERATION, generation)
    with files.writing(folder / CONFIG, REMEDY):  # last: a directory without it is no model
        files.write_json(folder / CONFIG, {"dtype": "float32", **chosen.values(config), **own})


def _require_plausible(values: Mapping[str, Any], tensors: int, where: str) -> None:
    """Raises UserError for more layers than there are tensors, before anything is made for each of so many layers."""
    for key in LAYERS:
        value = values.get(key)
        if isinstance(value, (int, float)) and not value <= tensors:
            raise UserError(f"{where}: {key}={value} cannot be: the weights beside it are {tensors} tensors, and a layer has one at least")


def _part(leaf: Any, layer: Optional[int]) -> np.ndarray:
    return np.asarray(leaf if layer is None else leaf[layer], np.float32)


def _matched(family: Family, table: dict[str, Entry], tensors: Tensors) -> dict[str, str]:
    """Returns the checkpoint's name of each tensor of the table.

    Raises:
      UserError: tensors are missing, surplus or of the wrong shape.
    """
    known = {**table, **family.tied}
    found: dict[str, str] = {}
    surplus, copies = [], []
    for name in sorted(tensors.names):
        ours = family.canonical(name, known)
        if ours in found:
            raise UserError(f"{tensors.folder} holds {ours} twice: as {found[ours]} and as {name}")
        if ours in table:
            found[ours] = name
        elif ours in family.tied and family.tied[ours] in table:
            copies.append((name, family.tied[ours]))
        elif not family.is_ignored(ours):
            surplus.append(name)
    _complain(tensors.folder, "lacks", [name for name in table if name not in found])
    _complain(tensors.folder, "holds, beyond what its config.json describes,", surplus)
    wrong = [(name, tensors.shape(found[name]), entry.shape) for name, entry in table.items() if tensors.shape(found[name]) != entry.shape]
    _complain(tensors.folder, "has the wrong shape of", [f"{name} ({list(there)} and not {list(want)})" for name, there, want in wrong])
    for name, first in copies:
        if not np.array_equal(tensors.read(name), tensors.read(found[first])):
            raise UserError(f"{tensors.folder}: {name} differs from {first}, but config.json says that they are tied")
    return found


def _complain(folder: Path, what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise UserError(f"{folder} {what} {len(names)} of the tensors: {', '.join(names[:4])}{more}")


def _abstract(config: ModelConfig) -> Params:
    from lm.model.architectures import build

    return build(config).abstract()


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    return {path: tuple(leaf.shape) for path, leaf in _leaves(_abstract(config)).items()}


def _leaves(params: Params) -> dict[str, Any]:
    from lm.model.weights import flatten

    return flatten(params)


def _nested(flat: dict[str, np.ndarray]) -> Params:
    tree: Params = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree
