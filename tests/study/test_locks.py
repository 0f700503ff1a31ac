"""Claims: one holder at a time, and none after its process is gone."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from lm import files
from lm.study import locks

CELLS = [f"cell{i:02d}" for i in range(40)]


@pytest.fixture
def root(tmp_path):
    for cell in CELLS:
        (tmp_path / "cells" / cell).mkdir(parents=True)
    return tmp_path


def _forge(root, cell, **changes):
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "born": "0", "time": time.time()}
    locks.claim_path(root, cell).write_text(json.dumps(owner | changes), encoding="utf-8")


def test_processes_that_race_share_the_cells_out(root):
    code = (
        "import sys, pathlib; from lm.study import locks; root = pathlib.Path(sys.argv[1]); sys.stdin.read(1)\n"
        "print(*[c for c in sys.argv[2:] if locks.claim(root, c)], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(root), *CELLS]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        racer.stdin.write("go")
        racer.stdin.flush()
    taken = [racer.stdout.readline().split() for racer in racers]
    assert sorted(cell for cells in taken for cell in cells) == CELLS
    assert not locks.claim(root, CELLS[0])  # all racers are alive still
    for racer in racers:
        racer.kill()
        racer.wait()
        racer.stdin.close()
        racer.stdout.close()
    assert locks.clear_stale(root, CELLS) == len(CELLS)
    assert locks.claim(root, CELLS[0])


def test_a_claim_is_given_back(root):
    assert locks.claim(root, "cell00")
    assert not locks.claim(root, "cell00")
    locks.release(root, "cell00")
    assert locks.claim(root, "cell00")


def test_a_claim_that_another_took_over_is_not_given_back(root):
    assert locks.claim(root, "cell00")
    _forge(root, "cell00", host="elsewhere.example")
    locks.release(root, "cell00")
    assert not locks.claim(root, "cell00")


def test_a_process_number_used_again_is_another_process(root):
    _forge(root, "cell00")
    assert locks.holder(locks.claim_path(root, "cell00")) is None
    assert locks.claim(root, "cell00")


def test_a_torn_claim_is_stale(root):
    locks.claim_path(root, "cell00").write_text('{"pid": 12', encoding="utf-8")
    assert locks.claim(root, "cell00")


def test_another_host_is_believed_while_its_heart_beats(root):
    _forge(root, "cell00", host="elsewhere.example")
    assert not locks.claim(root, "cell00")
    old = time.time() - locks.STALE_SECONDS - 1
    os.utime(locks.claim_path(root, "cell00"), (old, old))
    assert locks.claim(root, "cell00")


@pytest.mark.parametrize(("status", "free"), [("running", True), ("completed", False), ("diverged", False), ("failed", False)])
def test_what_is_finished_is_never_claimed_again(root, status, free):
    files.write_json(root / "cells" / "cell00" / "run.json", {"status": status})
    assert locks.claim(root, "cell00") is free
