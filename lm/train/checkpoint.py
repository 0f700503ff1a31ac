"""Checkpoints: arrays written by Orbax under their names, sealed by a manifest, and restored newest first.

    checkpoints/000120/state/          the arrays, written by Orbax under their paths ("params/embed/embedding", "opt_state/1/mu/..."),
                                       stacked weights in the order of their layers (lm.train.layer_order)
    checkpoints/000120/meta.json       the step, every array's shape and dtype, and what the host carries between steps
    checkpoints/000120/manifest.json   size and SHA-256 of every file; written last, before the directory gets its name

Orbax checks neither content nor names: a flipped bit restores as a wrong weight, and a restore without a target reorders keys. So files
are verified against the manifest, and names, shapes and dtypes against the target, before anything is read.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Optional

import jax

from lm import distributed
from lm.errors import UserError
from lm.train.record import write_json, writing
from lm.train.sealed import manifest, path_of, sound, steps, verify
from lm.types import Params, TrainState

Tree = dict[str, Any]


class Restored(NamedTuple):
    """A restored state with the host's values that were saved beside it."""

    state: TrainState
    host: dict[str, Any]


def save(workdir: Path, state: TrainState, host: dict[str, Any], *, keep: int) -> None:
    """Writes the checkpoint of `state.step` and removes all but the newest `keep`.

    The directory gets its final name when everything in it is on disk, so a kill leaves the earlier checkpoints as they were.
    Of several processes each writes the parts that it holds, and the first all else.

    Raises:
      UserError: a full disk, or a directory that cannot be written.
    """
    step = int(jax.device_get(state.step))
    final = path_of(workdir, step)
    temporary = final.with_name(final.name + ".tmp")
    tree = named_arrays(state)
    distributed.first(lambda: _begin(temporary, sum(leaf.nbytes for leaf in tree.values())))
    try:
        with writing(final):
            _orbax_save(temporary / "state", tree)
        meta = {"step": step, "arrays": _signature(tree), "host": host}
        distributed.first(lambda: _seal(temporary, final, meta))
    except BaseException:
        if distributed.is_first():  # others may still write to it
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if distributed.is_first():
        for old in steps(workdir)[: -max(keep, 1)]:
            shutil.rmtree(path_of(workdir, old), ignore_errors=True)


def _begin(temporary: Path, needed: int) -> None:
    with writing(temporary):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        for stale in temporary.parent.glob("*.tmp"):
            shutil.rmtree(stale)
    _require_space(temporary.parent, needed)
    with writing(temporary):
        temporary.mkdir()


def _seal(temporary: Path, final: Path, meta: dict[str, Any]) -> None:
    write_json(temporary / "meta.json", meta)
    write_json(temporary / "manifest.json", manifest(temporary))
    with writing(final):
        if final.exists():  # a damaged checkpoint of this step: the run fell back to an older one
            shutil.rmtree(final)
        temporary.rename(final)


def restore(workdir: Path, target: TrainState, log: Callable[[str], None] = print) -> Optional[Restored]:
    """Restores the newest sound checkpoint, in the shapes, dtypes and shardings of `target`; None when there is none.

    A damaged checkpoint is named through `log` and the one before it is taken.

    Raises:
      UserError: a sound checkpoint that is of another model.
    """
    step = distributed.first(lambda: _newest_sound(workdir, log))
    if step is None:
        return None
    tree = _read(workdir, step, named_arrays(target))
    leaves = [tree[name] for name in named_arrays(target)]
    state = jax.tree.unflatten(jax.tree.structure(target), leaves)
    return Restored(state, _meta(workdir, step)["host"])


def _newest_sound(workdir: Path, log: Callable[[str], None]) -> Optional[int]:
    for step in reversed(steps(workdir)):
        damage = verify(workdir, step)
        if damage is None:
            return step
        log(f"checkpoint {path_of(workdir, step)} is damaged ({damage}); trying the one before it")
    return None


def restore_params(workdir: Path, target: Params, step: Optional[int] = None) -> tuple[Params, int]:
    """Restores the parameters of one checkpoint (default: the newest sound one), placed as `target` is.

    Returns:
      (parameters, step).

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it is of another model.
    """
    found = distributed.first(lambda: sound(workdir, step))
    wanted = {f"params/{name}": leaf for name, leaf in named_arrays(target).items()}
    tree = _read(workdir, found, wanted)
    return jax.tree.unflatten(jax.tree.structure(target), list(tree.values())), found


def named_arrays(tree: Any) -> Tree:
    """Returns a tree's leaves by path, in the order of jax.tree.leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    assert len(named) == len(leaves), "two leaves have one name"
    return named


def _meta(workdir: Path, step: int) -> dict[str, Any]:
    return json.loads((path_of(workdir, step) / "meta.json").read_text(encoding="utf-8"))


def _signature(tree: Tree) -> dict[str, str]:
    return {name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for name, leaf in tree.items()}


def _read(workdir: Path, step: int, target: Tree) -> Tree:
    """Reads the arrays that `target` names; names, shapes and dtypes are checked first."""
    stored, wanted = _meta(workdir, step)["arrays"], _signature(target)
    groups = {name.partition("/")[0] for name in wanted}
    names = set(wanted) | {name for name in stored if name.partition("/")[0] in groups}
    for name in sorted(names, key=lambda name: (not name.startswith("params/"), name)):
        if stored.get(name) != wanted.get(name):
            raise UserError(
                f"checkpoint {path_of(workdir, step)} is of another model: {name} is {stored.get(name, 'absent')} there"
                f" and {wanted.get(name, 'absent')} here; use the configuration that made it"
            )
    return _orbax_restore(path_of(workdir, step) / "state", target)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 2 * needed + (1 << 20):
        raise UserError(f"{folder} has {free:,} bytes free and a checkpoint needs {2 * needed:,}: free space, then run it again")


def _orbax_save(path: Path, tree: Tree) -> None:
    import orbax.checkpoint as ocp  # takes a second to import

    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(path.resolve(), args=ocp.args.PyTreeSave(tree))
    except ValueError as error:  # Orbax reports what TensorStore could not write so
        raise OSError(None, " ".join(str(error).split())[:200]) from error


def _orbax_restore(path: Path, target: Tree) -> Tree:
    import orbax.checkpoint as ocp

    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore(path.resolve(), args=ocp.args.PyTreeRestore(item=target, restore_args=arguments, partial_restore=True))
    return {name: tree[name] for name in target}
