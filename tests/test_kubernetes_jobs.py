"""The JobSets of workers: valid for every version of Kubernetes that is known here, and for JobSet and Kueue; and what is asked of kubectl.

`python tests/test_kubernetes_jobs.py` writes tests/golden anew.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
import signal
import stat
import subprocess
import time

import jsonschema
import kubernetes_validate.utils
import pytest
import small_study
import yaml

from launch import jobs, kubernetes, scheduled, snapshot
from launch.backend import Job, Kind, Request
from launch.kubernetes import Kubernetes
from lm import distributed
from lm.errors import UserError

HERE = pathlib.Path(__file__).parent
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # of DNS (RFC 1035)
VALUE = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
PLACE = {"image": "registry.example/lm:0.7", "pvc": "studies"}
GOLDEN = {
    "cpu": (Kubernetes(**PLACE), Kind(0, 1), 2),
    "gpus_8": (
        Kubernetes(**PLACE, gpus="NVIDIA-H100-80GB-HBM3", queue="research", namespace="lab", cpus_per_device=8, memory_per_device="64Gi"),
        Kind(0, 8),
        1,
    ),
    "gpus_2x8": (
        Kubernetes(**PLACE, gpus="any", queue="research", service_account="lm", node_selector="pool=h100", run_as="1001:100"),
        Kind(1, 16),
        1,
    ),
    "tpu_4x4": (Kubernetes(**PLACE, tpu="tpu-v5-lite-podslice", tpu_topology="2x4,4x4", devices_per_node=4), Kind(0, 16), 1),
}


def _request(root, kind, count=1, **changes):
    fields = {"root": root, "key": "lm-chinchilla-0123abcd", "number": 1, "kind": kind, "count": count, "code": root / "code" / "abc"}
    return Request(**(fields | {"seconds": 60.0} | changes))


def _written(folder, name):
    """Returns the manifest of a golden as it is written now."""
    backend, kind, count = GOLDEN[name]
    root = folder.resolve() / "chinchilla"
    root.mkdir(parents=True, exist_ok=True)
    backend.submit(_request(root, kind, count))
    return (root / "jobs" / "000001.yaml").read_text(encoding="utf-8")


def _load(text):
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _strict(schema):
    """Returns a schema of a resource that allows no field that it does not name; the cluster drops such fields in silence."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made |= {} if schema.get("x-kubernetes-preserve-unknown-fields") else {"additionalProperties": False}
    return made


@functools.cache
def _resources():
    """Returns the schemas of JobSet's and Kueue's resources by apiVersion and kind."""
    (jobset,), *kueue = (_load(path.read_text(encoding="utf-8")) for path in sorted((HERE / "schemas").glob("*.yaml")))
    found = {}
    for content in (jobset, *(each for (each,) in kueue)):
        for version, schema in content["versions"].items():
            found[f"{content['group']}/{version}", content["kind"]] = jsonschema.Draft202012Validator(_strict(schema))
    return found


def _check(resource):
    _resources()[resource["apiVersion"], resource["kind"]].validate(resource)


def _check_job(job_set):
    """Checks the Job and the pods of a JobSet strictly by every version of Kubernetes."""
    (replica,) = job_set["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": replica["template"]["spec"]}
    versions = set(kubernetes_validate.utils.all_versions())
    assert len(versions) > 10
    for version in versions:
        kubernetes_validate.utils.validate(job, version, strict=True)
    return job["spec"]


@pytest.mark.parametrize("name", GOLDEN)
def test_manifests_are_valid_and_as_they_were(tmp_path, name):
    written = _written(tmp_path, name)
    assert written == (HERE / "golden" / f"{name}.yaml").read_text(encoding="utf-8")
    (_, kind, count), sets = GOLDEN[name], _load(written)
    assert len({made["metadata"]["name"] for made in sets}) == len(sets) == count
    for made in sets:
        _check(made)
        job = _check_job(made)
        (container,) = job["template"]["spec"]["containers"]
        per_pod = [int(value) for key, value in container["resources"]["limits"].items() if key.endswith(("/gpu", "/tpu"))] or [1]
        assert job["completions"] == job["parallelism"] == kind.devices / per_pod[0]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        flags = dict(word[2:].split("=", 1) for word in container["args"] if word.startswith("--"))
        assert (flags["stage"], flags["devices"]) == (str(kind.stage), str(kind.devices))
        if job["completions"] > 1:
            flags["process_id"] = flags["process_id"].replace("$(JOB_COMPLETION_INDEX)", "1")
            met = distributed.settings({key: flags[key] for key in distributed.FLAGS if key in flags})
            pod, service = met.coordinator.partition(":")[0].split(".")
            assert (met.processes, met.process) == (job["completions"], 1)
            assert (service, pod) == (made["metadata"]["name"], f"{made['metadata']['name']}-worker-0-0")


def test_what_no_cluster_takes_is_found(tmp_path):
    (made, *_) = _load(_written(tmp_path, "gpus_8"))
    made["spec"]["failurePolicy"]["restartStrategy"] = "Sometimes"
    with pytest.raises(jsonschema.ValidationError):
        _check(made)
    (made, *_) = _load(_written(tmp_path, "gpus_8"))
    made["spec"]["retries"] = 1
    with pytest.raises(jsonschema.ValidationError):
        _check(made)
    (made, *_) = _load(_written(tmp_path, "gpus_8"))
    made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]["memory"] = "4Gi"
    with pytest.raises(jsonschema.ValidationError):
        _check_job(made)


def test_kueues_objects_in_the_docs_are_valid():
    page = (HERE.parent / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    (block,) = (block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "ClusterQueue" in block)
    found = [resource for resource in _load(block) if resource["apiVersion"].startswith("kueue")]
    assert {resource["kind"] for resource in found} == {"ResourceFlavor", "ClusterQueue", "LocalQueue"}
    for resource in found:
        _check(resource)


@pytest.mark.parametrize("key", ["lm-a-01234567", "lm-My_study.v2-01234567", f"lm-{'long_' * 30}-01234567", "lm-caf\u00e9.-01234567"])
def test_names_are_labels_with_all_that_is_appended(tmp_path, key):
    backend, request = Kubernetes(**PLACE, gpus="any"), _request(tmp_path / "s", Kind(1, 8192), 1000, key=key, number=123456)
    names = [kubernetes._name(request, worker, backend._processes(request.kind)) for worker in (0, 999)]
    assert names[0] != names[1]
    for name in names:
        assert LABEL.fullmatch(name)
        assert "01234567" in name
        assert len(f"{name}-worker-0-1023-abcde") <= 63  # a pod's name
    value = kubernetes._label(key)
    assert VALUE.fullmatch(value)
    assert len(value) <= 63


def test_the_pods_script_saves_at_sigterm_and_keeps_status_and_output(tmp_path):
    worker = 'trap "echo saved; exit 7" TERM; echo begun; while :; do sleep .05; done'
    environment = {**os.environ, "LM_LOG": str(tmp_path / "name"), "JOB_COMPLETION_INDEX": "3"}
    command = ["/bin/sh", "-c", kubernetes.SCRIPT, "worker", "/bin/sh", "-c", worker]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as pod:
        log = tmp_path / "name-3.log"
        deadline = time.monotonic() + 20
        while not log.exists() or "begun" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pod.send_signal(signal.SIGTERM)
        out, _ = pod.communicate(timeout=20)
    assert pod.returncode == 7
    assert log.read_text() == "begun\nsaved\n"
    assert out.endswith("saved\n")


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A kubectl that writes down what it is asked, and answers from a file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "answer").write_text('{"items": []}')
    path = tmp_path / "bin" / "kubectl"
    path.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\ncat {tmp_path}/answer\n')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def root(asked, monkeypatch):
    monkeypatch.setattr(snapshot, "take", lambda root, train=None: root.resolve() / "code" / "abc")
    small_study.planned(asked / "s")
    return asked / "s"


def _calls(asked):
    return [line.removesuffix(" --request-timeout=20s") for line in (asked / "asked").read_text().splitlines()]


def test_without_apply_manifests_are_written_and_the_command_is_said(asked, root, monkeypatch):
    said = []
    monkeypatch.setenv("PATH", "/nowhere")
    made = scheduled.apply(root, Kubernetes(**PLACE, mount="/"), 2, said.append)
    assert [(wish.kind.stage, wish.count) for wish in made.submit] == [(0, 2)]  # a later stage is handed over when this one has ended
    assert f"kubectl apply -f {root / 'jobs' / '000001.yaml'}" in said[0]
    assert len(_load((root / "jobs" / "000001.yaml").read_text())) == 2
    assert len(list((root / "jobs").glob("*.yaml"))) == 1


def test_with_apply_kubectl_hands_over_looks_and_ends(asked, root):
    backend = Kubernetes(**PLACE, mount="/", namespace="lab", queue="research", apply=True)
    scheduled.apply(root, backend, 1, print)
    backend.cancel(["a", "b"])
    backend.cancel([])
    assert [call.removeprefix("--namespace=lab ") for call in _calls(asked)] == [
        "get pvc studies -o name",
        "get localqueue.kueue.x-k8s.io research -o name",
        f"get jobsets -l lm-scaling/study={jobs.key(root)} -o json",
        f"apply -f {root / 'jobs' / '000001.yaml'}",
        "delete jobsets --ignore-not-found --wait=false a b",
    ]


def _item(name, kind, status, **changes):
    return {"metadata": {"name": name, "labels": {"lm-scaling/kind": kind}} | changes, "spec": {"suspend": not status}, "status": status}


def test_live_jobs_are_those_that_have_not_ended(asked):
    active = {"replicatedJobsStatus": [{"name": "worker", "active": 1, "ready": 1}]}
    items = [
        _item("a", "s0.d8", active),
        _item("b", "s1.d16", {}),
        _item("c", "s0.d8", {"replicatedJobsStatus": [{"name": "worker", "active": 1, "ready": 0}]}),
        _item("d", "s0.d8", active | {"terminalState": "Completed"}),
        _item("e", "s0.d8", {"terminalState": "Failed"}),
        _item("f", "s0.d8", active, deletionTimestamp="2026-11-28T15:00:00Z"),
        _item("g", "another's", active),
    ]
    (asked / "answer").write_text(json.dumps({"items": items}))
    first, second, third = Kubernetes(**PLACE).jobs("lm-s-01234567")
    assert first == Job("a", Kind(0, 8), "running")
    assert (second.id, second.kind, second.state) == ("b", Kind(1, 16), "queued")
    assert (third.id, third.state) == ("c", "queued")


def test_a_later_stage_is_handed_over_when_the_jobs_of_the_earlier_have_ended(asked, root):
    backend, running = Kubernetes(**PLACE, mount="/", apply=True), {"replicatedJobsStatus": [{"active": 1, "ready": 1}]}
    (asked / "answer").write_text(json.dumps({"items": [_item("a", "s0.d1", running)]}))
    assert scheduled.apply(root, backend, 1, print).submit == ()
    later = json.loads((root / "study.json").read_text())
    later["cells"] = [cell for cell in later["cells"] if cell["stage"] == 1]  # those of the first have ended
    (root / "study.json").write_text(json.dumps(later))
    assert scheduled.apply(root, backend, 1, print).submit == ()
    (asked / "answer").write_text(json.dumps({"items": [_item("a", "s0.d1", running | {"terminalState": "Completed"})]}))
    assert [wish.kind.stage for wish in scheduled.apply(root, backend, 1, print).submit] == [1]


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ('error: resource mapping not found: no matches for kind "JobSet" in version "jobset.x-k8s.io/v1alpha2"', "docs/kubernetes.md"),
        ("Error from server (Forbidden): jobsets is forbidden: exceeded quota: gpus", "--workers"),
        ("Error from server (Forbidden): User cannot create resource", "auth can-i"),
        ("The connection to the server localhost:8080 was refused - did you specify the right host or port?", "use-context"),
    ],
)
def test_a_refusal_says_what_helps(asked, said, named):
    (asked / "bin" / "kubectl").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    (asked / "s").mkdir()
    with pytest.raises(UserError, match=named) as error:
        Kubernetes(**PLACE, apply=True).submit(_request(asked / "s", Kind(0, 1), code=asked.resolve() / "s" / "code" / "abc"))
    assert "\n" not in str(error.value)
    assert Kubernetes(**PLACE).jobs("lm-s-01234567") == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image": None}, "--image"),
        ({"pvc": None}, "--pvc"),
        ({"restarts": -1}, "--restarts"),
        ({"gpus": "any", "tpu": "t", "tpu_topology": "2x2"}, "--gpus"),
        ({"tpu": "t"}, "--tpu-topology"),
        ({"tpu": "t", "tpu_topology": "2by2"}, "2by2"),
        ({"memory_per_device": "much"}, "much"),
        ({"node_selector": "pool"}, "pool"),
        ({"run_as": "lm"}, "--run-as"),
        ({"mount": "studies"}, "--mount"),
        ({"mount": "/claim", "pvc_path": "../s"}, "--data-dir"),
    ],
)
def test_options_that_make_no_job_are_named(root, changes, named):
    with pytest.raises(UserError, match=named) as error:
        dataclasses.replace(Kubernetes(**PLACE, mount="/"), **changes).require(root)
    assert "\n" not in str(error.value)


def test_cells_that_fit_no_pods_or_slice_are_named(tmp_path):
    for backend, kind, named in (
        (Kubernetes(**PLACE), Kind(0, 9), "--devices-per-node"),
        (GOLDEN["tpu_4x4"][0], Kind(0, 4), "--tpu-topology"),
    ):
        with pytest.raises(UserError, match=named):
            backend.submit(_request(tmp_path, kind))


def test_a_claim_that_the_namespace_lacks_is_named(asked, root):
    (asked / "bin" / "kubectl").write_text('#!/bin/sh\necho "Error from server (NotFound): persistentvolumeclaims not found" >&2\nexit 1\n')
    with pytest.raises(UserError, match="--pvc=studies"):
        Kubernetes(**PLACE, mount="/", apply=True).require(root)


if __name__ == "__main__":
    import tempfile

    for each in GOLDEN:
        with tempfile.TemporaryDirectory() as made_in:
            (HERE / "golden" / f"{each}.yaml").write_text(_written(pathlib.Path(made_in), each), encoding="utf-8")
