"""Workers in a Kubernetes cluster: one JobSet for each, which Kueue may queue, `kubectl` to hand them over, to look and to end.

A worker is an Indexed Job of as many pods as it has processes. JobSet gives the pods names in the cluster's DNS, by which they find the
first. A pod that is lost ends its Job, and JobSet starts all of them again: they go on from the newest checkpoint. All pods mount one
claim, which holds the study's directory. Manifests are written to DIR/jobs, and applied only where that is asked.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Optional

import yaml

from launch import jobs
from launch.backend import Job, Kind, Request, ask, option, shown
from lm.errors import UserError
from lm.study import directory

STUDY, KIND = "lm-scaling/study", "lm-scaling/kind"  # labels by which the jobs of a study are found
MANAGER = {"app.kubernetes.io/managed-by": "lm-scaling"}
QUEUE = "kueue.x-k8s.io/queue-name"
EXCLUSIVE = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}  # all pods in one TPU slice
REPLICA = "worker"  # name of the replicated Job
PORT = 8476  # of process 0
LONGEST = 63  # characters of a DNS label and of a label's value
HASH = 5  # characters that the Job controller appends to the name of a pod
GRACE = 120  # seconds in which a worker saves after SIGTERM
JOIN = 900  # seconds in which pods meet: some pull their image, or wait for a node
KEPT = 7 * 24 * 3600  # seconds for which an ended JobSet can be looked at
TIMEOUT = 60.0  # seconds for kubectl to answer


@dataclasses.dataclass(frozen=True)
class Kubernetes:
    """The options of JobSets."""

    NAME: ClassVar[str] = "kubernetes"
    WORDS: ClassVar[str] = "JobSets, written to DIR/jobs and applied by kubectl with --apply"
    ORDERS: ClassVar[bool] = False

    apply: bool = option("hand the JobSets over with `kubectl apply` (default: they are written, and the command is printed)", False)
    image: Optional[str] = option("image of the pods, with this program's dependencies")
    pvc: Optional[str] = option("PersistentVolumeClaim that holds the study's directory")
    mount: str = option("folder at which the pods mount the claim", "/studies", "PATH")
    pvc_path: Optional[str] = option("the study's directory in the claim (default: its name)", None, "PATH")
    namespace: Optional[str] = option("namespace (default: that of kubectl's context)")
    queue: Optional[str] = option("Kueue's LocalQueue (default: none, pods are scheduled at once)")
    gpus: Optional[str] = option("GPUs of the devices: their nvidia.com/gpu.product label, or any (default: devices are cores)")
    gpu_resource: str = option("resource that GPUs are asked for by", "nvidia.com/gpu", "NAME")
    tpu: Optional[str] = option("TPUs of the devices: GKE's accelerator, such as tpu-v5-lite-podslice", None, "ACCELERATOR")
    tpu_topology: Optional[str] = option("topology of a slice, such as 4x4; for cells of several sizes one for each, by commas")
    node_selector: Optional[str] = option("further labels of the nodes, KEY=VALUE,...", None, "LABELS")
    devices_per_node: int = option("devices of a pod: a cell of more takes several pods", 8, "N")
    cpus_per_device: int = option("cores of each device", 1, "N")
    memory_per_device: str = option("memory of a pod for each device", "4Gi", "QUANTITY")
    service_account: Optional[str] = option("service account of the pods", None, "NAME")
    run_as: Optional[str] = option("user and group that may write the claim (default: the image's)", None, "UID[:GID]")
    restarts: int = option("times that JobSet starts the pods of a worker again, after one is lost", 10, "N")
    python: str = option("Python interpreter on the nodes", "", "PATH")

    def by_hand(self, root: pathlib.Path, number: int) -> Optional[str]:
        """Returns the command that hands over what a submission wrote; None with --apply."""
        return None if self.apply else shown(self._kubectl("apply", "-f", str(_manifest(root, number))))

    def require(self, root: pathlib.Path) -> None:
        """Raises UserError for options that make no JobSet, and where --apply is given for things that the cluster lacks."""
        for name in ("image", "pvc"):
            if not getattr(self, name):
                raise UserError(f"--backend=kubernetes needs --{name}: {type(self).__dataclass_fields__[name].metadata['help']}")
        for name, least in (("devices_per_node", 1), ("cpus_per_device", 1), ("restarts", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')}={getattr(self, name)}: give {least} or more")
        if self.gpus is not None and self.tpu is not None:
            raise UserError("--gpus and --tpu contradict each other: leave one out")
        if (self.tpu is None) != (self.tpu_topology is None):
            raise UserError("--tpu and --tpu-topology are given together, such as --tpu=tpu-v5-lite-podslice --tpu-topology=4x4")
        self._memory(1)
        self._user()
        for devices in self._topologies() or [1]:
            self._selector(devices)
        data = pathlib.PurePath(os.path.normpath(self._there(root) / directory.open_study(root)["data_dir"]))
        if not data.is_relative_to(self.mount):
            raise UserError(
                f"the study's data are in {data} of the pods, outside of the claim at {self.mount}: plan with a --data-dir that the claim "
                "holds too, or say by --pvc-path where in the claim the study is"
            )
        if not os.access(root, os.W_OK):
            raise UserError(f"{root} cannot be written: workers need the study's directory")
        if self.apply:
            self._require_there("pvc", self.pvc)
            self._require_there("localqueue.kueue.x-k8s.io", self.queue, "--queue")
            self._require_there("serviceaccount", self.service_account, "--service-account")

    def jobs(self, key: str) -> list[Job]:
        """Returns the live JobSets of a study, by their labels; without --apply none where no cluster answers."""
        try:
            said = self._ask("get", "jobsets", "-l", f"{STUDY}={_label(key)}", "-o", "json")
        except UserError:
            if self.apply:
                raise
            return []
        found = (_job(item) for item in json.loads(said)["items"])
        return [job for job in found if job is not None]

    def submit(self, request: Request) -> list[str]:
        """Writes the JobSets of a submission, hands them over with --apply, and returns their names."""
        sets = [self._job_set(request, worker) for worker in range(request.count)]
        path = _manifest(request.root, request.number)
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.dump_all(sets, Dumper=_Dumper, sort_keys=False, width=120), encoding="utf-8")
        if self.apply:
            self._ask("apply", "-f", str(path))
        return [made["metadata"]["name"] for made in sets]

    def cancel(self, ids: Sequence[str]) -> None:
        """Ends JobSets; those that are gone already are no error."""
        if ids:
            self._ask("delete", "jobsets", "--ignore-not-found", "--wait=false", *ids)

    def log(self, root: pathlib.Path, job: str) -> Optional[pathlib.Path]:
        """Returns the file with the output of a worker's first process, which is in the claim; None where it is not mounted here."""
        path = root / jobs.FOLDER / f"{job}-0.log"
        return path if path.exists() else None

    def _job_set(self, request: Request, worker: int) -> dict[str, Any]:
        """Returns the JobSet of a worker."""
        processes = self._processes(request.kind)
        name = _name(request, worker, processes)
        labels = {**MANAGER, STUDY: _label(request.key), KIND: request.kind.text}
        job = {
            "backoffLimit": 0,
            "completionMode": "Indexed",
            "completions": processes,
            "parallelism": processes,
            "template": {"metadata": {"labels": labels}, "spec": self._pod(request, name, processes)},
        }
        metadata: dict[str, Any] = {"name": name}
        if self.namespace is not None:
            metadata["namespace"] = self.namespace
        metadata["labels"] = labels | ({QUEUE: self.queue} if self.queue is not None else {})
        if self.tpu is not None and processes > 1:
            metadata["annotations"] = EXCLUSIVE
        return {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": metadata,
            "spec": {
                "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
                "failurePolicy": {"maxRestarts": self.restarts, "restartStrategy": "Recreate"},
                "ttlSecondsAfterFinished": KEPT,
                "replicatedJobs": [{"name": REPLICA, "replicas": 1, "template": {"spec": job}}],
            },
        }

    def _pod(self, request: Request, name: str, processes: int) -> dict[str, Any]:
        """Returns the pod of each process of a worker."""
        devices, there = request.kind.devices // processes, self._there(request.root)
        command = request.command(self.python or "python", there)
        if processes > 1:
            flags = {"coordinator": f"{name}-{REPLICA}-0-0.{name}:{PORT}", "num_processes": processes, "join_timeout": JOIN}
            command += [f"--{flag}={value}" for flag, value in flags.items()] + ["--process_id=$(JOB_COMPLETION_INDEX)"]
        env = {
            "PYTHONPATH": str(there / request.code.relative_to(request.root.resolve())),
            "PYTHONUNBUFFERED": "1",
            "LM_LOG": str(there / jobs.FOLDER / name),  # SCRIPT adds the number of the process
        }
        resources = {"cpu": str(devices * self.cpus_per_device), "memory": self._memory(devices)}
        volumes = [{"name": "study", "persistentVolumeClaim": {"claimName": self.pvc}}]
        mounts = [{"name": "study", "mountPath": self.mount}]
        spec: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE}
        if self.service_account is not None:
            spec["serviceAccountName"] = self.service_account
        if user := self._user():
            spec["securityContext"] = user
        if selector := self._selector(request.kind.devices):
            spec["nodeSelector"] = selector
        accelerator = self.gpu_resource if self.gpus is not None else "google.com/tpu" if self.tpu is not None else None
        if accelerator is None:
            env["JAX_NUM_CPU_DEVICES"] = str(devices)
        else:
            resources[accelerator] = str(devices)
            spec["tolerations"] = [{"key": accelerator, "operator": "Exists", "effect": "NoSchedule"}]
            volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})  # NCCL needs more than the 64 MB that a pod has
            mounts.append({"name": "shm", "mountPath": "/dev/shm"})
        container = {
            "name": REPLICA,
            "image": self.image,
            "command": ["/bin/sh", "-c", _Text(SCRIPT), REPLICA],
            "args": command,
            "env": [{"name": key, "value": value} for key, value in env.items()],
            "ports": [{"containerPort": PORT}] if processes > 1 else [],
            "resources": {"requests": resources, "limits": dict(resources)},
            "volumeMounts": mounts,
        }
        spec["containers"] = [{key: value for key, value in container.items() if value != []}]
        spec["volumes"] = volumes
        return spec

    def _there(self, root: pathlib.Path) -> pathlib.PurePosixPath:
        """Returns the study's directory in the pods."""
        if not self.mount.startswith("/"):
            raise UserError(f"--mount={self.mount}: give an absolute path")
        return pathlib.PurePosixPath(os.path.normpath(pathlib.PurePosixPath(self.mount) / (self.pvc_path or root.resolve().name)))

    def _processes(self, kind: Kind) -> int:
        """Returns the number of pods of a worker."""
        pods = math.ceil(kind.devices / self.devices_per_node)
        if kind.devices % pods:
            raise UserError(
                f"a cell of {kind.devices} devices cannot be shared out evenly to {pods} pods of {self.devices_per_node}: "
                "give another --devices-per-node, or the cells another mesh"
            )
        return pods

    def _user(self) -> dict[str, Any]:
        """Returns the pods' user and group."""
        found = re.fullmatch(r"(\d+)(?::(\d+))?", self.run_as or "0")
        if found is None:
            raise UserError(f"--run-as={self.run_as}: give numbers, UID or UID:GID; `id` shows yours")
        if self.run_as is None:
            return {}
        group = int(found[2] or found[1])
        return {"runAsUser": int(found[1]), "runAsGroup": group, "fsGroup": group, "fsGroupChangePolicy": "OnRootMismatch"}

    def _memory(self, devices: int) -> str:
        """Returns the memory of a pod."""
        found = re.fullmatch(r"([1-9]\d*)([KMGT]i?)", self.memory_per_device)
        if found is None:
            raise UserError(f"--memory-per-device={self.memory_per_device}: give a whole number with its unit, such as 16Gi")
        return f"{int(found[1]) * devices}{found[2]}"

    def _selector(self, devices: int) -> dict[str, str]:
        """Returns the labels of nodes that have the devices."""
        found = {}
        if self.gpus not in (None, "any"):
            found["nvidia.com/gpu.product"] = str(self.gpus)
        if self.tpu is not None:
            slices = self._topologies()
            if devices not in slices:
                raise UserError(f"a cell of {devices} devices needs a slice of as many chips: add it to --tpu-topology={self.tpu_topology}")
            found |= {"cloud.google.com/gke-tpu-accelerator": self.tpu, "cloud.google.com/gke-tpu-topology": slices[devices]}
        for pair in filter(None, (self.node_selector or "").split(",")):
            key, is_pair, value = pair.partition("=")
            if not is_pair:
                raise UserError(f"--node-selector={pair}: give KEY=VALUE, several by commas")
            found[key] = value
        return found

    def _topologies(self) -> dict[int, str]:
        """Returns the topologies of slices by their number of chips."""
        given = self.tpu_topology.split(",") if self.tpu_topology is not None else []
        for text in given:
            if not re.fullmatch(r"\d+(x\d+){1,2}", text):
                raise UserError(f"--tpu-topology={text}: give sizes such as 4x4, several by commas")
        return {math.prod(map(int, text.split("x"))): text for text in given}

    def _kubectl(self, *words: str) -> list[str]:
        return ["kubectl", *([f"--namespace={self.namespace}"] if self.namespace is not None else []), *words]

    def _ask(self, *words: str) -> str:
        return _answer(self._kubectl(*words))

    def _require_there(self, kind: str, name: Optional[str], flag: str = "") -> None:
        """Raises UserError where the namespace lacks a thing. Who may not look is not told."""
        if name is None:
            return
        try:
            self._ask("get", kind, name, "-o", "name")
        except UserError as error:
            if "forbidden" in str(error).lower():
                return
            raise UserError(f"{flag or f'--{kind}'}={name}: {error}") from error


# The pod's first process. It passes SIGTERM on and waits until the worker has saved. The output goes to a file in the study's directory,
# for `logs`, and from there to the pod's log.
SCRIPT = """\
export LM_LOG="$LM_LOG-$JOB_COMPLETION_INDEX.log"
: >> "$LM_LOG"
tail -n 0 -f "$LM_LOG" &
tail=$!
"$@" >> "$LM_LOG" 2>&1 &
worker=$!
trap 'kill -TERM $worker' TERM
while :; do
    wait $worker
    status=$?
    kill -0 $worker 2>/dev/null || break
done
sleep 1
kill $tail
exit $status
"""


class _Text(str):
    """A text that is written line by line."""


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, which people read badly, and texts line by line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|"))


def _manifest(root: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the file of a submission."""
    return root / jobs.FOLDER / f"{number:06d}.yaml"


def _name(request: Request, worker: int, processes: int) -> str:
    """Returns the name of a worker's JobSet: a DNS label that leaves room for what is appended in the names of its Job and pods."""
    tail = f"-s{request.kind.stage}d{request.kind.devices}-{request.number}-{worker}"
    head = _label(request.key, LONGEST - len(f"{tail}-{REPLICA}-0-{processes - 1}-") - HASH)
    return re.sub("[._]", "-", head).lower() + tail


def _label(key: str, longest: int = LONGEST) -> str:
    """Returns a study's key as the value of a label, cut before its hash where it is too long."""
    head, _, tail = re.sub(r"[^A-Za-z0-9._-]", "-", key).rpartition("-")
    return f"{head[: longest - len(tail) - 1].rstrip('._-')}-{tail}"


def _job(item: dict[str, Any]) -> Optional[Job]:
    """Returns the live job that an answer of kubectl describes; None for one that has ended, or that is no worker."""
    metadata, status = item["metadata"], item.get("status", {})
    kind = Kind.parse(metadata.get("labels", {}).get(KIND, ""))
    if kind is None or status.get("terminalState") or "deletionTimestamp" in metadata:
        return None
    if any(replica.get("active", 0) and replica.get("ready", 0) for replica in status.get("replicatedJobsStatus", [])):
        return Job(metadata["name"], kind, "running")
    if item["spec"].get("suspend"):
        return Job(metadata["name"], kind, "queued", "suspended")
    return Job(metadata["name"], kind, "queued", "its pods are not ready")


# Parts of kubectl's errors, each with what helps.
ADVICE = (
    ('no matches for kind "JobSet"', "JobSet is not installed in the cluster: docs/kubernetes.md has the command"),
    ('resource type "jobsets"', "JobSet is not installed in the cluster: docs/kubernetes.md has the command"),
    ('resource type "localqueue', "Kueue is not installed in the cluster: leave --queue out, or docs/kubernetes.md has the command"),
    ("forbidden: exceeded quota", "a quota of the namespace: lower --workers, or wait for jobs to end"),
    ("forbidden", "you may not do that: `kubectl auth can-i create jobsets.jobset.x-k8s.io` has to say yes"),
    ("notfound", "`kubectl get namespaces,pvc,localqueues,serviceaccounts` shows what there is"),
    ("unable to connect", "no cluster answers: `kubectl config get-contexts`, then `kubectl config use-context NAME`"),
    ("was refused", "no cluster answers: `kubectl config get-contexts`, then `kubectl config use-context NAME`"),
    ("unauthorized", "log in to the cluster again"),
    ("failed calling webhook", "JobSet's or Kueue's controller is not ready: try again when its pods run"),
)


def _answer(command: Sequence[str]) -> str:
    """Returns the output of kubectl."""
    absent = "leave --apply out, and start what is written where kubectl is (`python -m launch.doctor`)"
    silent = "try again when `kubectl version` answers"
    return ask([*command, "--request-timeout=20s"], TIMEOUT, ADVICE, name="kubectl", absent=absent, silent=silent)
