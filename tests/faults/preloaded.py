"""Runs a script of faults again under tests/faults/faulty.c, and lets parts of it meet faults or be killed."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]  # tests/ and the project


def run_again() -> None:
    """Builds the library of faults and starts this script again under it, unless it runs under it already."""
    os.environ |= {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    if "faulty.so" in os.environ.get("LD_PRELOAD", ""):
        return
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/faulty.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, str(HERE / "faulty.c"), "-ldl"], check=True)
        environment = os.environ | {"LD_PRELOAD": library, "PYTHONUNBUFFERED": "1"}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)


@contextlib.contextmanager
def faults(calls: str, path: str, *, skip: int = 0, limit: int = 1, errno: int = 0, signal: int = 0) -> Iterator[Callable[[], int]]:
    """Lets `limit` calls on such paths fail after `skip` that go through. Yields a function that counts the calls so far."""
    with tempfile.NamedTemporaryFile(dir=os.environ.get("TMPDIR", "/tmp"), prefix="calls-") as count:
        settings = {
            "CALLS": calls,
            "PATH": path,
            "SKIP": met() + skip,
            "LIMIT": limit,
            "ERRNO": errno,
            "SIGNAL": signal,
            "COUNT": count.name,
        }
        os.environ |= {f"FAULTY_{name}": str(value) for name, value in settings.items()}
        try:
            yield lambda: os.stat(count.name).st_size
        finally:
            os.environ["FAULTY_CALLS"] = ""
            _met[0] += os.stat(count.name).st_size


_met = [0]


def met() -> int:
    """Returns the calls that matched in this process so far: the library counts them from its start."""
    return _met[0]


def forked(action: Callable[[], None]) -> int:
    """Runs an action in a child, which is a copy of this process, and returns its exit status, negative for a signal.

    This process may have imported JAX, but not used it: its threads would be missing in the child.
    """
    child = os.fork()
    if not child:
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
