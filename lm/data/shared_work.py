"""Work that is cut into units and done by every core, and by other machines that share the directory (imports neither jax nor grain).

    DIRECTORY/claims/000012/...    who does unit 12 (lm.claims)
    DIRECTORY/units/000012/        its result, which appears as a whole, with facts.json

What a unit gives depends on the unit alone, so the results are the same whatever the number of processes and the order of their work. A
process that is killed leaves the units that are done; the next call does the others. Whoever finds all of them done joins them to what is
wanted, and removes the directory.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Optional

from tqdm import tqdm

from lm import claims, files
from lm.data.store import new_directory
from lm.errors import UserError

FACTS = "facts.json"
WORKERS = "LM_WORKERS"  # environment: processes that prepare text
HEARTBEAT_SECONDS = 5.0
POLL_SECONDS = 0.1
SAY_SECONDS = 60.0  # between lines about the progress where there is no terminal


@dataclasses.dataclass(frozen=True)
class Job:
    """Units of work whose results lie in one directory, TARGET.work, and are joined to the directory TARGET.

    `function(*arguments, unit, folder)` does one: it writes files into `folder` and returns facts, which JSON can hold. Among them are
    `documents`, for the progress bar.
    """

    target: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...]
    units: Sequence[Any]
    sizes: Sequence[int]  # bytes of each unit, for the progress bar

    @property
    def directory(self) -> str:
        return self.target + ".work"

    def is_over(self) -> bool:
        """Returns whether the units have been joined, here or elsewhere."""
        return os.path.isdir(self.target)

    def folder(self, i: int) -> pathlib.Path:
        """Returns the folder of a unit's result."""
        return pathlib.Path(self.directory, "units", f"{i:06d}")

    def done(self) -> set[int]:
        """Returns the units that are done."""
        try:
            return {int(name) for name in os.listdir(os.path.join(self.directory, "units")) if name.isdecimal()} & set(
                range(len(self.units))
            )
        except FileNotFoundError:
            return set()

    def facts(self, i: int) -> dict[str, Any]:
        """Returns the facts of a unit that is done."""
        return json.loads((self.folder(i) / FACTS).read_text(encoding="utf-8"))


def cores() -> int:
    """Returns the number of processes that prepare text: LM_WORKERS, else the cores that this process may use."""
    said = os.environ.get(WORKERS, "")
    if said and not (said.isdecimal() and int(said)):
        raise UserError(f"{WORKERS}={said} is no number of processes: set 1 or more")
    return int(said) if said else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def carry_out(job: Job, title: str, log: Callable[[str], object], workers: Optional[int] = None) -> None:
    """Does the units that are not done yet, by processes of this machine; units that others do are waited for.

    Raises:
      UserError: a unit could not be done, or a process was ended. What is done stays.
    """
    left = len(job.units) - len(job.done())
    if not left or job.is_over():
        return
    workers = min(workers or cores(), left)
    if left < len(job.units):
        log(f"{title}: {len(job.units) - left:,} of {len(job.units):,} parts are done already")
    with _Progress(job, title, log) as progress:
        if workers == 1:
            for _ in work(job):
                progress.show()
        else:
            _by_processes(job, workers, progress)
        progress.show()


def join(job: Job, write: Callable[[str], object]) -> None:
    """Has `write(directory)` join the units to what becomes the target, unless another process has done so, and removes the units."""
    try:
        if not job.is_over():
            with new_directory(job.target) as temporary:
                write(temporary)
    except UserError:
        if not job.is_over():  # else another process has joined and removed them meanwhile
            raise
    shutil.rmtree(job.directory, ignore_errors=True)


def work(job: Job) -> Iterator[int]:
    """Does units until all are done, and yields after each, or after a look at what others do."""
    with _Heart() as heart:
        while not job.is_over() and (left := sorted(set(range(len(job.units))) - job.done())):
            if not any(_take(job, i, heart) for i in left):
                time.sleep(POLL_SECONDS)
            yield len(left)


def _take(job: Job, i: int, heart: "_Heart") -> bool:
    """Does a unit, unless another does it; returns whether it was done here."""
    if job.folder(i).exists():
        return False
    root = pathlib.Path(job.directory)
    with files.writing(root, "free space there, or choose another --config.data_dir; what is done stays"):
        claim = claims.take(root / "claims" / f"{i:06d}", root)
        if claim is None:
            return False
        heart.claim = claim
        try:
            if not job.folder(i).exists():
                _do(job, i)
        except FileNotFoundError:
            if not job.is_over():  # else the units were joined and removed meanwhile
                raise
        finally:
            heart.claim = None
            claim.give_back()
    return True


def _do(job: Job, i: int) -> None:
    target = job.folder(i)
    target.parent.mkdir(exist_ok=True)
    for stale in target.parent.glob(f".{i:06d}.*"):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    folder = target.parent / f".{i:06d}.{socket.gethostname()}.{os.getpid()}"
    folder.mkdir()
    try:
        facts = job.function(*job.arguments, job.units[i], str(folder))
        files.write_json(folder / FACTS, facts)
        for path in folder.iterdir():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():  # made by another meanwhile, as the same
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Heart:
    """Touches the claim in hand, and ends a worker whose parent is gone."""

    def __init__(self) -> None:
        self.claim: Optional[claims.Claim] = None
        self._end, self._parent = threading.Event(), os.getppid()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "_Heart":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        since = 0.0
        while not self._end.wait(1.0):
            if _is_worker() and os.getppid() != self._parent:
                os._exit(1)
            since += 1.0
            if (claim := self.claim) is not None and since >= HEARTBEAT_SECONDS:
                claim.beat()
                since = 0.0


class _Progress:
    """A bar of bytes with documents, rate and the time left; a line each minute where there is no terminal."""

    def __init__(self, job: Job, title: str, log: Callable[[str], object]):
        self._job, self._title, self._log = job, title, log
        self._seen: set[int] = set()
        self._documents, self._began, self._said = 0, time.monotonic(), time.monotonic()

    def __enter__(self) -> "_Progress":
        total = sum(self._job.sizes)
        self._bar = tqdm(total=total, desc=self._title, unit="B", unit_scale=True, disable=None, leave=False, miniters=1)
        self._bar.initial = self._add()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _add(self) -> int:
        new = set() if self._job.is_over() else self._job.done() - self._seen
        self._seen |= new
        with contextlib.suppress(FileNotFoundError):  # joined and removed by another meanwhile
            self._documents += sum(self._job.facts(i)["documents"] for i in new)
        count = sum(self._job.sizes[i] for i in new)
        self._bar.set_postfix_str(f"{self._documents:,} documents", refresh=False)
        self._bar.update(count)
        return count

    def show(self) -> None:
        """Looks at what is done, here and elsewhere."""
        self._add()
        now, total = time.monotonic(), sum(self._job.sizes)
        if not self._bar.disable or now - self._said < SAY_SECONDS:
            return
        at = sum(self._job.sizes[i] for i in self._seen)
        self._said = now
        self._log(f"{self._title}: {at / 1e9:.2f} of {total / 1e9:.2f} GB, {self._documents:,} documents, after {now - self._began:.0f} s")


def _by_processes(job: Job, workers: int, progress: _Progress) -> None:
    with contextlib.ExitStack() as stack:
        sent = pickle.dumps(job)
        waiting = [stack.enter_context(_Worker(sent)) for _ in range(workers)]
        while waiting:
            for worker in [each for each in waiting if each.has_ended()]:
                waiting.remove(worker)
                worker.require_well()
            progress.show()
            time.sleep(POLL_SECONDS)


class _Worker:
    """A process that does units; it is ended with the block."""

    def __init__(self, job: bytes):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "RAYON_NUM_THREADS": "1",  # of the library `tokenizers`: a core for each process
            "TOKENIZERS_PARALLELISM": "false",
            "OPENBLAS_NUM_THREADS": "1",
            _WORKER: "1",
        }
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        with tempfile.TemporaryFile() as sent:  # not a pipe, for which a process that starts slowly would let this one wait
            sent.write(job)
            sent.seek(0)
            command = [sys.executable, "-m", __name__]
            self._process = subprocess.Popen(command, stdin=sent, stdout=self._said, stderr=subprocess.STDOUT, env=environment)

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._said.close()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def require_well(self) -> None:
        """Raises what ended the process, unless all units were done."""
        status = self._process.returncode
        if status == 0:
            return
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        if status == 2 and said:
            raise UserError(said.splitlines()[-1])
        if status < 0:
            raise UserError(
                f"a process that prepares text was ended by signal {-status}; what is done stays: give the command again, with fewer"
                f" processes where memory ran out ({WORKERS}={max(cores() // 2, 1)})"
            )
        raise RuntimeError(f"a process that prepares text ended with status {status}: {said[-2000:]}")


_WORKER = "LM_IS_WORKER"


def _is_worker() -> bool:
    return _WORKER in os.environ


def _main() -> int:
    job = pickle.load(sys.stdin.buffer)
    try:
        for _ in work(job):
            pass
    except UserError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main())
