"""What is asked of SLURM's commands, and how their answers are read. tests/slurm asks a real SLURM."""

import dataclasses
import os
import stat
import subprocess

import pytest
import small_study

from launch import jobs, logs
from launch.backend import Job, Kind, Request
from launch.slurm import MAX_STARTS, MFU, Slurm
from lm.errors import UserError
from lm.preflight.topologies import CHIPS

QUEUE = """\
12_0|RUNNING|{key}.s0.d1|None
12_1|PENDING|{key}.s0.d1|Resources
13_0|PENDING|{key}.s1.d16|Dependency
14|COMPLETING|{key}.s0.d1|None
15|RUNNING|{key}x.s0.d1|None
16|RUNNING|another job|None
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Commands that write down what they are asked, and answer from files."""
    (tmp_path / "bin").mkdir()
    answers = {"sbatch": "77;east", "squeue": "", "sinfo": "main* 2-00:00:00\nshort 30:00", "scancel": "", "scontrol": ""}
    for name, answer in answers.items():
        path = tmp_path / "bin" / name
        (tmp_path / f"{name}.answer").write_text(answer)
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/{name}.asked\ncat {tmp_path}/{name}.answer\n')
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.fixture
def root(asked):
    small_study.planned(asked / "s")
    return asked / "s"


def _request(root, kind=Kind(0, 1), **changes):
    fields = {
        "root": root,
        "key": jobs.key(root),
        "number": 1,
        "kind": kind,
        "count": 3,
        "code": root / "code" / "abc",
        "seconds": 2 * 3600.0,
    }
    return Request(**(fields | changes))


def _flags(asked):
    lines = (asked / "sbatch.asked").read_text().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_one_array_holds_all_workers_of_a_kind(asked, root):
    backend = Slurm(partition="main", account="us", gpus="h100", mem="64G", sbatch="--exclusive --comment='a b'")
    flops = 2 * 3600 * 4 * CHIPS["h100"].flops * MFU
    assert backend.submit(_request(root, Kind(1, 4), flops=flops, after=("5_0", "5_1", "6_0"))) == ["77_0", "77_1", "77_2"]
    flags = _flags(asked)
    wanted = {
        "--array": "0-2", "--nodes": "1", "--gpus-per-node": "h100:4", "--cpus-per-task": "4", "--partition": "main", "--account": "us",
        "--mem": "64G", "--dependency": "afterany:5:6", "--job-name": f"{jobs.key(root)}.s1.d4", "--exclusive": "", "--comment": "a b",
        "--time": "240", "--signal": "B:USR1@120",
    }  # fmt: skip
    assert {name: flags[name] for name in wanted} == wanted  # twice the estimate of a worker
    script = (root / "jobs" / "000001.sh").read_text()
    assert "srun --kill-on-bad-exit=0 --cpus-per-task=4" in script  # a step is what gets SIGTERM in a time of grace
    assert "JAX_NUM_CPU_DEVICES" not in script
    assert f"lm.study.worker {root} --stage=1 --devices=4" in script
    assert subprocess.run(["bash", "-n", root / "jobs" / "000001.sh"], check=False).returncode == 0


@pytest.mark.parametrize("has_srun", [True, False])
def test_a_job_that_never_takes_a_cell_is_started_a_bounded_number_of_times(asked, root, has_srun):
    """Its worker ends before each time, and the job is queued again; one that took a cell between counts anew."""
    worker, begun = asked / "worker", asked / "begun"
    worker.write_text(
        f'#!/bin/sh\necho "$@" >> {begun}\n[ -f {asked}/takes ] && echo "cell c begins or goes on, in epoch-000001"\nexit 138\n'
    )
    worker.chmod(0o755)
    if has_srun:
        (asked / "bin" / "srun").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
        (asked / "bin" / "srun").chmod(0o755)
    (asked / "bin" / "sleep").symlink_to("/bin/true")
    Slurm(python=str(worker), environment=None if has_srun else "hash -r; command() { return 1; }").submit(_request(root))
    log, environment = root / "jobs" / "000001-77_0.log", os.environ | {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "0"}

    def start():
        with open(log, "ab") as file:
            return subprocess.run(["bash", root / "jobs" / "000001.sh"], stdout=file, stderr=file, env=environment, check=False).returncode

    assert [start() for _ in range(MAX_STARTS)] == [138] * MAX_STARTS
    assert (asked / "scontrol.asked").read_text().split() == ["requeue", "77_0"]
    assert start() == 1
    assert len(begun.read_text().splitlines()) == MAX_STARTS
    assert str(MAX_STARTS) in logs.last_line(log)
    (asked / "takes").touch()
    log.write_text("")
    assert [start() for _ in range(MAX_STARTS + 2)] == [138] * (MAX_STARTS + 2)


def test_a_cell_of_more_devices_than_a_node_has_takes_several(asked, root):
    Slurm(gpus="any", environment="module load cuda").submit(_request(root, Kind(0, 16)))
    assert (_flags(asked)["--nodes"], _flags(asked)["--gpus-per-node"]) == ("2", "8")
    script = (root / "jobs" / "000001.sh").read_text()
    assert "srun --kill-on-bad-exit=0 --cpus-per-task=8" in script
    assert "PYTHONSAFEPATH=1" in script  # else the present directory would come before the snapshot
    assert "--time" not in _flags(asked)  # of GPUs whose rate is not known
    assert script.index("module load cuda") < script.index("srun")
    with pytest.raises(UserError, match="--devices-per-node"):
        Slurm().submit(_request(root, Kind(0, 9), number=2))


def test_time_limits_end_at_those_of_the_partition(asked, root):
    for partition, answer, time in ((None, "main* 2-00:00:00\nshort 30:00", "240"), ("short", "main* 2-00:00:00\nshort 30:00", "30")):
        (asked / "sinfo.answer").write_text(answer)
        Slurm(partition=partition).submit(_request(root))
        assert _flags(asked)["--time"] == time
    (asked / "sinfo.answer").write_text("main* infinite")
    Slurm().submit(_request(root))
    assert _flags(asked)["--time"] == "240"
    Slurm(time="1-00:00:00").submit(_request(root))
    assert _flags(asked)["--time"] == "1-00:00:00"


def test_live_jobs_are_those_of_the_study(asked, root):
    key = jobs.key(root)
    (asked / "squeue.answer").write_text(QUEUE.format(key=key))
    first, second, third = Slurm().jobs(key)
    assert (first, second) == (Job("12_0", Kind(0, 1), "running"), Job("12_1", Kind(0, 1), "queued", "Resources"))
    assert third == Job("13_0", Kind(1, 16), "queued", "Dependency")


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", "--account"),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", "--workers"),
        ("slurm_load_partitions: Unable to contact slurm controller (connect failure)", "scontrol ping"),
    ],
)
def test_a_refusal_says_what_helps(asked, root, said, named):
    (asked / "bin" / "sbatch").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    with pytest.raises(UserError, match=named) as error:
        Slurm().submit(_request(root))
    assert "\n" not in str(error.value)


def test_what_cannot_be_submitted_from_here_is_named(asked, root, monkeypatch):
    Slurm(partition="main").require(root)
    for changes, named in (({"partition": "nowhere"}, "main, short"), ({"notice": 0}, "notice")):
        with pytest.raises(UserError, match=named):
            dataclasses.replace(Slurm(), **changes).require(root)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch"):
        Slurm().require(root)
