"""How commands end: one line, a status, nothing when a reader has had enough."""

import subprocess
import sys

import pytest

SCRIPT = "from lm.errors import UserError, run_cli\ndef main():\n    {body}\nrun_cli(main)"


def run(body: str, shell: str = "") -> subprocess.CompletedProcess:
    command = f'"{sys.executable}" -c "$SCRIPT"{shell}'
    environment = {"SCRIPT": SCRIPT.format(body=body), "PATH": "/usr/bin:/bin"}
    return subprocess.run(("bash", "-c", f"set -o pipefail; {command}"), env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("raise UserError('wrong;\\n  mend it')", 2, "error: wrong; mend it\n"),
        ("open('/nowhere/at/all')", 2, "error: No such file or directory: /nowhere/at/all\n"),
        ("raise KeyboardInterrupt", 130, "\ninterrupted; the same command continues from what is on disk\n"),
        ("return 1", 1, ""),
    ],
)
def test_one_line_and_a_status(body, status, said):
    ended = run(body)
    assert (ended.returncode, ended.stderr) == (status, said)


def test_a_closed_pipe_is_silent():
    ended = run("[print('x' * 1000) for _ in range(1000)]", shell=" | head -c 10")
    assert (ended.returncode, ended.stderr, ended.stdout) == (141, "", "x" * 10)
