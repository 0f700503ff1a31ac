"""Workers in a SLURM queue: one job array for each submission, `sbatch` to submit, `squeue` to look, `scancel` to end.

A worker is one job whose processes `srun` starts, one for each node; several find each other by SLURM's own variables. A worker of one node
is a step as well, since SLURM sends SIGTERM to steps alone at the start of a time of grace.
Before its time limit a job gets SIGUSR1: the worker saves, ends, and the job is queued again. What preempts it may also take its node away
at once: then SLURM queues it again, and it goes on from the newest checkpoint.
"""

import dataclasses
import math
import os
import pathlib
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import ClassVar, Optional

from launch import jobs
from launch.backend import Job, Kind, Request, ask, option
from lm.errors import UserError
from lm.preflight.topologies import CHIPS
from lm.study import directory

WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED")  # these hold a cell
HELD = ("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
MFU = 0.25  # assumed for time limits; `plan --device` states costs at a more hopeful one
LEAST_MINUTES = 30  # shortest time limit, so that a queue is not filled with jobs of seconds
GAIN = 2.0  # time limit over the estimated time
TIMEOUT = 60.0  # seconds for a command to answer
MAX_STARTS = 10  # of a job whose worker takes no cell; from then on preemptions are bounded for each cell (lm.study.worker)


@dataclasses.dataclass(frozen=True)
class Slurm:
    """The options of jobs, each the flag of `sbatch` of that name unless its help says otherwise."""

    NAME: ClassVar[str] = "slurm"
    WORDS: ClassVar[str] = "job arrays by sbatch"
    ORDERS: ClassVar[bool] = True

    partition: Optional[str] = option("partition of the jobs (default: the cluster's)")
    account: Optional[str] = option("account that is charged")
    qos: Optional[str] = option("quality of service")
    constraint: Optional[str] = option("features that the nodes need")
    time: Optional[str] = option("time limit of a job, such as 4:00:00 (default: twice the plan's estimate, at most the partition's limit)")
    gpus: Optional[str] = option("GPUs of the devices: their type as sbatch names it, such as h100, or any (default: devices are cores)")
    devices_per_node: int = option("devices of a node: a cell of more takes several nodes", 8, "N")
    cpus_per_device: int = option("cores of each device", 1, "N")
    mem: Optional[str] = option("memory of a node, such as 64G")
    nice: Optional[int] = option("how much others go first")
    notice: int = option("seconds before the time limit at which a worker saves and ends", 120, "SECONDS")
    container: Optional[str] = option("image that the workers run in (--container-image of Pyxis)")
    environment: Optional[str] = option(
        "shell lines before the workers start, such as 'module load cuda; source venv/bin/activate'", None, "LINES"
    )
    python: str = option("Python interpreter on the nodes (default: this one; that of an image is python)", "", "PATH")
    sbatch: Optional[str] = option("further flags of sbatch, such as '--reservation=day --exclusive'", None, "FLAGS")

    def by_hand(self, root: pathlib.Path, number: int) -> Optional[str]:
        """Returns None: `submit` starts workers."""

    def require(self, root: pathlib.Path) -> None:
        """Raises UserError when jobs cannot be submitted from here."""
        for name in ("devices_per_node", "cpus_per_device", "notice"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')}={getattr(self, name)}: give 1 or more")
        if shutil.which("sbatch") is None:
            raise UserError(
                "--backend=slurm: no sbatch here; run this on a login node of the cluster (`python -m launch.doctor` shows more)"
            )
        there = [name.removesuffix("*") for name in _partitions()]
        if self.partition is not None and (strangers := [name for name in self.partition.split(",") if name not in there]):
            raise UserError(f"--partition={strangers[0]}: the cluster has {', '.join(there)}")
        if not os.access(root, os.W_OK):
            raise UserError(f"{root} cannot be written: workers need the study's directory")

    def jobs(self, key: str) -> list[Job]:
        """Returns the live jobs of a study: those of this user whose name begins with its key."""
        found = []
        for line in _ask(["squeue", "--me", "-h", "-r", "-o", "%i|%T|%j|%r"]).splitlines():
            job, state, name, reason = line.split("|", 3)
            kind = Kind.parse(name.removeprefix(f"{key}.")) if name.startswith(f"{key}.") else None
            if kind is not None and state in (*WAITING, *RUNNING):
                is_held = state in HELD or "held" in reason.lower()
                said = f"{reason}: it waits until `scontrol release {job}`" if is_held else "" if reason == "None" else reason
                found.append(Job(job, kind, "running" if state in RUNNING else "queued", said))
        return found

    def submit(self, request: Request) -> list[str]:
        """Submits one job array and returns the ids of its tasks."""
        folder = request.root / jobs.FOLDER
        folder.mkdir(exist_ok=True)
        script = folder / f"{request.number:06d}.sh"
        script.write_text(self.script(request), encoding="utf-8")
        said = _ask(["sbatch", "--parsable", *self._flags(request), str(script.resolve())])
        job = said.strip().splitlines()[-1].split(";")[0]  # with the cluster's name behind it where there are several
        if not job.isdecimal():
            raise UserError(f"sbatch answered {said.strip()!r}, which names no job")
        return [f"{job}_{i}" for i in range(request.count)]

    def cancel(self, ids: Sequence[str]) -> None:
        """Ends jobs; those that are gone already are no error."""
        if ids:
            _ask(["scancel", "--quiet", *ids])

    def log(self, root: pathlib.Path, job: str) -> Optional[pathlib.Path]:
        """Returns the file with a job's output."""
        return next(iter((root / jobs.FOLDER).glob(f"*-{job}.log")), None)

    def _flags(self, request: Request) -> list[str]:
        """Returns the flags of sbatch; those of the user come last and win."""
        nodes = math.ceil(request.kind.devices / self.devices_per_node)
        if request.kind.devices % nodes:
            raise UserError(
                f"a cell of {request.kind.devices} devices cannot be shared out evenly to {nodes} nodes of {self.devices_per_node}: "
                "give another --devices-per-node, or the cells another mesh"
            )
        devices = request.kind.devices // nodes
        output = (request.root / jobs.FOLDER).resolve() / f"{request.number:06d}-%A_%a.log"
        flags = [f"--job-name={request.name}", f"--array=0-{request.count - 1}", "--requeue", f"--output={output}", "--open-mode=append"]
        flags += [f"--nodes={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={devices * self.cpus_per_device}"]
        flags += [f"--signal=B:USR1@{self.notice}", f"--chdir={os.getcwd()}"]
        flags += [f"--time={limit}"] if (limit := self.time or self._time(request)) else []
        if self.gpus is not None:
            flags.append(f"--gpus-per-node={devices}" if self.gpus == "any" else f"--gpus-per-node={self.gpus}:{devices}")
        for name in ("partition", "account", "qos", "constraint", "mem", "nice"):
            if getattr(self, name) is not None:
                flags.append(f"--{name}={getattr(self, name)}")
        if request.after:
            flags.append("--dependency=afterany:" + ":".join(dict.fromkeys(job.split("_")[0] for job in request.after)))
        return flags + shlex.split(self.sbatch or "")

    def _time(self, request: Request) -> str:
        """Returns the time limit in minutes that the plan's estimate asks for; a worker that needs more is queued again.

        GPUs whose rate is not known get the partition's limit: "".
        """
        seconds = request.seconds
        if self.gpus is not None:
            chip = CHIPS.get(self.gpus)
            if chip is None:
                return ""
            seconds = request.flops / (request.kind.devices * chip.flops * MFU)
        minutes = max(LEAST_MINUTES, math.ceil(GAIN * seconds / 60))
        wanted = self.partition.split(",") if self.partition else ()
        limits = [limit for name, limit in _partitions().items() if (name in wanted if wanted else name.endswith("*"))]
        return str(min([minutes, *(limit for limit in limits if limit is not None)]))

    def script(self, request: Request) -> str:
        """Returns the batch script: the environment, then the worker, whose end it waits for."""
        nodes = math.ceil(request.kind.devices / self.devices_per_node)
        mounts = dict.fromkeys(map(str, (request.root.resolve(), directory.data_dir(request.root), pathlib.Path.cwd())))
        image = [f"--container-image={self.container}", f"--container-mounts={','.join(mounts)}"] if self.container else []
        per_task = request.kind.devices // nodes * self.cpus_per_device  # srun does not take it from sbatch
        step = shlex.join(["srun", "--kill-on-bad-exit=0", f"--cpus-per-task={per_task}", *image])
        alone = "" if nodes > 1 or self.container else "command -v srun >/dev/null || step=()"  # what one process does without
        # The snapshot comes first, and the present directory last: `python -m` would put it before all, and with it an edited checkout.
        paths = [str(request.code), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), os.getcwd()]
        log = (request.root / jobs.FOLDER).resolve() / f"{request.number:06d}-"
        cores = [] if self.gpus is not None else [f"export JAX_NUM_CPU_DEVICES={request.kind.devices // nodes}"]
        lines = [
            "#!/bin/bash",
            f"# Workers of {request.root}, for the cells of stage {request.kind.stage} on {request.kind.devices} devices.",
            f"export PYTHONPATH={shlex.quote(os.pathsep.join(paths))} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1",
            f"export LM_LOG={shlex.quote(str(log))}${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}.log",
            *cores,
            *(["set -e", self.environment, "set +e"] if self.environment else []),
            SCRIPT.format(step=step, alone=alone, command=shlex.join(request.command(self.python or sys.executable)), starts=MAX_STARTS),
        ]
        return "\n".join(lines)


# SLURM sends the notice to this shell alone. It is passed on as SIGUSR1, which srun forwards; after SIGTERM srun kills its processes
# before they have saved. `wait` ends with a signal, so that it is repeated. A job that is preempted with a time of grace, and ends within
# it, is not queued again by SLURM; one that is cancelled has no PreemptTime. The log is that of every start of a job.
SCRIPT = """
echo "the job begins"
starts=$(awk '/^the job begins/ {{n++}} / begins or goes on, in epoch-/ {{n = 0}} END {{print n + 0}}' "$LM_LOG")
if [ "${{starts:-0}}" -gt {starts} ]; then
    echo "this job was started {starts} times and ended each time before its worker took a cell: it is not started again"
    exit 1
fi
step=({step})
{alone}
is_early=
trap 'is_early=yes; kill -USR1 $worker 2>/dev/null' USR1
trap : TERM
job="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
"${{step[@]}}" {command} &
worker=$!
while :; do
    wait $worker
    status=$?
    kill -0 $worker 2>/dev/null || break
done
echo "the worker ended with status $status"
case $status in # docs/reliability.md lists them: a hang, a limit on the time, signals other than the one of scancel
0) is_early= ;;
75 | 124 | 129 | 138 | 140) is_early=yes ;;
*) scontrol show job "$job" | grep -q "PreemptTime=[0-9]" && is_early=yes ;;
esac
# A job that was cancelled meanwhile is COMPLETING, and would be queued again as well.
if [ -n "$is_early" ] && ! scontrol show job "$job" | grep -q "JobState=COMPLETING"; then
    trap 'exit $status' TERM  # queued again: SLURM ends this script, maybe before scontrol has answered
    scontrol requeue "$job" && sleep 60
    sleep 1
    echo "this node cannot queue the job again: the next \\`run\\` submits what is missing"
fi
exit $status
"""


def _partitions() -> dict[str, Optional[int]]:
    """Returns the time limits of the cluster's partitions in minutes, None for infinite; a star is behind the name of the default."""
    words = [line.split() for line in _ask(["sinfo", "-h", "-o", "%P %l"]).splitlines()]
    return {found[0]: _minutes(found[1]) for found in words if len(found) == 2}


def _minutes(text: str) -> Optional[int]:
    """Returns a time limit as SLURM prints it, [days-]hours:minutes:seconds, in minutes; None for infinite."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, _ = (int(number or 0) for number in found.groups())
    return 1440 * days + 60 * hours + minutes


# Parts of the commands' errors, each with what helps.
ADVICE = (
    ("Unable to contact slurm controller", "the controller does not answer: try again when `scontrol ping` says UP"),
    ("Could not establish a configuration source", "this machine knows no cluster: run it on a login node, or set SLURM_CONF"),
    ("invalid partition", "give --partition one that `sinfo` lists"),
    ("Invalid account", "give --account one that `sacctmgr show associations user=$USER` lists"),
    ("Invalid qos", "give --qos one that your account has"),
    ("QOS", "a limit of your account or its quality of service: lower --workers, or wait for jobs to end"),
    ("time limit", "give a shorter --time"),
    ("Requested node configuration is not available", "no node has so much: lower --devices-per-node, --cpus-per-device or --mem"),
    ("Invalid generic resource", "give --gpus a type that `sinfo -o %G` lists, or any"),
)


def _ask(command: Sequence[str]) -> str:
    """Returns the output of a command of SLURM."""
    absent, silent = "run this on a login node of the cluster", "try again when `scontrol ping` says UP"
    return ask(command, TIMEOUT, ADVICE, name=command[0], absent=absent, silent=silent)
