"""Checkpoints: arrays written by Orbax under their names, sealed by a manifest, read back before they count, and restored when sound.

    checkpoints/00000120/state/          the arrays, written by Orbax under their paths ("params/embed/embedding", "opt_state/1/mu/..."),
                                         stacked weights in the order of their layers (lm.train.layer_order)
    checkpoints/00000120/meta.json       the step, every array's shape and dtype, and what the host carries between steps
    checkpoints/00000120/manifest.json   checksums of every file and array (lm.train.manifest); last, before the directory gets its name
    checkpoints/00000120.aside           a checkpoint that was damaged or of another model when a run went on without it
    checkpoints/00000120-3.tmp           one that is being written, in a try to save of its own number: threads of one that failed may write
                                         on; or, without -3, removed. A kill may leave it, and the next save removes it

Orbax checks neither content nor names: a flipped bit restores as a wrong weight, and a restore without a target reorders keys. So files
are verified against the manifest, and names, shapes and dtypes against the target, before anything is read; and the values after.

`python -m lm.train.checkpoint verify DIR` names every damage.
"""

import contextlib
import functools
import itertools
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import jax
import numpy as np

from lm import distributed, files
from lm.errors import AGAIN, Parser, UserError, one_line, run_cli
from lm.train import checksum, manifest
from lm.train.config import FallBack
from lm.train.record import write_json, writing
from lm.train.sealed import FOLDER, fault_of, meta_of, misfit_of, path_of, require_own, set_aside, sound, steps
from lm.types import Params, TrainState

BATCH_BYTES = 1 << 28  # arrays that are read back together
CHUNK_BYTES = 1 << 26  # of an array in its file: what a device reads at least, to get its part
Tree = dict[str, Any]
_tries = itertools.count()  # of saves in this process


class Restored(NamedTuple):
    """A restored state with the host's values that were saved beside it."""

    state: TrainState
    host: dict[str, Any]


# ---- saving -----------------------------------------------------------------------------------------------------------------


def save(
    workdir: Path,
    state: TrainState,
    host: dict[str, Any],
    *,
    keep: int,
    known: Collection[int] = (),
    rewind_every: Optional[int] = None,
) -> bool:
    """Writes the checkpoint of `state.step`, reads it back, and then removes all but the newest `keep`.

    The directory gets its final name when everything in it is on disk, so a kill leaves the earlier checkpoints as they were.
    Of several processes each writes the parts that it holds, and the first all else.

    Args:
      workdir: the work directory.
      state: arrays of devices or of the host.
      host: JSON values that an exact resume needs.
      keep: the newest checkpoints to keep.
      known: steps of checkpoints that this process wrote or verified. All others are verified before they are removed.
      rewind_every: the newest checkpoint of a step that this divides is kept too.

    Returns:
      whether its name is known to be on the disk. Where that could not be flushed the checkpoint counts, and nothing is removed.

    Raises:
      UserError: a full disk, a directory that cannot be written, or one that gives back other values than were written. Of several
        processes all raise it, also where one alone met it.
    """
    step = int(jax.device_get(state.step))
    final = path_of(workdir, step)
    tree = named_arrays(state)
    meta: dict[str, Any] = {"step": step, "arrays": _signature(tree), "host": host}

    def write() -> None:
        with writing(final):
            _orbax_save(temporary / "state", tree)

    temporary = Path(distributed.first(lambda: str(_begin(final, sum(leaf.nbytes for leaf in tree.values())))))
    try:
        checksums = _checksums(tree)
        _together(write)
        is_flushed = distributed.first(lambda: _seal(temporary, final, meta, checksums))
    except BaseException:
        if distributed.is_first():  # others may still write to it
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    if distributed.is_first() and is_flushed:
        there = steps(workdir)
        point = max((at for at in there if rewind_every and at % rewind_every == 0), default=None)
        _prune(workdir, [at for at in there[: -max(keep, 1)] if at != point], {step, *known}, meta["arrays"])
    return is_flushed


def _begin(final: Path, needed: int) -> Path:
    """Makes the folder in which a checkpoint is written, and removes what was left of others."""
    temporary = final.with_name(f"{final.name}-{next(_tries)}.tmp")
    require_own(temporary.parent.parent)
    with writing(temporary):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        for stale in temporary.parent.iterdir():
            if re.fullmatch(r"\d+(-\d+)?\.tmp", stale.name):
                with contextlib.suppress(OSError):  # a thread of a save that failed may write to it for a while: the next one removes it
                    _remove(stale)
    _require_space(temporary.parent, needed)
    with writing(temporary):
        temporary.mkdir()
    return temporary


def _seal(temporary: Path, final: Path, meta: dict[str, Any], checksums: dict[str, str]) -> bool:
    """Seals what was written, reads it back and gives it its name. Returns whether that is flushed: it is sound anyhow."""
    write_json(temporary / "meta.json", meta)
    with writing(final):
        manifest.seal(temporary, checksums)
        lost = manifest.damages(temporary) or _lost_values(temporary, checksums)
        if lost:
            raise OSError(None, f"what was written reads otherwise ({lost[0]})")
        if final.exists():
            set_aside(final)
        temporary.rename(final)
    try:
        manifest.flush(final.parent)
    except OSError:
        return False
    return True


def remove_after(workdir: Path, step: int, known: set[int]) -> None:
    """Removes the checkpoints after a step that the run has gone back to. What this process neither wrote nor verified is set aside."""
    for later in (at for at in steps(workdir) if at > step):
        with writing(path_of(workdir, later)):
            if later in known:
                _remove(path_of(workdir, later).rename(path_of(workdir, later).with_suffix(".tmp")))
            else:
                set_aside(path_of(workdir, later))


def _prune(workdir: Path, surplus: list[int], known: set[int], arrays: dict[str, str]) -> None:
    """Removes the checkpoints that are not to be kept. What is not sound is set aside; imported weights, which are step 0, stay."""
    for old in surplus:
        with contextlib.suppress(OSError, UserError):  # one that cannot be read or moved now stays
            if old in known or fault_of(workdir, old, arrays) is None:
                removed = path_of(workdir, old).rename(path_of(workdir, old).with_suffix(".tmp"))  # a kill must not leave half of one
                _remove(removed)
            elif old:
                set_aside(path_of(workdir, old))


def _remove(folder: Path) -> None:
    """Removes a checkpoint; of one that is a link, the link."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


# ---- restoring --------------------------------------------------------------------------------------------------------------


def restore(
    workdir: Path,
    target: TrainState,
    log: Callable[[str], None] = print,
    *,
    fall_back: Optional[FallBack] = None,
    first: int = 0,
    among: Optional[Collection[int]] = None,
) -> Optional[Restored]:
    """Restores the newest checkpoint, in the shapes, dtypes and shardings of `target`; None when there is none.

    Args:
      workdir: the work directory.
      target: the state with abstract arrays.
      log: prints a line for each checkpoint that is set aside.
      fall_back: what to do where the newest is damaged or of another model: refuse (None), go on from an "older" one that is sound, or
        from "nothing" where none is. What is not sound is then set aside under another name.
      first: the first step whose checkpoint may be restored.
      among: the steps whose checkpoints may be restored (default: all).

    Raises:
      UserError: a checkpoint that cannot be read, or one that is not sound and none to fall back to. Nothing has been changed then.
    """
    there = distributed.first(lambda: [step for step in steps(workdir) if step >= first and (among is None or step in among)])
    step = distributed.first(lambda: _newest(workdir, there, _signature(named_arrays(target)), log, fall_back))
    if step is None:
        return None
    tree = _read(workdir, step, named_arrays(target))
    leaves = [tree[name] for name in named_arrays(target)]
    state = jax.tree.unflatten(jax.tree.structure(target), leaves)
    return Restored(state, meta_of(workdir, step)["host"])


def _newest(
    workdir: Path, there: list[int], arrays: dict[str, str], log: Callable[[str], None], fall_back: Optional[FallBack]
) -> Optional[int]:
    faults: dict[int, str] = {}
    sound = None
    for step in reversed(there):
        fault = fault_of(workdir, step, arrays)
        if fault is None:
            sound = step
            break
        faults[step] = fault
    if faults and (fall_back is None or (sound is None and fall_back != "nothing")):
        said = "; ".join(f"checkpoint {path_of(workdir, step)} {fault}" for step, fault in faults.items())
        how = f"--fall_back=older to go on from step {sound}" if sound is not None else "--fall_back=nothing to train from the start"
        raise UserError(f"{said}: restore it, or add {how}; what is not sound is then set aside, not deleted")
    onward = "the start" if sound is None else f"step {sound}"
    for step, fault in faults.items():
        place = set_aside(path_of(workdir, step))
        log(f"checkpoint {path_of(workdir, step)} {fault}: set aside as {place.name}; going on from {onward}")
    return sound


def restore_params(workdir: Path, target: Params, step: Optional[int] = None) -> tuple[Params, int]:
    """Restores the parameters of one checkpoint (default: the newest), placed as `target` is.

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


def _signature(tree: Tree) -> dict[str, str]:
    return {name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for name, leaf in tree.items()}


def _read(workdir: Path, step: int, target: Tree) -> Tree:
    """Reads the arrays that `target` names; names, shapes and dtypes are checked first, and values after."""
    folder = path_of(workdir, step)
    misfit = misfit_of(meta_of(workdir, step)["arrays"], _signature(target))
    if misfit is not None:
        raise UserError(f"checkpoint {folder} {misfit}; use the configuration that made it")
    expected = files.reading(folder, lambda: manifest.read(folder))["arrays"]

    def read() -> Tree:
        tree: Tree = {}
        try:
            _together(lambda: tree.update(_orbax_restore(folder / "state", target)))
        except distributed.AgreedError as error:  # all of them try again
            raise OSError(None, str(error)) from error
        wrong = manifest.differing(tree, expected, _checksums(tree))
        if wrong:  # its files are sound
            raise OSError(None, f"{wrong[0]} has other values than were saved")
        return tree

    return files.reading(folder, read)


def _checksums(tree: Tree) -> dict[str, str]:
    """Returns the checksums of arrays, whose parts may lie on the devices of several processes. Each part is read once."""

    def own() -> dict[str, list[checksum.Sums]]:
        return {name: [checksum.of_part(*part) for part in _parts(leaf)] for name, leaf in tree.items()}

    def whole(parts: list[dict[str, list[checksum.Sums]]]) -> dict[str, str]:
        return {name: checksum.text(checksum.added([sums for of in parts for sums in of[name]])) for name in tree}

    return distributed.combined(own, whole)


def _parts(leaf: Any) -> Iterator[tuple[np.ndarray, tuple[int, ...], tuple[int, ...]]]:
    """Yields what this process is to read of an array: parts of it, the array's shape, and where in it they begin."""
    if not isinstance(leaf, jax.Array):
        yield np.asarray(leaf), np.shape(leaf), (0,) * np.ndim(leaf)
        return
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            yield np.asarray(shard.data), leaf.shape, tuple(part.start or 0 for part in shard.index)


def _lost_values(folder: Path, expected: dict[str, str]) -> list[str]:
    """Returns a phrase for each array of a sealed folder whose values are not those of its checksum. One process reads them all."""
    shapes = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["arrays"]
    lost = []
    for names in _batches(expected, shapes):
        tree = _orbax_restore(folder / "state", dict.fromkeys(names, np.ndarray), alone=True)
        wrong = manifest.differing(tree, expected, {name: checksum.of(tree[name]) for name in names})
        lost += [f"{name} has other values than were saved" for name in wrong]
    return lost


def _batches(names: Iterable[str], shapes: dict[str, str]) -> Iterator[list[str]]:
    """Yields names in groups whose arrays have about BATCH_BYTES together."""
    batch: list[str] = []
    size = 0
    for name in names:
        batch.append(name)
        sizes = re.findall(r"\d+", shapes[name].partition("[")[2])
        size += 4 * functools.reduce(lambda a, b: a * int(b), sizes, 1)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 2 * needed + (1 << 20):
        raise UserError(f"{folder} has {free:,} bytes free and a checkpoint needs {2 * needed:,}: free space, then run it again")


# ---- Orbax ------------------------------------------------------------------------------------------------------------------


_failures = 0  # calls of Orbax that failed on some process: as many on each


def _together(action: Callable[[], Any]) -> None:
    """Calls Orbax on every process; AgreedError on all of them where it fails on one.

    The others wait for that one where they would have met, for Orbax's five minutes, which is their error and not the cause. They are then
    a meeting ahead of it, and so all meet under other names from then on.
    """
    global _failures
    if distributed.count() == 1:
        action()
        return

    def tried() -> Optional[str]:
        try:
            action()
        except (UserError, OSError) as error:
            return one_line(error)
        return None

    def cause(errors: list[Optional[str]]) -> None:
        met = sorted(filter(None, errors), key=lambda error: "Barrier timed out" in error)
        if met:
            raise UserError(met[0])

    try:
        distributed.combined(tried, cause)
    except distributed.AgreedError:
        _failures += 1
        raise


def _orbax_save(path: Path, tree: Tree) -> None:
    import orbax.checkpoint as ocp  # takes a second to import

    how = {name: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES) for name in tree}
    with _orbax_errors(), _checkpointer(range(distributed.count())) as checkpointer:
        checkpointer.save(path.resolve(), args=ocp.args.PyTreeSave(tree, save_args=how))


def _orbax_restore(path: Path, target: Tree, *, alone: bool = False) -> Tree:
    """Reads the arrays that `target` names, as the abstract array there says or, where it is the type np.ndarray, on the host.

    All processes read together, unless this one does it `alone`.
    """
    import orbax.checkpoint as ocp

    if all(leaf is np.ndarray for leaf in target.values()):
        arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in target}
        target = dict.fromkeys(target, 0)
    else:
        arguments = ocp.checkpoint_utils.construct_restore_args(target)
    processes = [distributed.index()] if alone else range(distributed.count())
    with _orbax_errors(), _checkpointer(processes) as checkpointer:
        tree = checkpointer.restore(path.resolve(), args=ocp.args.PyTreeRestore(item=target, restore_args=arguments, partial_restore=True))
    return {name: tree[name] for name in target}


def _checkpointer(processes: Iterable[int]) -> Any:
    """Returns Orbax's checkpointer of these processes, the first of which writes what all share.

    Where processes are named, they wait for each other by the store of JAX's coordination service, which a thread may do beside training,
    and not by a collective on the devices, which it may not.
    """
    import orbax.checkpoint as ocp

    among = set(processes)
    several = {"active_processes": among, "barrier_sync_key_prefix": f"after-{_failures}"} if distributed.count() > 1 else {}
    how = ocp.options.MultiprocessingOptions(primary_host=min(among), **several)
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=how), multiprocessing_options=how)


class _Hook:
    """Python's hook for errors that nobody can catch, silent about an event loop that is closed."""

    def __init__(self, before: Callable[[Any], Any]):
        self._before = before

    def __call__(self, found: Any) -> None:
        if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"):
            self._before(found)


@contextlib.contextmanager
def _orbax_errors() -> Iterator[None]:
    """Raises the many kinds of errors with which Orbax and TensorStore report what they cannot read or write as OSErrors.

    They also log them with tracebacks. And Orbax closes its event loop at the first error, while TensorStore still writes other arrays:
    its threads then cannot tell the loop of their end, which Python prints. Both may come later, so that they are silenced for good.
    """
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_no_error_of_orbax)  # once: a function that is there is not added again
    try:
        yield
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise OSError(None, one_line(error)[:200]) from error


def _is_no_error_of_orbax(entry: logging.LogRecord) -> bool:
    error = entry.exc_info[1] if entry.exc_info else None
    return entry.levelno < logging.ERROR or not (f"{os.sep}orbax{os.sep}" in entry.pathname or "OCDBT database" in str(error))


# ---- the command ------------------------------------------------------------------------------------------------------------


def main(argv: Optional[list[str]] = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(prog="python -m lm.train.checkpoint", description="Looks after the checkpoints of a run.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    about = f"Reads every checkpoint of a work directory, its {FOLDER}, or one checkpoint in it, and compares its files and arrays with"
    about += " what was written: a line for each that is sound, and for each damage. The exit status is 0 if all are sound, 1 if one is"
    about += " damaged, and 2 if one cannot be read or there is none."
    verify = verbs.add_parser("verify", help="name every damage", description=about)
    verify.add_argument("directory", type=Path, metavar="DIR", help=f"work directory, its {FOLDER}, or one checkpoint")
    return max(map(_report, _folders(parser.parse_args(argv).directory)))


def _folders(place: Path) -> list[Path]:
    """Returns the checkpoints that a command line's directory means."""
    for folder in (place / FOLDER, place):
        found = sorted(path for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []
        if found:
            return found
    if (place / manifest.FILE).exists() or (place.name.isdecimal() and place.is_dir()):
        return [place]
    raise UserError(f"{place} holds no checkpoint: name a work directory, its {FOLDER}, or one checkpoint")


def _report(folder: Path) -> int:
    """Prints what was found of a checkpoint and returns the status for it."""
    try:
        lost = files.reading(folder, lambda: manifest.damages(folder))
        content = {} if lost else manifest.read(folder)
        lost = lost or files.reading(folder, lambda: _lost_values(folder, content["arrays"]))
    except UserError as error:
        print(f"{folder}: {error}")
        return 2
    for line in lost:
        print(f"{folder}: {line}")
    if not lost:
        size, arrays = sum(size for size, _ in content["files"].values()), len(content["arrays"])
        values = f"{arrays} arrays" if arrays else "no checksums of arrays in its format"
        print(f"{folder}: sound ({len(content['files'])} files, {values}, {size:,} bytes)")
    return int(bool(lost))


if __name__ == "__main__":
    run_cli(main, AGAIN)
