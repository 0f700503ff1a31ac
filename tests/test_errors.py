"""Commands end with one line and a status, and silently when the reader of their output has closed it."""

import contextlib
import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import decoder
from experiments import __main__ as experiments
from lm import interrupts, run
from lm.errors import UserError, counted, run_cli
from lm.evals import __main__ as evals
from lm.hf import __main__ as hf
from lm.infer import __main__ as infer
from lm.scaling import __main__ as scaling
from lm.train import signals

ROOT = Path(__file__).resolve().parent.parent


def wrong():
    raise UserError("wrong;\n  mend it")


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [
        (wrong, 2, "error: wrong; mend it\n"),
        (lambda: Path("/nowhere/at/all").read_text(), 2, "error: No such file or directory: /nowhere/at/all\n"),
        (interrupted, 130, "\ninterrupted; the same command continues from what is on disk\n"),
        (lambda: 1, 1, ""),
        (lambda: None, 0, ""),
    ],
)
def test_one_line_and_a_status(capsys, main, status, said):
    with pytest.raises(SystemExit) as ended:
        run_cli(main)
    assert ended.value.code == status
    assert capsys.readouterr().err == said


class Dying:
    """Gets the signal in its last moment, in which Python can do no more than print an error."""

    def __init__(self, number):
        self._number = number

    def __del__(self):
        signal.raise_signal(self._number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("place", ["gc", "del", "except", "end"])
def test_an_interrupt_that_something_loses_is_raised_again(capsys, monkeypatch, place, number, status):
    """JAX has a callback of the garbage collector, which is often the first Python code after a call into C."""
    before = signal.getsignal(signal.SIGTERM)

    def callback(*_):
        gc.callbacks.remove(callback)
        signal.raise_signal(number)

    def main():
        signals.interrupt()
        if place == "gc":
            gc.callbacks.append(callback)
            gc.collect()
        elif place == "del":
            Dying(number)
        else:
            with contextlib.suppress(BaseException):  # as a library's bare `except` does
                signal.raise_signal(number)
        for _ in range(500 * (place != "end")):
            time.sleep(0.01)
        return 0

    monkeypatch.setattr(signals, "NAMES", ("SIGINT", "SIGTERM"))
    try:
        with pytest.raises(SystemExit) as ended:
            run_cli(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith("\ninterrupted")


def test_what_an_interrupt_leaves_to_clean_up_is_not_cut_short():
    done = []

    def main():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            with contextlib.suppress(ValueError):
                int("an error beside it")
            time.sleep(5 * interrupts.LOOK)
            done.append("cleaned")

    with pytest.raises(SystemExit) as ended:
        run_cli(main)
    assert (ended.value.code, done) == (130, ["cleaned"])


@pytest.mark.parametrize(
    ("main", "words", "said"),
    [
        (scaling.main, ["ft"], "fit"),
        (scaling.main, ["fit", "runs.csv", "--los=a"], "--loss"),
        (scaling.main, ["fit", "runs.csv", "--objective=hubber"], "huber"),
        (scaling.main, [], "predict"),
        (scaling.main, ["fit", "runs.csv", "others.csv"], "others.csv"),
        (experiments.main, ["chinchilla", "statsu"], "status"),
        (experiments.main, ["chinchila"], "chinchilla"),
        (evals.main, ["loss", "run", "--txt=a"], "--text"),
        (infer.main, ["run", "--promt=a"], "--prompt"),
        (hf.main, ["import", "model", "--workdir=w", "--eos_tokn=a"], "--eos_token"),
        (run.main, ["--config=configs/decoder.py:tiny", "--config.model.num_layer=1"], "--config.model.num_layers"),
        (run.main, ["--config.model.num_layer=1"], "--config is missing.*--config.model.num_layers"),
    ],
)
def test_a_word_that_is_not_known_is_answered_by_the_nearest(main, words, said):
    with pytest.raises(UserError, match=rf"{said}\b"):
        main(words)


def test_every_command_parses_its_words_so():
    files = [path for top in ("lm", "experiments", "launch") for path in (ROOT / top).rglob("*.py")]
    assert [str(path) for path in files if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")] == []


def test_arguments_may_stand_between_flags(tmp_path):
    """Argparse by itself takes the verb after a flag for a word too many."""
    with pytest.raises(UserError, match=tmp_path.name):
        experiments.main(["chinchilla", f"--dir={tmp_path / 'none'}", "logs", "--follow", "abc"])


def test_a_long_choice_is_folded_below_the_line(capsys):
    with pytest.raises(SystemExit):
        run_cli(lambda: run.main(["--config=configs/decoder.py:tinyy", "--print_config"]))
    first, *others = capsys.readouterr().err.splitlines()
    assert "tiny" in first
    assert max(map(len, [first, *others])) <= 120
    assert {name for line in others for name in line.replace(",", " ").split()} == set(decoder.CONFIGS)


def test_one_is_no_plural():
    assert [counted(count, "document") for count in (0, 1, 6219)] == ["0 documents", "1 document", "6,219 documents"]
    assert [counted(count, "family", "families") for count in (1, 2)] == ["1 family", "2 families"]


def test_a_closed_pipe_is_silent():
    program = "from lm.errors import run_cli\nrun_cli(lambda: [print('x' * 1000) for _ in range(1000)] and 0)"
    command = f'set -o pipefail; "{sys.executable}" -c "{program}" | head -c 10'
    ended = subprocess.run(("bash", "-c", command), capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, ended.stdout) == (141, "", "x" * 10)
