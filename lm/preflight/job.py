"""A preflight in a child process: started, watched, ended in time (imports no jax)."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

from lm import config as config_lib
from lm.errors import UserError
from lm.preflight import wheels
from lm.preflight.topologies import Topology
from lm.train.config import RunConfig

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",  # what compiles is a CPU
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",  # the CUDA plugin looks for libraries that compiling does not need
    "TPU_SKIP_MDS_QUERY": "1",  # libtpu asks the cloud's metadata server where it is
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # libtpu locks the machine's TPUs, of which there are none
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
CHILD = ("-m", "lm.preflight.child")
POLL_SECONDS = 0.1
TAIL = 400  # characters of what a child said last

Say = Callable[[str], None]


class Request(NamedTuple):
    """A step to compile, for which hardware, and in what time."""

    config: RunConfig
    topology: Topology
    timeout: float  # seconds
    hlo: Optional[Path] = None  # where to write the compiled program's text


class Outcome(NamedTuple):
    """A result, or the line that says why there is none."""

    result: Optional[dict[str, Any]]
    error: Optional[str]


class Job:
    """One child process. `outcome()` is None until it ends; `stop()` ends it in any state and removes its files."""

    def __init__(self, request: Request):
        wheels.require(request.topology.kind)
        self.request, self.start = request, time.monotonic()
        self.folder = tempfile.TemporaryDirectory(prefix="preflight-")
        asked, self.result = self._path("request.json"), self._path("result.json")
        hlo = None if request.hlo is None else str(request.hlo)
        words = {"config": config_lib.to_dict(request.config), "topology": request.topology.text, "hlo": hlo}
        asked.write_text(json.dumps(words), encoding="utf-8")
        command = (sys.executable, *CHILD, str(asked), str(self.result))
        with self._path("out").open("wb") as out, self._path("err").open("wb") as err:
            self.process = subprocess.Popen(
                command, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
            )

    def _path(self, name: str) -> Path:
        return Path(self.folder.name) / name

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def stage(self) -> str:
        """Returns the child's present stage, in the words that it printed last."""
        lines = self._path("out").read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "starting"

    def outcome(self) -> Optional[Outcome]:
        status, timeout = self.process.poll(), self.request.timeout
        if status is None and self.seconds < timeout:
            return None
        if status is None:
            return Outcome(None, f"no result within --timeout={timeout:g} seconds, while {self.stage()}: raise it{self._tail()}")
        if self.result.is_file():
            answer = json.loads(self.result.read_text(encoding="utf-8"))
            return Outcome(None, answer["error"]) if "error" in answer else Outcome(answer, None)
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return Outcome(None, f"the compiler {how} after {self.seconds:.0f} s, while {self.stage()}{self._tail()}")

    def _tail(self) -> str:
        said = " ".join(self._path("err").read_text(encoding="utf-8", errors="replace").split())
        return f"; the end of what it said: {said[-TAIL:]}" if said else ""

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.folder.cleanup()


def run_all(requests: list[Request], *, at_once: int, say: Say, names: list[str]) -> Iterator[tuple[int, Outcome]]:
    """Yields (index, outcome) of every request as it ends, `at_once` at a time. Whatever ends this ends the children too."""
    waiting, running = list(range(len(requests))), dict[int, Job]()
    stages: dict[int, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                index = waiting.pop(0)
                running[index] = Job(requests[index])
            for index, job in list(running.items()):
                stage, outcome = job.stage(), job.outcome()
                if stage != stages.get(index):
                    stages[index] = stage
                    say(f"{names[index]}: {stage} ({job.seconds:.0f} s)")
                if outcome is not None:
                    running.pop(index).stop()
                    yield index, outcome
            time.sleep(POLL_SECONDS)
    finally:
        for job in running.values():
            job.stop()


def run_one(request: Request, say: Say) -> dict[str, Any]:
    """Returns the result of one request. Raises UserError when there is none."""
    for _, outcome in run_all([request], at_once=1, say=say, names=[request.topology.text]):
        if outcome.error is not None:
            raise UserError(outcome.error)
        assert outcome.result is not None
        return outcome.result
    raise AssertionError
