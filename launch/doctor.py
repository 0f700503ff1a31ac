"""`python -m launch.doctor [DIR]` says what this machine or cluster has for studies, what each backend lacks, and what mends it.

Every look has a time limit of its own and changes nothing but for a file in DIR, which it removes.
"""

import dataclasses
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Literal, Optional

from launch import places
from lm import machine
from lm.errors import AGAIN, SHARED, Parser, UserError, counted, run_cli

WIDTH = 120
LIMIT = 60.0  # seconds for a command to answer
SLOW_SYNC = 0.05  # seconds of one fsync above which a file system is slow
JAX = "import jax; d = jax.devices(); print(jax.__version__, d[0].platform, d[0].device_kind, len(d), sep='|')"
MARKS = {"good": "ok", "lacks": "--", "bad": "!!"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at: good, lacking (a backend that cannot be used here) or bad, and what mends it."""

    state: Literal["good", "lacks", "bad"]
    what: str
    said: str
    mend: str = ""


def ask(*command: str, limit: float = LIMIT) -> Optional[str]:
    """Returns the output of a command; None when it is not there, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def this_machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(
        "good", "machine", f"{platform.node()}: {counted(cores, 'core')} for this process, {_memory()} of memory, {platform.system()}"
    )
    is_known = sys.version_info[:2] in ((3, 11), (3, 12))
    said = f"Python {platform.python_version()}"
    yield Finding("good" if is_known else "bad", "python", said, "" if is_known else "use Python 3.11 or 3.12")


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:,.0f} GB"
    except (OSError, ValueError):
        return "an unknown amount"


def devices() -> Iterator[Finding]:
    """Looks at the accelerators: those that the driver sees, and those that JAX uses."""
    driver = (
        ask("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader") if shutil.which("nvidia-smi") else None
    )
    names = driver.splitlines() if driver else []
    if names:
        yield Finding("good", "driver", f"{len(names)} x {names[0]}")
        links = ask("nvidia-smi", "topo", "-m") or ""
        yield Finding(
            "good", "interconnect", "NVLink between GPUs" if "NV" in links.partition("Legend")[0] else "no NVLink: PCIe between GPUs"
        )
    if shutil.which("ibstat"):
        state = "Active" if "State: Active" in (ask("ibstat") or "") else "not active"
        yield Finding("good" if state == "Active" else "bad", "InfiniBand", state, "" if state == "Active" else "ask who runs the cluster")
    found = ask(sys.executable, "-c", JAX)
    if found is None or found.count("|") != 3:
        yield Finding("bad", "jax", "it does not start", f'{sys.executable} -c "import jax; print(jax.devices())" shows why')
        return
    version, kind, name, count = found.splitlines()[-1].split("|")
    if names and kind == "cpu":
        yield Finding(
            "bad", "jax", f"JAX {version} uses the CPU beside {len(names)} GPUs", "pip install -e '.[gpu]', and unset JAX_PLATFORMS"
        )
    else:
        yield Finding("good", "jax", f"JAX {version}: {count} x {name} ({kind})")


def local() -> Iterator[Finding]:
    found = places.gpus()
    workers = len(places.places())
    yield Finding("good", "--backend=local", f"{counted(workers, 'worker')} at once, one for each {'GPU' if found else 'core'}")


def directory(folder: pathlib.Path) -> Iterator[Finding]:
    """Looks at the file system that a study's directory would be on: links, the speed of writing, the clock of its server."""
    place = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    if not os.access(place, os.W_OK):
        yield Finding("bad", "directory", f"{place} cannot be written", "choose another directory with --dir")
        return
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as inside:
        path = pathlib.Path(inside) / "file"
        path.write_bytes(b"x")
        try:
            os.link(path, path.with_suffix(".link"))
            yield Finding("good", "hard links", f"{place} has them: several machines may work on one study")
        except OSError as error:
            yield Finding("bad", "hard links", f"{place}: {error.strerror}", SHARED)
        yield _speed(path)
    free = shutil.disk_usage(place).free
    yield Finding(
        "good" if free > 10e9 else "bad", "free space", f"{free / 1e9:,.0f} GB", "" if free > 10e9 else "make room, or choose another --dir"
    )
    try:
        machine.require_clock(place)
        yield Finding("good", "clock", f"within {machine.MAX_SKEW_SECONDS:.0f} s of the file server's")
    except UserError as error:
        yield Finding("bad", "clock", str(error), "chronyc tracking (or timedatectl) says whether NTP runs")


def _speed(path: pathlib.Path) -> Finding:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        with open(path, "wb") as file:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
        times.append(time.perf_counter() - start)
    middle = sorted(times)[2]
    start = time.perf_counter()
    with open(path, "wb") as file:
        file.write(bytes(1 << 26))
        os.fsync(file.fileno())
    rate = (1 << 26) / (time.perf_counter() - start)
    said = f"{rate / 1e6:,.0f} MB/s, {1000 * middle:.1f} ms for one fsync"
    slow = "checkpoints are saved beside training, so that slow ones cost little; save less often: config.checkpoint.every_steps"
    return Finding("good" if middle < SLOW_SYNC else "bad", "writing", said, "" if middle < SLOW_SYNC else slow)


def slurm() -> Iterator[Finding]:
    if shutil.which("sbatch") is None:
        yield Finding("lacks", "--backend=slurm", "no sbatch here", "log in to a machine that submits jobs")
        return
    partitions = ask("sinfo", "-h", "-o", "%P %D nodes, %G, up to %l")
    if partitions is None:
        yield Finding(
            "lacks", "--backend=slurm", "the controller does not answer", "scontrol ping; on a login node, or with SLURM_CONF set"
        )
        return
    yield Finding(
        "good", "--backend=slurm", f"{ask('sbatch', '--version') or 'SLURM'}; partitions: {'; '.join(partitions.splitlines()[:6])}"
    )


def kubernetes() -> Iterator[Finding]:
    if shutil.which("kubectl") is None:
        yield Finding("lacks", "--backend=kubernetes", "no kubectl here", "https://kubernetes.io/docs/tasks/tools")
        return
    context = ask("kubectl", "config", "current-context")
    if context is None or ask("kubectl", "get", "--raw=/readyz", limit=20) is None:
        yield Finding(
            "lacks", "--backend=kubernetes", "no cluster answers", "kubectl config get-contexts, then kubectl config use-context NAME"
        )
        return
    for name, needed in (("jobsets.jobset.x-k8s.io", True), ("localqueues.kueue.x-k8s.io", False)):
        if ask("kubectl", "get", "crd", name) is None:
            state: Literal["bad", "lacks"] = "bad" if needed else "lacks"
            yield Finding(
                state, name, "is not installed", f"https://{'jobset.sigs.k8s.io' if needed else 'kueue.sigs.k8s.io'}/docs/installation"
            )
    if ask("kubectl", "auth", "can-i", "create", "jobsets.jobset.x-k8s.io") != "yes":
        yield Finding("bad", "rights", "this user may not create JobSets", "ask for the right to create jobsets.jobset.x-k8s.io")
    yield Finding("good", "--backend=kubernetes", f"context {context}")


def tpu() -> Iterator[Finding]:
    if shutil.which("gcloud") is None:
        yield Finding(
            "lacks", "--backend=tpu", "no gcloud here: commands can be printed, not run", "https://cloud.google.com/sdk/docs/install"
        )
        return
    project = ask("gcloud", "config", "get-value", "project")
    mend = "" if project else "gcloud config set project NAME"
    yield Finding("good" if project else "lacks", "--backend=tpu", f"gcloud, project {project or 'not set'}", mend)


def look(folder: pathlib.Path) -> Iterator[Finding]:
    """Yields everything that is found, as it is found."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (this_machine, devices, lambda: directory(folder), local, slurm, kubernetes, tpu)
    for each in looks:
        yield from each()


def shown(finding: Finding) -> str:
    """Returns a finding as a line, and what mends it below."""
    line = textwrap.fill(f"{MARKS[finding.state]}  {finding.what:22s}{finding.said}", WIDTH, subsequent_indent=" " * 26)
    return line + (f"\n{' ' * 26}do: {finding.mend}" if finding.mend else "")


def main(argv: Optional[list[str]] = None) -> int:
    parser = Parser(
        prog="python -m launch.doctor",
        description="Says what this machine or cluster has for studies, what each backend lacks, and what mends it. "
        "ok: as it should be; --: that backend cannot be used from here; !!: something to mend. Status 1 when there is something to mend.",
    )
    parser.add_argument("dir", nargs="?", type=pathlib.Path, default=pathlib.Path("runs"), help="where studies are (default: %(default)s)")
    args = parser.parse_args(argv)
    bad = 0
    for finding in look(args.dir):
        print(shown(finding), flush=True)
        bad += finding.state == "bad"
    return int(bad > 0)


if __name__ == "__main__":
    run_cli(main, AGAIN)
