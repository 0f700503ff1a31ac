"""Damages, interrupts and starves the checkpoints of a small state in every way, and says how often and what was lost.

    python tests/faults/saves.py [--each=1]

- Every 16 bytes of every file of a checkpoint are changed in one bit, and every file is cut at as many places: each has to be named.
- A save is killed (SIGKILL) at each of its calls that change something on disk: the checkpoints before it have to be sound, and the next
  process saves without help.
- Each of these calls fails in turn, as on a full or failing disk: the save has to say so in one line, and the next one works.

Exits non-zero when one of them is not so.
"""

import argparse
import errno
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import preloaded

preloaded.run_again()

import numpy as np  # noqa: E402 after the script has been started again

from lm.errors import UserError  # noqa: E402
from lm.train import checkpoint, sealed  # noqa: E402
from lm.types import TrainState  # noqa: E402

CALLS = "create,write,fsync,rename,mkdir,unlink"
EVERY = 16  # bytes
ERRORS = {
    "create": errno.EIO,
    "write": errno.ENOSPC,
    "fsync": errno.EIO,
    "rename": errno.EIO,
    "mkdir": errno.ENOSPC,
    "unlink": errno.EACCES,
}
found: list[str] = []


def state(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    params = {name: rng.standard_normal((8, 16)).astype(np.float32) for name in ("embed", "up", "down")}
    return TrainState(step=np.int32(step), params=params, opt_state={"mu": {name: 0 * leaf for name, leaf in params.items()}})


def save(workdir: Path, step: int) -> None:
    checkpoint.save(workdir, state(step), {"step": step}, keep=2, known=range(step))


def expect(is_so: bool, what: str) -> None:
    if not is_so:
        found.append(what)
        print(f"NOT HELD: {what}", flush=True)


def damaged(workdir: Path, each: int) -> int:
    """Changes each part of each file of a checkpoint, and counts the changes. Each has to be found, and its file named."""
    folder, count = sealed.path_of(workdir, 1), 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for at in range(0, len(content), EVERY * each):
            flipped = content[:at] + bytes([content[at] ^ 1 << at // EVERY % 8]) + content[at + 1 :]
            for harm, changed in (("flipped", flipped), ("cut", content[:at])):
                path.write_bytes(changed)
                said = sealed.verify(workdir, 1)
                count += 1
                expect(any(path.name in line for line in said), f"{path.name} {harm} at byte {at}: {said}")
        path.write_bytes(content)
    expect(not sealed.verify(workdir, 1), "the checkpoint is sound again")
    return count


def calls_of_a_save(workdir: Path) -> int:
    """Returns how many calls a third save makes that change something on disk."""
    with tempfile.NamedTemporaryFile() as file:

        def counted() -> None:
            with preloaded.faults(CALLS, str(workdir), limit=0) as count:
                save(workdir, 3)
                Path(file.name).write_text(str(count()))

        assert preloaded.forked(counted) == 0
        return int(Path(file.name).read_text())


def again(workdir: Path) -> None:
    """Does what the next process does: restores the newest checkpoint, and saves the steps after it."""
    newest = sealed.steps(workdir)[-1]
    checkpoint.meta_of(workdir, newest)
    for step in range(newest + 1, 5):
        save(workdir, step)


def killed(start: Path, workdir: Path, at: int) -> bool:
    """Kills a save at its call number `at`, looks at what is left, and goes on. Returns whether the save was killed."""
    shutil.copytree(start, workdir)

    def fatal() -> None:
        with preloaded.faults(CALLS, str(workdir), skip=at, signal=signal.SIGKILL):
            save(workdir, 3)

    status = preloaded.forked(fatal)
    there = sealed.steps(workdir)
    expect(status in (0, -signal.SIGKILL), f"killed at call {at}: status {status}")
    expect(set(there) <= {1, 2, 3} and 2 in there, f"killed at call {at}: checkpoints {there}")
    for step in there:
        expect(not sealed.verify(workdir, step), f"killed at call {at}: step {step} is not sound: {sealed.verify(workdir, step)}")
    expect(preloaded.forked(lambda: again(workdir)) == 0, f"killed at call {at}: the next process failed")
    _ended_well(workdir, f"killed at call {at}")
    shutil.rmtree(workdir)
    return status != 0


def failing(start: Path, workdir: Path, call: str, each: int) -> int:
    """Lets each call of a kind fail in turn, and returns how many there were."""

    def in_turn() -> None:
        found.clear()  # of this child alone
        tried: list[int] = []
        for at in itertools.count(0, each):
            shutil.copytree(start, workdir)
            said = None
            with preloaded.faults(call, str(workdir), skip=at, errno=ERRORS[call]) as count:
                try:
                    save(workdir, 3)
                except (UserError, OSError) as error:
                    said = str(error)
                met = count() > at
            there = sealed.steps(workdir)
            # A failure to remove an older checkpoint is no failure of the save.
            expect(met or said is None, f"{call} {at}: {said} without a fault")
            # The last flush is of the names in the folder: where it fails the checkpoint counts, and no older one is removed.
            expect(said is None or 3 not in there, f"{call} {at}: said {said}, but step 3 is there")
            expect(2 in there and not any(sealed.verify(workdir, step) for step in there), f"{call} {at}: {there}, not all sound")
            again(workdir)
            _ended_well(workdir, f"{call} {at}")
            shutil.rmtree(workdir)
            if not met:
                break
            tried.append(at)
        Path(f"{workdir}.count").write_text(str(len(tried)))
        sys.stdout.flush()
        os._exit(bool(found))

    expect(preloaded.forked(in_turn) == 0, f"faults of {call}")
    return int(Path(f"{workdir}.count").read_text()) if Path(f"{workdir}.count").exists() else 0


def _ended_well(workdir: Path, what: str) -> None:
    left = sorted(path.name for path in (workdir / sealed.FOLDER).iterdir() if not path.name.endswith(".aside"))
    expect(left in (["00000003", "00000004"], ["00000002", "00000003", "00000004"]), f"{what}: left {left}")
    expect(not any(sealed.verify(workdir, step) for step in (3, 4)), f"{what}: what followed is not sound")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=1, help="take one of so many places and calls (default: all of them)")
    each, began = parser.parse_args().each, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = folder / "start"

        def two() -> None:
            save(start, 1)
            save(start, 2)

        assert preloaded.forked(two) == 0
        print(f"{damaged(start, each)} damages of a checkpoint's files: {len(found)} not found", flush=True)
        shutil.copytree(start, folder / "counted")
        calls, kills = calls_of_a_save(folder / "counted"), 0
        for at in range(0, calls + 10, each):  # threads write, so their number differs a little
            kills += killed(start, folder / f"kill-{at}", at)
        print(f"{kills} saves killed, at as many of {calls} calls", flush=True)
        for call, number in ERRORS.items():
            count = failing(start, folder / f"fail-{call}", call, each)
            print(f"{count} saves with {errno.errorcode[number]} of as many calls ({call})", flush=True)
    spent = sum(os.times()[:4])
    print(f"{len(found)} promises not held; {time.monotonic() - began:.0f} s, {spent:.0f} s of processor time")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
