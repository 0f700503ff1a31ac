"""Commands end with one line and a status, and silently when the reader of their output has closed it."""

import subprocess
import sys
from pathlib import Path

import pytest

from lm.errors import UserError, run_cli


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


def test_a_closed_pipe_is_silent():
    program = "from lm.errors import run_cli\nrun_cli(lambda: [print('x' * 1000) for _ in range(1000)] and 0)"
    command = f'set -o pipefail; "{sys.executable}" -c "{program}" | head -c 10'
    ended = subprocess.run(("bash", "-c", command), capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, ended.stdout) == (141, "", "x" * 10)
