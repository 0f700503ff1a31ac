"""Leases let one worker at a time train a cell, and keep one that lost its lease from touching the cell (imports no jax).

    cells/ID/claims/000007    the claim of epoch 7: which process its worker is, touched as a heartbeat, emptied when it is given back
    cells/ID/epoch-000007/    the folder in which that worker trains
    cells/ID/run.json         the result, linked from there once; it names the epoch
    cells/ID/logs/000007      where that worker's output is

A worker takes a cell by creating the claim of the next epoch. Only one of several can: a hard link is made or fails as a whole, on POSIX
file systems and on NFS, and no lock is needed. Claims are never removed, so the numbers only grow. The newest counts. It is stale when its
process is gone (same machine) or its heartbeat is older than `STALE_SECONDS` by the file server's clock; then anyone may take the next.

A worker that was paused past its lease writes into the folder of its own epoch, which nobody reads any more. It cannot end the cell, since
it checks its lease by a clock of its own before, and since the result is created once.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import time
from typing import Any, Optional

from lm import claims, files, machine
from lm.errors import UserError
from lm.study import records
from lm.train.record import reopened

LEASE_SECONDS = 90.0  # what a worker may rely on after a heartbeat, by its own clock
STALE_SECONDS = 120.0  # what others wait for the next heartbeat: longer, so that a worker stops before another begins
HEARTBEAT_SECONDS = 10.0
CLAIMS = records.CLAIMS
EPOCH = "epoch-"
LOGS = "logs"
KEPT = ("config.json", CLAIMS, LOGS, records.FAILURES)  # what is in a cell's folder from the plan on; the rest is of a run
_held: set["Lease"] = set()


class Lost(Exception):
    """The worker has no lease on its cell any more."""


@dataclasses.dataclass(eq=False)
class Lease:
    """This process's hold on a cell, for one epoch.

    `until` is when the lease runs out, by `machine.clock`. `past` is what the claims before this one hold, oldest first, and `saved` the
    newest checkpoint. `lost` says that the cell is another's or was removed.
    """

    cell: pathlib.Path
    epoch: int
    until: float
    past: list[dict[str, Any]]
    saved: int
    lost: bool = False

    @property
    def deaths(self) -> int:
        """Number of workers before this one that ended without a word, and without a checkpoint after their claim."""
        return sum("born" in claim and claim.get("checkpoint") == self.saved for claim in self.past)

    @property
    def errors(self) -> list[str]:
        """The errors with which workers before this one gave the cell back."""
        return [str(claim["error"]) for claim in self.past if "error" in claim]

    @property
    def preempted(self) -> list[str]:
        """The scheduler's jobs that were started again or ended while they held the cell, and left no checkpoint after their claim."""
        return [str(claim["preempted"]) for claim in self.past if "preempted" in claim and claim.get("checkpoint") == self.saved]

    @property
    def claim(self) -> pathlib.Path:
        return _claim(self.cell, self.epoch)

    @property
    def workdir(self) -> pathlib.Path:
        """The folder of this epoch, in which the cell is trained."""
        return workdir(self.cell, self.epoch)

    def renew(self) -> bool:
        """Says that the worker is alive. Returns False when the lease is lost. Raises OSError when the file server does not answer."""
        began = machine.clock()
        try:
            os.utime(self.claim)
            self.lost = self.lost or newest(self.cell) != self.epoch
        except FileNotFoundError:
            self.lost = True
        if not self.lost:
            self.until = began + LEASE_SECONDS
        return not self.lost

    def is_lost(self) -> bool:
        """Says whether another worker has taken or ended the cell; False when nobody can tell."""
        try:
            return not self.renew() or records.is_finished(self.cell)
        except OSError:
            return self.lost

    def begin(self) -> pathlib.Path:
        """Makes the folder of this epoch from what the last one left, removes what was before, and returns it.

        Files are copied, not moved, so that a worker that lost its lease cannot write into them. Those of checkpoints never change and are
        linked.
        """
        for folder in self._copy():
            shutil.rmtree(folder, ignore_errors=True)
        _clear(self.cell)
        return self.workdir

    def _copy(self) -> list[pathlib.Path]:
        """Makes the folder of this epoch as a copy of the last one's, and returns those of the epochs before."""
        old = [folder for folder in _epochs(self.cell) if folder.name < self.workdir.name]
        source, building = old[-1] if old else self.cell, self.workdir.with_suffix(".tmp")

        def copy(path: str, target: str) -> None:
            if pathlib.Path(path).parent != source:  # not one such as metrics.jsonl, which grows
                with contextlib.suppress(OSError):  # of another user, say
                    return os.link(path, target)
            shutil.copy2(path, target)

        for attempt in range(3):
            shutil.rmtree(building, ignore_errors=True)
            try:
                shutil.copytree(source, building, ignore=_left_out, copy_function=copy)
                break
            except shutil.Error as error:  # something vanished: the worker before this one is not as dead as it seemed
                if attempt == 2:
                    raise OSError(f"cannot copy {source}: {error.args[0][0][2]}") from error
        building.rename(self.workdir)
        return old

    def cancel(self, cell: dict[str, Any]) -> None:
        """Ends the cell as cancelled. Raises Lost where the worker before this lease ends it first.

        That worker may be alive and about to commit. So nothing of its is removed before one of the two results is linked.
        """
        try:
            if not self._copy():  # no worker has begun: what is in the cell's folder was left by version 0.5, or by nobody
                _clear(self.cell)
        except FileNotFoundError as error:
            raise Lost("the cell has ended") from error
        self.commit(records.cancelled(self.workdir, cell))

    def commit(self, record: dict[str, Any]) -> None:
        """Makes a finished run's record the cell's result, once and as a whole. Raises Lost when the lease has run out."""
        if not self.renew() or machine.clock() >= self.until:
            raise Lost(f"the lease of epoch {self.epoch} ran out")
        self.workdir.mkdir(exist_ok=True)
        sealed = self.workdir / "result.json"
        files.write_json(sealed, records.sealed(record, self.epoch))
        if machine.clock() >= self.until or not claims.link(sealed, self.cell / records.FILE):
            raise Lost(f"the lease of epoch {self.epoch} ran out, or the cell has ended")
        settle(self.cell)

    def give_back(self, error: Optional[str] = None, *, is_preempted: bool = False) -> None:
        """Frees the cell for others, if it is held still. An error, if there was one, is kept in the claim and counts.

        So does a preemption of a scheduler's job (`is_preempted`), until a checkpoint is made.
        """
        _held.discard(self)
        if error is not None:
            self.claim.write_text(json.dumps({"error": error}), encoding="utf-8")
        with contextlib.suppress(UserError):  # a claim that cannot be read stays until it is stale
            if error is None and _owner(self.claim) is not None:  # or else another process of this worker has left its error there
                _empty(self.claim, is_preempted)


def claim(study_dir: pathlib.Path, cell_id: str) -> Optional[Lease]:
    """Takes a cell for this process. Returns None when the cell is finished or another living process holds it.

    Raises: UserError on a file system that has no hard links, or when the heartbeat of another machine lies in the future.
    """
    return claim_folder(study_dir / "cells" / cell_id)


def claim_folder(cell: pathlib.Path) -> Optional[Lease]:
    """Takes a cell, or anything that only one process may do, by its folder: two levels below the study's directory. See `claim`."""
    if records.is_finished(cell):
        return None
    last = newest(cell)
    if _holder(cell, last) is not None:
        _require_past(cell, last)
        return None
    lease = _take(cell, last + 1)
    if lease is not None and records.is_finished(cell):  # by another worker, since the look above
        lease.give_back()
        return None
    return lease


def holder(cell: pathlib.Path) -> Optional[dict[str, Any]]:
    """Returns the living process that holds a cell, with its epoch; None when the newest claim is given back, stale or unreadable."""
    return _holder(cell, newest(cell))


def _holder(cell: pathlib.Path, epoch: int) -> Optional[dict[str, Any]]:
    owner = _owner(_claim(cell, epoch))
    if owner is None or machine.is_gone(owner):
        return None
    return owner | {"epoch": epoch} if _age(cell, epoch) < STALE_SECONDS else None


def newest(cell: pathlib.Path) -> int:
    """Returns the newest epoch of a cell; 0 when nobody has ever claimed it."""
    return max(_claimed(cell), default=0)


def workdir(cell: pathlib.Path, epoch: int) -> pathlib.Path:
    """Returns the folder in which the worker of an epoch trains."""
    return cell / f"{EPOCH}{epoch:06d}"


def log_of(cell: pathlib.Path, epoch: int) -> Optional[pathlib.Path]:
    """Returns the file with the output of the worker of an epoch; None where it went elsewhere."""
    try:
        return pathlib.Path(os.path.normpath(cell / (cell / LOGS / _claim(cell, epoch).name).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def tidy(lease: Lease) -> None:
    """Removes the claims before a lease's. For what is claimed again and again, and whose past nobody asks about."""
    for epoch in _claimed(lease.cell):
        if epoch < lease.epoch:
            _claim(lease.cell, epoch).unlink(missing_ok=True)
            (lease.cell / LOGS / _claim(lease.cell, epoch).name).unlink(missing_ok=True)


def clear_stale(study_dir: pathlib.Path, cell_ids: list[str]) -> int:
    """Gives back the claims of this machine's processes that are gone, and returns how many there were."""
    freed = 0
    for cell in (study_dir / "cells" / cell_id for cell_id in cell_ids):
        path = _claim(cell, newest(cell))
        owner = _owner(path)
        if owner is not None and machine.is_gone(owner):
            _empty(path)
            freed += 1
    return freed


def give_back_of_job(study_dir: pathlib.Path, cell_ids: list[str], job: str) -> int:
    """Gives back the claims of a job that is started again, and returns how many there were. What ended it was no fault of a cell."""
    freed = 0
    for cell in (study_dir / "cells" / cell_id for cell_id in cell_ids):
        path = _claim(cell, newest(cell))
        if (_owner(path) or {}).get("job") == job:
            _empty(path, is_preempted=True)
            freed += 1
    return freed


def accuse(workdir: pathlib.Path, error: str) -> None:
    """Gives back the cell that is trained in an epoch's folder, with the error of a process that holds no lease itself.

    The process that holds it has to end: a cell that it has given back or ended meanwhile, or that another worker has, is left as it is.
    """
    cell, epoch = workdir.parent, int(workdir.name.removeprefix(EPOCH))
    path = _claim(cell, epoch)
    if not records.is_finished(cell) and newest(cell) == epoch and _owner(path) is not None:
        path.write_text(json.dumps({"error": error}), encoding="utf-8")


def may_fall_free(study_dir: pathlib.Path, cell_ids: list[str], idle_seconds: float) -> bool:
    """Says whether a cell may be held by a machine that is lost: its heartbeat is late, or was not looked at for long enough to tell."""
    for cell in (study_dir / "cells" / cell_id for cell_id in cell_ids):
        last = newest(cell)
        owner = _holder(cell, last)
        is_elsewhere = owner is not None and not machine.is_here(owner)
        if is_elsewhere and (idle_seconds < 2.5 * HEARTBEAT_SECONDS or _age(cell, last) > 1.5 * HEARTBEAT_SECONDS):
            return True
    return False


def silent(study_dir: pathlib.Path, cell_ids: list[str]) -> set[int]:
    """Returns the numbers of this machine's processes that live and hold a cell, but have no heartbeat."""
    found = set()
    for cell in (study_dir / "cells" / cell_id for cell_id in cell_ids):
        epoch = newest(cell)
        owner = _owner(_claim(cell, epoch))
        if owner is not None and machine.is_here(owner) and not machine.is_gone(owner) and _age(cell, epoch) >= STALE_SECONDS:
            found.add(owner["pid"])
    return found


def give_back_all() -> None:
    """Frees all cells that this process holds, because it is asked to end."""
    for lease in list(_held):
        lease.give_back(is_preempted=True)


def cancel(study_dir: pathlib.Path, cell: dict[str, Any]) -> bool:
    """Ends an unfinished cell as cancelled and says whether it was unfinished. A worker that trains it loses its lease and turns to others.

    Args:
        study_dir: the study's directory
        cell: the cell's entry in study.json
    """
    folder = study_dir / "cells" / cell["id"]
    while not records.is_finished(folder):
        lease = _take(folder, newest(folder) + 1)
        if lease is None:
            continue  # a worker has just taken that epoch: take the next
        try:
            lease.cancel(cell)
            return True
        except Lost:
            continue
        finally:
            lease.give_back()
    settle(folder)
    return False


def retry(study_dir: pathlib.Path, cell_ids: list[str], *, from_start: bool, states: tuple[str, ...] = ("failed",)) -> list[str]:
    """Makes failed cells free again and returns their ids. One that a living process holds is left to it.

    Args:
        study_dir: the study's directory
        cell_ids: the cells to look at
        from_start: train them from their start, not from their newest checkpoint; without readable records they are in any case
        states: the states of the cells that are made free: "failed", "cancelled", "diverged"
    """
    freed = []
    for cell_id in cell_ids:
        cell = study_dir / "cells" / cell_id
        last = newest(cell)
        if records.read(cell).get("status") not in states or _holder(cell, last) is not None:
            continue
        lease = _take(cell, last + 1)
        if lease is None:
            continue
        record = records.read(cell)
        if record.get("status") in states:
            if from_start or not records.is_begun(record):
                for folder in _epochs(cell):
                    shutil.rmtree(folder)
                _clear(cell)
            else:
                path = lease.begin() / records.FILE
                if record.get("status") == "diverged":  # which training would return as it is
                    files.write_json(path, reopened(record))
            for epoch in _claimed(cell):
                _empty(_claim(cell, epoch))  # forgets the workers that died, and the errors
            freed.append(cell_id)
        lease.give_back()
    return freed


def settle(cell: pathlib.Path) -> None:
    """Moves what the worker of a finished cell left into the cell's folder. Any process may, also several at a time.

    It is in the folder of the epoch that committed, or of a later one, whose worker had copied that; earlier ones are of lost leases.
    """
    epoch = records.epoch_of(records.read(cell))
    for source in (folder for folder in _epochs(cell) if folder >= workdir(cell, epoch)):
        for path in source.iterdir():
            target = cell / path.name
            if path.name not in (records.FILE, "result.json", ".lock", *KEPT) and not target.exists():
                with contextlib.suppress(FileNotFoundError):  # another process does the same
                    path.rename(target)
    for folder in cell.glob(f"{EPOCH}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _take(cell: pathlib.Path, epoch: int) -> Optional[Lease]:
    """Creates the claim of an epoch, which follows the one that was judged; None when another process does so first."""
    (cell / CLAIMS).mkdir(parents=True, exist_ok=True)
    began, saved = machine.clock(), _newest_checkpoint(cell)
    path = _claim(cell, epoch)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix=".new-", dir=path.parent) as file:
        os.fchmod(file.fileno(), 0o644)
        json.dump(machine.process() | {"checkpoint": saved, "time": time.time()}, file)
        file.flush()
        if not claims.link(pathlib.Path(file.name), path):
            return None
    if (log := machine.output()) is not None:
        with contextlib.suppress(OSError):
            (cell / LOGS).mkdir(exist_ok=True)
            (cell / LOGS / path.name).write_text(os.path.relpath(log, cell), encoding="utf-8")
    past = [_content(_claim(cell, number)) for number in sorted(_claimed(cell)) if number < epoch]
    lease = Lease(cell, epoch, began + LEASE_SECONDS, past, saved)
    _held.add(lease)
    return lease


def _claim(cell: pathlib.Path, epoch: int) -> pathlib.Path:
    return cell / CLAIMS / f"{epoch:06d}"


def _claimed(cell: pathlib.Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(cell / CLAIMS) if name.isdecimal()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _owner(path: pathlib.Path) -> Optional[dict[str, Any]]:
    """Returns the process that made a claim; None when the claim is absent, given back, or nothing that this program wrote."""
    owner = _content(path)
    return owner if isinstance(owner.get("pid"), int) and "born" in owner else None


def _content(path: pathlib.Path) -> dict[str, Any]:
    """Returns what a claim holds; {} when it is absent, given back without an error, or nothing that this program wrote.

    Raises:
      UserError: the system cannot read it.
    """
    try:
        content = json.loads(files.reading(path, lambda: "" if path.is_dir() else path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def strange(lease: Lease) -> Optional[pathlib.Path]:
    """Returns the claim before a lease's if it holds something, but nothing that this program wrote: it counted as given back."""
    path = _claim(lease.cell, lease.epoch - 1)
    with contextlib.suppress(FileNotFoundError):
        return path if not _content(path) and (path.is_dir() or path.stat().st_size) else None
    return None


def _age(cell: pathlib.Path, epoch: int) -> float:
    """Returns the seconds since the last heartbeat of an epoch, both ends by the file server's clock."""
    try:
        stamp = _claim(cell, epoch).stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    return machine.server_time(cell.parent.parent) - stamp


def _require_past(cell: pathlib.Path, epoch: int) -> None:
    """Raises UserError for a heartbeat in the future: the file system stamps files by clocks of its clients, and they differ."""
    if (ahead := -_age(cell, epoch)) > machine.MAX_SKEW_SECONDS:
        host = (_owner(_claim(cell, epoch)) or {}).get("host")
        raise UserError(f"{_claim(cell, epoch)}: the heartbeat of {host} lies {ahead:.0f} s in the future: set the clocks of both (NTP)")


def _epochs(cell: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in cell.glob(f"{EPOCH}*") if path.name.removeprefix(EPOCH).isdecimal())


def _newest_checkpoint(cell: pathlib.Path) -> int:
    folder = [cell, *_epochs(cell)][-1] / records.CHECKPOINTS
    names = [path.parent.name for path in folder.glob("*/manifest.json")]
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Returns what is no part of a run, or unfinished."""
    del folder
    return {name for name in names if name in (*KEPT, ".lock", "claim") or name.startswith(EPOCH) or name.endswith(".tmp")}


def _clear(cell: pathlib.Path) -> None:
    """Removes a run from a cell's folder; its record goes last, since checkpoints without one are of nobody knows which run."""
    entries = [path for path in cell.iterdir() if path.name not in KEPT and not path.name.startswith(EPOCH)]
    for path in sorted(entries, key=lambda path: path.name == records.FILE):
        _remove(path)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _empty(path: pathlib.Path, is_preempted: bool = False) -> None:
    """Gives a claim back. That of a preempted job keeps which it was: nobody stops a scheduler that starts it again for ever."""
    owner = (_owner(path) if is_preempted else None) or {}
    with contextlib.suppress(OSError):  # it stays until it is stale
        if "job" in owner:
            content = {"preempted": f"job {owner['job']} on {owner.get('host')}", "checkpoint": owner.get("checkpoint")}
            path.write_text(json.dumps(content), encoding="utf-8")
        else:
            os.truncate(path, 0)
