"""Workers on slices of Cloud TPUs: queued resources (`gcloud`) or workloads of a GKE cluster (`xpk`), as commands that are printed or run.

A worker is one slice or several. Every host of it runs the same script, DIR/jobs/NNNNNN.sh, and the processes find each other by the TPU's
own environment (lm.distributed). A slice costs money until it is given back, so that the script deletes its queued resource at the end.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Optional

from launch import jobs
from launch.backend import Job, Kind, Request, ask, option, shown
from lm.errors import UserError

HOW = ("queued", "xpk")
WAITING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")  # of a queued resource; ACTIVE runs, all others are over
LETTERS = 8  # of a study's name in that of a worker: xpk takes 40 letters for all
RESTARTS = 100  # of a workload whose slice was taken
GRACE = 120  # seconds in which a worker saves before its pod is ended
SCOPE = "https://www.googleapis.com/auth/cloud-platform"  # by which a slice may give itself back
TIMEOUT = 120.0  # seconds for a command to answer


@dataclasses.dataclass(frozen=True)
class Slices:
    """The slices of a TPU that Google offers, and their names: `name`-N with `cores` for each device in N (cloud.google.com/tpu/docs/v5e).

    What a device can do is in lm.preflight.topologies, under the same name.

    Attributes:
        name: the first part of accelerator types
        cores: TensorCores of a chip where N counts them, else 1; JAX sees a chip as one device in either case
        runtime: the version of the software that Google names for JAX (cloud.google.com/tpu/docs/runtimes)
        sizes: devices of a slice
        block: slices of more than the last size are multiples of this many devices, where there are any
        most: the most devices of a slice
    """

    name: str
    cores: int
    runtime: str
    sizes: tuple[int, ...]
    block: int = 0
    most: int = 0

    def has(self, devices: int) -> bool:
        """Says whether there are slices of so many devices."""
        is_large = self.block > 0 and devices % self.block == 0 and devices <= self.most
        return devices in self.sizes or is_large


FLAT, CUBES = (1, 4, 8, 16, 32, 64, 128, 256), (4, 8, 16, 32, 64)
SLICES = {
    "v4": Slices("v4", 2, "tpu-ubuntu2204-base", CUBES, 64, 4096),
    "v5e": Slices("v5litepod", 1, "v2-alpha-tpuv5-lite", FLAT),
    "v5p": Slices("v5p", 2, "v2-alpha-tpuv5", CUBES, 64, 6144),
    "v6e": Slices("v6e", 1, "v2-alpha-tpuv6e", FLAT),
}


@dataclasses.dataclass(frozen=True)
class Tpu:
    """The options of slices."""

    NAME: ClassVar[str] = "tpu"
    WORDS: ClassVar[str] = "slices of Cloud TPUs by gcloud or xpk"
    ORDERS: ClassVar[bool] = False

    how: str = option("queued (gcloud compute tpus queued-resources) or xpk (xpk workload)", "queued")
    project: Optional[str] = option("project of Google Cloud (default: that of gcloud)")
    zone: Optional[str] = option("zone of the slices, such as us-west4-a")
    accelerator: Optional[str] = option(f"the TPU: {', '.join(SLICES)}; how many follows from the cells' mesh")
    slices: int = option("slices of a worker, to which its devices are shared out evenly", 1, "N")
    spot: bool = option("take spot capacity, which may be taken away at any time", False)
    nfs: Optional[str] = option("with queued: the NFS export that holds the study's directory: 10.0.0.2:/share", None, "HOST:/PATH")
    mount: Optional[str] = option("where that export is mounted, here and on the slices, such as /mnt/share", None, "PATH")
    storage: Optional[str] = option("with xpk: the cluster's storage that holds the study's directory, at the same path as here")
    runtime: Optional[str] = option("with queued: version of the TPU's software (default: Google's for the TPU)")
    cluster: Optional[str] = option("with xpk: the cluster")
    image: Optional[str] = option("container image that the workers run in; xpk needs one")
    environment: Optional[str] = option(
        "shell lines before the workers start, such as 'source /mnt/share/venv/bin/activate'", None, "LINES"
    )
    python: str = option("Python interpreter there (default: python of the image or the environment)", "", "PATH")
    tpu_flags: Optional[str] = option("further flags of gcloud or xpk, such as '--reserved --network=ours'", None, "FLAGS")
    run: bool = option("run the commands (default: they are printed)", False)

    def require(self, root: pathlib.Path) -> None:
        """Raises UserError when slices cannot be asked for from here."""
        if self.how not in HOW:
            raise UserError(f"--how={self.how}: give one of {', '.join(HOW)}")
        if self.accelerator not in SLICES:
            given = "" if self.accelerator is None else f"={self.accelerator}"
            raise UserError(f"--accelerator{given}: give the TPU alone, one of {', '.join(SLICES)}; the size follows from the cells")
        if self.slices < 1:
            raise UserError(f"--slices={self.slices}: give 1 or more")
        needs = ("zone", "nfs", "mount") if self.how == "queued" else ("zone", "cluster", "image")
        if missing := [name for name in needs if not getattr(self, name)]:
            raise UserError(f"--how={self.how} needs --{missing[0]}")
        others = ("cluster", "storage") if self.how == "queued" else ("nfs", "runtime")
        if strangers := [name for name in others if getattr(self, name)]:
            raise UserError(f"--{strangers[0]} is no option of --how={self.how}: leave it out")
        for name in ("nfs", "mount"):
            if (getattr(self, name) or "").startswith("gs:"):
                raise UserError(f"--{name}={getattr(self, name)}: a bucket has no hard links, which leases need: give an NFS export")
        if self.nfs is not None and not re.fullmatch(r"[^:/\s]+:/\S*", self.nfs):
            raise UserError(f"--nfs={self.nfs}: give the address and the path of an NFS export, such as 10.0.0.2:/share")
        if self.mount and not root.resolve().is_relative_to(self.mount):
            raise UserError(f"{root.resolve()} is not below --mount={self.mount}: the slices have to see it at the same path (--dir)")
        if "," in str(root.resolve()):
            raise UserError(f"{root.resolve()}: gcloud takes no path with a comma; rename it")
        if self.how == "queued" and not self._there():
            raise UserError(f"the slices lack {sys.executable}: give --image, or below --mount an --environment or --python")
        if self.run and shutil.which(self._program) is None:
            raise UserError(f"--run: there is no {self._program} here; leave --run out and the commands are printed")
        self._project()

    def _there(self) -> Optional[str]:
        """Returns the interpreter on the slices; None where nobody says how they get one."""
        below = bool(self.mount) and pathlib.Path(sys.executable).is_relative_to(str(self.mount))
        return self.python or ("python" if self.image or self.environment else sys.executable if below else None)

    @property
    def _program(self) -> str:
        return "gcloud" if self.how == "queued" else "xpk"

    def _project(self) -> str:
        """Returns the project, that of gcloud's own configuration by default."""
        said = "" if self.project or shutil.which("gcloud") is None else _ask(["gcloud", "config", "get-value", "project", "--quiet"])
        if not (found := self.project or said.strip().replace("(unset)", "")):
            raise UserError("--project: name the project of Google Cloud, or set it: gcloud config set project NAME")
        return found

    def _place(self) -> list[str]:
        return [f"--project={self._project()}", f"--zone={self.zone}", *([f"--cluster={self.cluster}"] if self.how == "xpk" else [])]

    def type(self, kind: Kind) -> str:
        """Returns the accelerator type of one slice. Raises UserError where there are no slices of that size."""
        chip, devices = SLICES[str(self.accelerator)], kind.devices // self.slices
        if kind.devices % self.slices or not chip.has(devices):
            large = f" and multiples of {chip.block} up to {chip.most}" if chip.block else ""
            sizes = ", ".join(map(str, chip.sizes)) + large
            shared = f" in {self.slices} slices" if self.slices > 1 else ""
            raise UserError(
                f"a cell of {kind.devices} devices{shared}: a slice of {self.accelerator} has {sizes} devices: "
                "give the cells another mesh, or --slices"
            )
        return f"{chip.name}-{devices * chip.cores}"

    def jobs(self, key: str) -> list[Job]:
        """Returns the live workers of a study by their names; none where commands are printed, which are not followed up."""
        if not self.run:
            return []
        return list(self._queued(key) if self.how == "queued" else self._workloads(key))

    def _queued(self, key: str) -> Iterator[Job]:
        listed = [
            "gcloud",
            "compute",
            "tpus",
            "queued-resources",
            "list",
            *self._place(),
            f"--filter=name~/{prefix(key)}-",
            "--format=json",
        ]
        for found in _json(_ask(listed)):
            name, state = str(found.get("name", "")).rpartition("/")[2], found.get("state", {}).get("state", "")
            kind = kind_of(key, name)
            if kind is not None and state in ("ACTIVE", *WAITING):
                yield Job(name, kind, "running" if state == "ACTIVE" else "queued", "" if state == "ACTIVE" else state)

    def _workloads(self, key: str) -> Iterator[Job]:
        for state, status in (("running", "RUNNING"), ("queued", "QUEUED")):
            for line in _ask(["xpk", "workload", "list", *self._place(), f"--filter-by-status={status}"]).splitlines():
                name = line.split()[0] if line.split() else ""
                kind = kind_of(key, name)
                if kind is not None:
                    yield Job(name, kind, "running" if state == "running" else "queued")

    def by_hand(self, root: pathlib.Path, number: int) -> Optional[str]:
        """Returns the commands of a submission, a line each, where they are not run."""
        if self.run:
            return None
        path = _commands(root, number)
        return "\n" + path.read_text(encoding="utf-8").rstrip() if path.exists() else ""

    def submit(self, request: Request) -> list[str]:
        """Asks for slices, or writes down the commands that do."""
        folder = request.root / jobs.FOLDER
        folder.mkdir(exist_ok=True)
        script = folder / f"{request.number:06d}.sh"
        there = dataclasses.replace(self, project=self._project())  # gcloud, which is slow, is asked once
        script.write_text(there.script(request), encoding="utf-8")
        # Commands that are not run keep their names, so that Google refuses one that is given twice.
        number = f"-n{request.number}" if self.run else ""
        names = [f"{prefix(request.key)}-{request.kind.text.replace('.', '-')}{number}-w{i}" for i in range(request.count)]
        commands = [there.command(request, name, script.resolve()) for name in names]
        _commands(request.root, request.number).write_text("".join(f"{shown(command)}\n" for command in commands), encoding="utf-8")
        for command in commands if self.run else ():
            _ask(command)
        return names

    def command(self, request: Request, name: str, script: pathlib.Path) -> list[str]:
        """Returns the command that asks for the slices of one worker."""
        further = [*(["--spot"] if self.spot else []), *shlex.split(self.tpu_flags or "")]
        if self.how == "xpk":
            return [
                "xpk", "workload", "create", f"--workload={name}", *self._place(), f"--tpu-type={self.type(request.kind)}",
                f"--num-slices={self.slices}", f"--docker-image={self.image}", f"--command=bash {shlex.quote(str(script))} {name}",
                f"--max-restarts={RESTARTS}", f"--termination-grace-period-seconds={GRACE}",
                *([f"--storage={self.storage}"] if self.storage else []), *further,
            ]  # fmt: skip
        nodes = [f"--node-id={name}"] if self.slices == 1 else [f"--node-count={self.slices}", f"--node-prefix={name}"]
        return [
            "gcloud", "compute", "tpus", "queued-resources", "create", name, *self._place(),
            f"--accelerator-type={self.type(request.kind)}",
            f"--runtime-version={self.runtime or SLICES[str(self.accelerator)].runtime}", *nodes, f"--metadata=lm-name={name}",
            f"--metadata-from-file=startup-script={script}", f"--scopes={SCOPE}", *further,
        ]  # fmt: skip

    def cancel(self, ids: Sequence[str]) -> None:
        """Gives slices back, with what runs on them; prints the commands where they are not run."""
        for job in ids:
            delete = ["gcloud", "compute", "tpus", "queued-resources", "delete", job, *self._place(), "--force", "--quiet", "--async"]
            command = delete if self.how == "queued" else ["xpk", "workload", "delete", f"--workload={job}", *self._place(), "--force"]
            if self.run:
                _ask(command)
            else:
                print(shown(command), flush=True)

    def log(self, root: pathlib.Path, job: str) -> Optional[pathlib.Path]:
        """Returns the file with a worker's output, that of its first host."""
        found = sorted((root / jobs.FOLDER).glob(f"*-{job}.*.log"))
        newest = [path for path in found if path.name.split("-")[0] == found[-1].name.split("-")[0]]
        return newest[0] if newest else None

    def script(self, request: Request) -> str:
        """Returns what every host runs: it mounts the directory, starts the worker, and gives the slices back at the end."""
        self.type(request.kind)
        root = request.root.resolve()
        paths = [str(request.code), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        command = shlex.join(request.command(self._there() or sys.executable))
        parts = {
            "what": f"Every host of a worker of {root} runs this: cells of stage {request.kind.stage} on {request.kind.devices} devices.",
            "root": shlex.quote(str(root)),
            "log": shlex.quote(str(root / jobs.FOLDER / f"{request.number:06d}-")),
            "paths": shlex.quote(os.pathsep.join(paths)),
            "environment": self.environment or ":",
        }
        if self.how == "xpk":
            return SCRIPT.format(before="name=$1", command=command, after="", **parts)
        mount = MOUNT.format(nfs=shlex.quote(str(self.nfs)), mount=shlex.quote(str(self.mount)))
        after = GIVE_BACK.format(place=shlex.join(self._place()))
        return SCRIPT.format(before=mount, command=self._as_owner(command), after=after, **parts)

    def _as_owner(self, command: str) -> str:
        """Returns a command of the startup script, which root runs, as one of the directory's owner, in the image where there is one."""
        if not self.image:
            return f'setpriv --reuid="$user" --regid="$group" --clear-groups env HOME=/tmp {command}'
        host = self.image.split("/")[0]
        login = f"gcloud auth configure-docker {shlex.quote(host)} --quiet; " if "." in host else ""
        mount = shlex.quote(f"{self.mount}:{self.mount}")
        variables = "-e PYTHONPATH -e PYTHONUNBUFFERED -e LM_LOG -e HOME=/tmp"
        start = (
            f'exec docker run --rm --privileged --net=host --user="$user:$group" {variables} -v {mount} {shlex.quote(self.image)} {command}'
        )
        return f"({login}{start})"


# On a virtual machine of a queued resource.
MOUNT = """\
name=$(curl -sf -H Metadata-Flavor:Google http://metadata.google.internal/computeMetadata/v1/instance/attributes/lm-name)
command -v mount.nfs >/dev/null || {{ apt-get update -q; apt-get install -yq nfs-common; }}
mkdir -p {mount}
for try in 1 2 3 4 5 6; do
    mountpoint -q {mount} || mount -t nfs -o hard {nfs} {mount} || sleep 10
done"""

# The worker saves and ends on SIGTERM (143). It is started again where its end says that it may go on (docs/reliability.md): after a hang,
# a lost process, a limit on the time. bash ends `wait` at a signal, so that it is repeated.
SCRIPT = """\
#!/bin/bash
# {what}
{before}
user=$(stat -c %u {root}) group=$(stat -c %g {root})
export LM_LOG={log}$name.$(hostname).log
is_over= is_lost= worker= status=1
if touch "$LM_LOG"; then
    chown "$user:$group" "$LM_LOG" 2>/dev/null
    exec >>"$LM_LOG" 2>&1
else
    is_lost=yes
fi
export PYTHONPATH={paths} PYTHONUNBUFFERED=1
ulimit -l unlimited 2>/dev/null
{environment}
trap 'is_over=yes; kill -TERM $worker 2>/dev/null' TERM
while [ -z "$is_over$is_lost" ]; do
    {command} &
    worker=$!
    while :; do
        wait $worker
        status=$?
        kill -0 $worker 2>/dev/null || break
    done
    echo "the worker ended with status $status"
    case $status in
    75 | 124 | 129 | 138 | 140) sleep 10 ;;
    *) break ;;
    esac
done
{after}
exit $status
"""

# A machine that is shut down keeps its place: it starts again, or the resource is suspended. Otherwise the slices are given back.
GIVE_BACK = """\
host=$(curl -sf -H Metadata-Flavor:Google http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number)
if [ -z "$is_over" ] && [ "$host" = 0 ]; then
    gcloud compute tpus queued-resources delete "$name" {place} --force --quiet --async
fi"""


def _commands(root: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the file with the commands of a submission."""
    return root / jobs.FOLDER / f"{number:06d}.commands"


def prefix(key: str) -> str:
    """Returns how names of a study's workers begin: Google takes small letters, digits and dashes."""
    body, _, digest = key.rpartition("-")
    letters = re.sub("[^a-z0-9]+", "-", body.lower().removeprefix("lm-"))[:LETTERS].strip("-")
    return f"lm-{letters}-{digest}"


def kind_of(key: str, name: str) -> Optional[Kind]:
    """Returns the kind of a worker by its name; None for one of another study."""
    found = re.fullmatch(rf"{re.escape(prefix(key))}-(s\d+-d\d+(?:-o[0-9a-f]+)?)(-n\d+)?-w\d+", name)
    return Kind.parse(found[1].replace("-", ".")) if found else None


def _json(text: str) -> list[dict[str, Any]]:
    try:
        return json.loads(text or "[]")
    except ValueError as error:
        raise UserError(f"gcloud answered no JSON ({error}): run gcloud compute tpus queued-resources list to see why") from error


# Parts of the commands' errors, each with what helps.
ADVICE = (
    ("active account", "log in: gcloud auth login"),
    ("PERMISSION_DENIED", "your account needs the role TPU Admin in the project, and the project the API tpu.googleapis.com"),
    ("has not been used in project", "enable the API: gcloud services enable tpu.googleapis.com"),
    ("Quota", "lower --workers, or ask for quota of this TPU in this zone"),
    ("RESOURCE_EXHAUSTED", "lower --workers, or ask for quota of this TPU in this zone"),
    ("ALREADY_EXISTS", "a worker of that name is there: delete its queued resource, or wait until it is gone"),
    ("accelerator type", "gcloud compute tpus accelerator-types list --zone=ZONE names those of a zone"),
    ("Could not find cluster", "give --cluster, --zone and --project of one that `xpk cluster list` names"),
)


def _ask(command: Sequence[str]) -> str:
    """Returns the output of gcloud or xpk."""
    absent, silent = "run this where it is installed", f"try again, or run it by hand: {shown(command)}"
    return ask(command, TIMEOUT, ADVICE, name=" ".join(command[:5]), absent=absent, silent=silent)
