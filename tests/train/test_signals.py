"""Requests to end: signals while the main thread is busy or holds a state, a second one, a limit on the time, and a run that hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.errors import UserError
from lm.train import signals
from lm.train.signals import duration, seconds_left

ROOT = Path(__file__).resolve().parents[2]
SOON = 5.0  # seconds, of which a busy machine may need some: .1 where it is quiet
BUSY = """
import signal, sys, threading, time
from lm.train import signals
from lm.train.watchdog import Watchdog
def busy():  # in C, as a compiler is, where Python's handlers do not run
    print("ready", flush=True)
    forever.acquire()
forever = threading.Lock()
forever.acquire()
def wait_for_the_end(stop):
    print("ready", flush=True)
    while not stop.check():
        time.sleep(.01)
"""


def started(body, *before):
    """A program that is ready for its signals."""
    command = [*before, sys.executable, "-c", BUSY + body]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    program = subprocess.Popen(command, **pipes, text=True, env=environment)
    assert program.stdout.readline() == "ready\n"
    return program


def ended(program, within):
    """(exit status, stderr), of a program that has so many seconds left; what it reads ends."""
    since = time.monotonic()
    _, errors = program.communicate(timeout=60)
    assert time.monotonic() - since < within
    return program.returncode, errors


STOPPED = """
with signals.Stop(at_once=True) as stop, stop.with_state():
    wait_for_the_end(stop)
    stop.leave()
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGHUP", 129), ("SIGUSR1", 138)])
def test_with_nothing_to_save_a_busy_process_ends_at_once(name, status):
    program = started("""
with signals.Stop(at_once=True) as stop:
    stop.last_acts.append(lambda: print("given back", file=sys.stderr))
    busy()
""")
    program.send_signal(getattr(signal, name))
    code, errors = ended(program, SOON)
    assert code == status
    assert errors.startswith("given back\n")
    assert name in errors
    assert "Traceback" not in errors


def test_a_second_signal_ends_what_saves_its_state_and_those_sent_together_are_one():
    program = started("""
with signals.Stop(at_once=True) as stop, stop.with_state():
    busy()
""")
    program.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    program.send_signal(signal.SIGTERM)  # timeout(1) does this
    program.send_signal(signal.SIGHUP)  # and systemd this
    time.sleep(2 * signals.SAME)
    assert program.poll() is None
    program.send_signal(signal.SIGINT)
    code, errors = ended(program, SOON)
    assert code == 130
    assert "Traceback" not in errors


def test_what_was_ignored_before_stays_so():
    program = started(STOPPED, "nohup")
    program.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert program.poll() is None
    program.send_signal(signal.SIGUSR2)
    assert ended(program, SOON)[0] == 140


@pytest.mark.parametrize("has_state", [False, True])
def test_the_limit_on_the_time_ends_before_it(has_state):
    """What is left for the end is twice the longest save."""
    work = ("contextlib.nullcontext()", "busy()") if not has_state else ("stop.with_state()", "wait_for_the_end(stop)")
    program = started(f"""
import contextlib
with signals.Stop(at_once=True, seconds=8) as stop, {work[0]}:
    stop.reserve(3.7)
    {work[1]}
    stop.leave()
""")
    assert ended(program, SOON)[0] == 124


@pytest.mark.parametrize(("first", "second", "status"), [("SIGUSR1", "SIGALRM", 138), ("SIGALRM", "SIGUSR1", 124)])
def test_the_end_of_the_time_and_the_signal_of_a_scheduler_are_no_second_one_to_each_other(first, second, status):
    """The save is ended, and a save before it that took longer than any asks for no alarm once the run ends."""
    program = started("""
with signals.Stop(at_once=True, seconds=60) as stop, stop.with_state():
    wait_for_the_end(stop)
    stop.reserve(40)
    print("saving", flush=True)
    sys.stdin.read()
    print("saved", file=sys.stderr)
    stop.leave()
""")
    program.send_signal(getattr(signal, first))
    assert program.stdout.readline() == "saving\n"
    time.sleep(1.5 * signals.SAME)
    assert program.poll() is None
    program.send_signal(getattr(signal, second))
    time.sleep(0.1)
    code, errors = ended(program, SOON)
    assert (code, errors) == (status, "saved\n")


def test_a_signal_after_a_lost_cell_ends_the_process():
    program = started("""
with signals.Stop(at_once=True) as stop, stop.with_state():
    stop.abandon()
    wait_for_the_end(stop)
    sys.stdin.read()
    stop.go_on()
    stop.leave()
""")
    program.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert ended(program, SOON)[0] == 143


def test_a_hang_prints_every_stack_and_ends_the_process():
    program = started("""
def stuck():
    busy()
with signals.Stop(at_once=True) as stop, stop.with_state(), Watchdog(.3):
    stuck()
""")
    code, errors = ended(program, SOON)
    assert code == 75
    assert "in stuck" in errors
    assert "in _watch" in errors
    assert errors.splitlines()[-1].startswith("error: ")


def test_a_pause_is_no_hang():
    """A process that was suspended for longer than the limit goes on when it is woken."""
    program = started("""
with signals.Stop(at_once=True) as stop, stop.with_state(), Watchdog(2):
    wait_for_the_end(stop)
    stop.leave()
""")
    program.send_signal(signal.SIGSTOP)
    time.sleep(2.3)
    program.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    program.send_signal(signal.SIGTERM)
    assert ended(program, SOON)[0] == 143


def test_work_that_is_abandoned_ends_no_process():
    program = started("""
with signals.Stop(at_once=True) as stop:
    threading.Timer(.1, stop.abandon).start()
    try:
        busy()
    except KeyboardInterrupt:
        stop.go_on()
    with stop.with_state():
        assert not stop.check()
        wait_for_the_end(stop)
    stop.leave()
""")
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    assert ended(program, SOON)[0] == 143


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("2h30m", 9000), ("1d12h", 129600), ("1:30:00", 5400), ("1-12:00:00", 129600), ("0:00:01", 1)],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "1.5h", "-3m", "0s", "1:30", "3m2h", "ninety"])
def test_a_time_without_a_unit_is_refused(text):
    with pytest.raises(UserError, match=f"--time_limit={text}"):
        duration(text)


def test_the_limit_is_that_of_the_flag_or_of_the_slurm_job():
    job = {"SLURM_JOB_END_TIME": str(int(time.time()) + 600)}
    assert seconds_left(None, job) == pytest.approx(600, abs=2)
    assert seconds_left("2d", {}) - seconds_left("1d", job) == pytest.approx(86400, abs=2)
    assert seconds_left("none", job) is None
    assert seconds_left(None, {}) is None
    assert seconds_left(None, {"SLURM_JOB_END_TIME": "0"}) is None
