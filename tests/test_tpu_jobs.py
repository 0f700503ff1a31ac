"""The commands that ask Google for slices, and how the answers are read. Nothing here reaches Google."""

import json
import os
import shlex
import stat
import subprocess

import pytest
import small_study

from launch import jobs, scheduled, tpu
from launch.backend import Job, Kind, Request
from launch.tpu import SLICES, Tpu
from lm.errors import UserError
from lm.study.rows import read_json


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """gcloud and xpk that write down what they are asked, one command a line, and answer from files."""
    (tmp_path / "bin").mkdir()
    for name in ("gcloud", "xpk"):
        path = tmp_path / "bin" / name
        (tmp_path / f"{name}.answer").touch()
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.asked\ncat {tmp_path}/{name}.answer\n')
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", "")
    return tmp_path


@pytest.fixture
def root(asked):
    small_study.planned(asked / "s")
    return asked / "s"


def _queued(root, **changes):
    fields = {
        "project": "ours",
        "zone": "us-west4-a",
        "accelerator": "v5e",
        "nfs": "10.0.0.2:/share",
        "mount": str(root.parent),
        "image": "ours/lm:tpu",
    }
    return Tpu(**(fields | changes))


def _xpk(**changes):
    fields = {"how": "xpk", "project": "ours", "zone": "us-west4-a", "accelerator": "v5e", "cluster": "pod", "image": "ours/lm:tpu"}
    return Tpu(**(fields | changes))


def _request(root, kind=Kind(0, 16), **changes):
    fields = {"root": root, "key": jobs.key(root), "number": 1, "kind": kind, "count": 1, "code": root / "code" / "abc", "seconds": 3600.0}
    return Request(**(fields | changes))


def _commands(backend, request):
    """Returns the words of the commands that a user is to give."""
    backend.submit(request)
    return [shlex.split(line) for line in backend.by_hand(request.root, request.number).strip().splitlines()]


def test_a_slice_is_asked_for_by_a_printed_command(root, asked):
    name = f"lm-small-{jobs.key(root)[-8:]}-s0-d16-w0"
    golden = (
        f"gcloud compute tpus queued-resources create {name} --project=ours --zone=us-west4-a --accelerator-type=v5litepod-16"
        f" --runtime-version=v2-alpha-tpuv5-lite --node-id={name} --metadata=lm-name={name}"
        f" --metadata-from-file=startup-script={root}/jobs/000001.sh --scopes={tpu.SCOPE}"
    )
    assert _commands(_queued(root), _request(root)) == [golden.split()]
    assert not (asked / "gcloud.asked").exists()
    script = (root / "jobs" / "000001.sh").read_text()
    assert f"lm.study.worker {root} --stage=0 --devices=16" in script
    assert f"mount -t nfs -o hard 10.0.0.2:/share {root.parent}" in script
    assert "queued-resources delete" in script
    # printed again, the commands are the same but for the script: Google refuses a name that is there
    assert _commands(_queued(root), _request(root, number=2))[0][5] == name


def test_two_slices_are_one_queued_resource_of_two_nodes(root):
    backend = _queued(root, slices=2, spot=True, accelerator="v5p", tpu_flags="--network='our net'")
    first, second = _commands(backend, _request(root, count=2))
    assert [word for word in first if word.startswith(("--acc", "--node", "--spot", "--net", "--run"))] == [
        "--accelerator-type=v5p-16", "--runtime-version=v2-alpha-tpuv5", "--node-count=2", f"--node-prefix={first[5]}", "--spot",
        "--network=our net",
    ]  # fmt: skip
    assert first[5] != second[5]


def test_a_workload_of_xpk(root):
    name = f"lm-small-{jobs.key(root)[-8:]}-s0-d32-w0"
    (words,) = _commands(_xpk(slices=2, storage="share"), _request(root, Kind(0, 32)))
    assert words == [
        "xpk", "workload", "create", f"--workload={name}", "--project=ours", "--zone=us-west4-a", "--cluster=pod",
        "--tpu-type=v5litepod-16",
        "--num-slices=2", "--docker-image=ours/lm:tpu", f"--command=bash {root}/jobs/000001.sh {name}", "--max-restarts=100",
        "--termination-grace-period-seconds=120", "--storage=share",
    ]  # fmt: skip
    assert "metadata.google" not in (root / "jobs" / "000001.sh").read_text()


@pytest.mark.parametrize(
    ("chip", "devices", "slices", "named"),
    [
        ("v5e", 1, 1, "v5litepod-1"), ("v5e", 256, 1, "v5litepod-256"), ("v5e", 512, 2, "v5litepod-256"), ("v6e", 8, 1, "v6e-8"),
        ("v5p", 4, 1, "v5p-8"), ("v5p", 6144, 1, "v5p-12288"), ("v4", 32, 1, "v4-64"), ("v5e", 2, 1, None), ("v5e", 512, 1, None),
        ("v5p", 1, 1, None), ("v5p", 96, 1, None), ("v6e", 17, 2, None),
    ],
)  # fmt: skip
def test_types_are_those_of_google(chip, devices, slices, named):
    backend = Tpu(accelerator=chip, slices=slices)
    if named is None:
        with pytest.raises(UserError, match=rf"{devices} devices.*{chip}"):
            backend.type(Kind(0, devices))
    else:
        assert backend.type(Kind(0, devices)) == named


@pytest.mark.parametrize("image", [None, "ours/lm:tpu"])
@pytest.mark.parametrize("chip", sorted(SLICES))
def test_scripts_are_those_of_a_shell(root, image, chip):
    for backend in (_queued(root, image=image, accelerator=chip, environment="source 'a b'/activate"), _xpk(accelerator=chip)):
        script = backend.script(_request(root, Kind(0, 8)))
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
        assert "{" not in script.replace("${", "").replace("|| { apt", "")


def test_a_script_starts_its_worker_again_after_a_lost_process_and_ends_with_its_status(root, asked):
    python = asked / "python"
    python.write_text(f'#!/bin/sh\necho "$LM_LOG $@"\ntest -e {asked}/once && exit 3\ntouch {asked}/once\nexit 75\n')
    python.chmod(0o755)
    (asked / "bin" / "sleep").write_text("#!/bin/sh\n")
    (asked / "bin" / "sleep").chmod(0o755)
    (root / "jobs").mkdir()
    _xpk().submit(_request(root))
    (root / "jobs" / "000001.sh").write_text(_xpk(python=str(python)).script(_request(root)))
    done = subprocess.run(["bash", root / "jobs" / "000001.sh", "lm-small-w0"], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    log = _xpk().log(root, "lm-small-w0")
    assert log.read_text().count("-m lm.study.worker") == 2
    assert str(log) in log.read_text()


def test_a_script_without_its_directory_gives_the_slices_back(root, asked):
    script = _queued(root).script(_request(root)).replace(f"{root}/jobs", "/nowhere/jobs")
    for name, said in (("curl", "echo 0"), ("mountpoint", ""), ("mount.nfs", ""), ("docker", "exit 9")):
        (asked / "bin" / name).write_text(f"#!/bin/sh\n{said}\n")
        (asked / "bin" / name).chmod(0o755)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (asked / "gcloud.asked").read_text().split()[:4] == ["compute", "tpus", "queued-resources", "delete"]


def test_live_workers_are_those_of_the_study(root, asked):
    key = jobs.key(root)
    start, place = tpu.prefix(key), "projects/ours/locations/us-west4-a/queuedResources/"
    states = {
        f"{start}-s0-d16-n1-w0": "ACTIVE",
        f"{start}-s1-d8-n2-w3": "WAITING_FOR_RESOURCES",
        f"{start}-s0-d16-n1-w1": "SUSPENDED",
        "other": "ACTIVE",
    }
    (asked / "gcloud.answer").write_text(json.dumps([{"name": place + name, "state": {"state": state}} for name, state in states.items()]))
    live = [
        Job(f"{start}-s0-d16-n1-w0", Kind(0, 16), "running"),
        Job(f"{start}-s1-d8-n2-w3", Kind(1, 8), "queued", "WAITING_FOR_RESOURCES"),
    ]
    assert _queued(root, run=True).jobs(key) == live
    assert "--format=json" in (asked / "gcloud.asked").read_text()
    assert _queued(root).jobs(key) == []
    _queued(root, run=True).cancel([live[0].id])
    last = (asked / "gcloud.asked").read_text().splitlines()[-1]
    assert last == f"compute tpus queued-resources delete {live[0].id} --project=ours --zone=us-west4-a --force --quiet --async"
    (asked / "xpk.answer").write_text(f"[XPK] Workload List Output:\nJobset Name  Created\n{start}-s0-d16-n1-w0  2026\nother 2026\n")
    assert {(job.id, job.state) for job in _xpk(run=True).jobs(key)} == {(live[0].id, "running"), (live[0].id, "queued")}


def test_what_is_run_is_run_once_and_the_second_stage_waits(root, asked):
    said = []
    made = scheduled.apply(root, _queued(root, run=True, accelerator="v6e"), 2, said.append)
    commands = (asked / "gcloud.asked").read_text().splitlines()
    created = [line.split()[4] for line in commands if " create " in line]
    assert len(created) == 2
    assert all("-s0-d1-n1-w" in name for name in created)
    assert [wish.kind.stage for wish in made.submit] == [0]
    assert read_json(root / "jobs" / "000001.json", "")["ids"] == created
    # printed, it is the user's turn
    said.clear()
    scheduled.apply(root, _queued(root, accelerator="v6e"), 2, said.append)
    printed = [line for text in said for line in text.splitlines() if line.startswith("gcloud")]
    assert [shlex.split(line)[5].partition("-s0-")[2] for line in printed] == ["d1-w0", "d1-w1"]
    assert len((asked / "gcloud.asked").read_text().splitlines()) == len(commands)


def test_names_are_those_that_google_takes():
    name = tpu.prefix("lm-Chin_C4.large-0a1b2c3d")
    assert name == "lm-chin-c4-0a1b2c3d"
    assert tpu.kind_of("lm-Chin_C4.large-0a1b2c3d", f"{name}-s1-d6144-n12-w7") == Kind(1, 6144)
    assert len(f"{name}-s1-d6144-n99999-w99") <= 40


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"accelerator": None}, "--accelerator"), ({"accelerator": "v5litepod-16"}, "v5litepod-16.*v5e"), ({"zone": None}, "--zone"),
        ({"nfs": None}, "--nfs"), ({"nfs": "gs://ours/x"}, "bucket"), ({"nfs": "share"}, "10.0.0.2"),
        ({"mount": "/elsewhere"}, "/elsewhere"),
        ({"how": "ssh"}, "--how=ssh"), ({"slices": 0}, "--slices"), ({"project": None}, "--project"), ({"how": "xpk"}, "--cluster"),
        ({"image": None}, "--image"), ({"storage": "x"}, "--storage"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(root, changes, named):
    _queued(root).require(root)
    with pytest.raises(UserError, match=named) as error:
        _queued(root, **changes).require(root)
    assert "\n" not in str(error.value)


def test_commands_that_are_run_need_a_program_that_answers(root, asked, monkeypatch):
    (asked / "bin" / "gcloud").write_text("#!/bin/sh\necho 'ERROR: You do not currently have an active account selected.' >&2\nexit 1\n")
    with pytest.raises(UserError, match="gcloud auth login"):
        _queued(root, run=True).jobs(jobs.key(root))
    monkeypatch.setenv("PATH", "/nowhere")
    _queued(root).require(root)
    for backend in (_queued(root, run=True), _xpk(run=True)):
        with pytest.raises(UserError, match="--run"):
            backend.require(root)


@pytest.mark.parametrize("kind", [Kind(0, 8), Kind(1, 16, "1f2e3d4c")])
def test_the_name_of_a_worker_tells_its_kind(kind):
    name = f"{tpu.prefix('lm-My_Study-1a2b3c4d')}-{kind.text.replace('.', '-')}"
    for rest in "-w0", "-n3-w12":
        assert tpu.kind_of("lm-My_Study-1a2b3c4d", name + rest) == kind
    assert tpu.kind_of("lm-other-1a2b3c4d", name + "-w0") is None
