"""The child process: the function that it lowers is the run's, and however it ends one line says so."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from configs import decoder
from lm.errors import UserError
from lm.preflight import child, job, wheels
from lm.preflight.__main__ import main
from lm.preflight.topologies import parse
from lm.train import program
from lm.train.build import build
from lm.train.derived import shape_of

ROOT = Path(__file__).parent.parent
TOPOLOGY = parse("tpu:v5e:2x2")


class Uncompiled:
    """Stands for an executable, which takes long to make."""

    def compile(self, options):
        return self

    def cost_analysis(self):
        return None


def test_it_lowers_what_a_run_compiles(monkeypatch):
    tiny = decoder.get_config("tiny")
    config = dataclasses.replace(tiny, mesh=dataclasses.replace(tiny.mesh, data=2, fsdp=4), seed=3, train_tokens=2_000_000)
    of_run = []

    def lower(*arguments, **options):
        of_run.append(lower_of_run(*arguments, **options))
        return of_run[-1]._replace(init=Uncompiled(), run=Uncompiled())

    lower_of_run = program.lower
    monkeypatch.setattr(program, "lower", lower)
    parts = build(config)
    program.compile_program(shape_of(config), parts.model, parts.mesh)
    monkeypatch.undo()
    _, lowered = child.lower(config, jax.devices())
    assert lowered.run.as_text() == of_run[0].run.as_text()
    assert lowered.run.as_text().count("\n") > 100


@pytest.fixture
def ends_with(monkeypatch):
    """Replaces the child by a Python program, which finds the request and the result's path in sys.argv."""
    monkeypatch.setattr(wheels, "require", lambda kind: None)

    def replace(program, timeout=30.0):
        monkeypatch.setattr(job, "CHILD", ("-c", "import os, sys, time\n" + program))
        return job.Request(decoder.get_config("tiny"), TOPOLOGY, timeout)

    return replace


@pytest.mark.parametrize(
    ("program", "timeout", "says"),
    [
        (
            "print('compiling', flush=True); sys.exit('a last word')",
            30.0,
            r"ended with status 1 after \d+ s, while compiling; .* a last word",
        ),
        ("os.kill(os.getpid(), 11)", 30.0, "was ended by SIGSEGV"),
        ("time.sleep(60)", 0.5, r"no result within --timeout=0.5 seconds"),
        ("""open(sys.argv[2], "w").write('{"error": "the mesh is wrong"}')""", 30.0, "^the mesh is wrong$"),
    ],
)
def test_every_end_is_one_line(ends_with, program, timeout, says):
    with pytest.raises(UserError, match=says) as error:
        job.run_one(ends_with(program, timeout), lambda line: None)
    assert "\n" not in str(error.value)


def test_results_come_as_they_end_and_two_run_at_once(ends_with):
    request = ends_with("""time.sleep(0.5); open(sys.argv[2], "w").write('{"fits": true}')""")
    start, lines = time.monotonic(), []
    found = dict(job.run_all([request] * 2, at_once=2, say=lines.append, names=["a", "b"]))
    assert [found[i].result for i in (0, 1)] == [{"fits": True}] * 2
    assert time.monotonic() - start < 0.9 + 2 * job.POLL_SECONDS
    assert {line.split(":")[0] for line in lines} == {"a", "b"}


def test_an_interrupt_ends_the_child(ends_with, monkeypatch):
    request = ends_with("time.sleep(60)")
    jobs = []
    started = job.Job.__init__

    def remember(self, request):
        started(self, request)
        jobs.append(self)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(job.Job, "__init__", remember)
    with pytest.raises(KeyboardInterrupt):
        job.run_one(request, lambda line: None)
    assert jobs[0].process.returncode == -signal.SIGKILL
    assert not Path(jobs[0].folder.name).exists()


def test_the_child_ends_with_its_parent(tmp_path):
    os.mkfifo(tmp_path / "request")  # which nobody writes: the child waits for its request
    command = (sys.executable, *job.CHILD, str(tmp_path / "request"), str(tmp_path / "result"))
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()  # as the end of the parent does
    assert process.wait(timeout=60) == child.ORPHANED


CONFIG = "--config=configs/decoder.py:tiny"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((CONFIG,), "--topology"),
        (("--topology=tpu:v5e:4x4",), "--config"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--timeout=soon"), "--timeout=soon"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--mots=3"), "--mots --most"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--most=3"), "--most --search"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--search=false"), "--search"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--search", "--most=1.5"), "--most=1.5"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--search", "--hlo=step.txt"), "--hlo --search"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--search", "--config.mesh.fsdp=4"), "--config.mesh.fsdp=4 --search"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--search", "--config.execution.remat=full"), "--config.execution.remat=full --search"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--hlo=no/such/step.txt"), "--hlo=no/such/step.txt"),
        ((CONFIG, "--topology=tpu:v5e:4x4", "--out=no/such/folder.json"), "--out=no/such/folder.json"),
    ],
)
def test_wrong_commands_are_refused_in_one_line_that_names_the_flag(words, names):
    with pytest.raises(UserError) as error:
        main(list(words))
    assert [name for name in (*names.split(), "\n") if name not in str(error.value)] == ["\n"]


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_without_the_compiler_one_line_says_what_to_install(monkeypatch, kind):
    monkeypatch.setattr(wheels, "installed", lambda module: False)
    with pytest.raises(UserError, match=rf"pip install .*'\.\[{kind}\]'"):
        wheels.require(kind)
