"""Every test runs on 8 virtual CPU devices; the summary says how many seconds each folder took."""

import collections
import os
import signal
from importlib.metadata import version

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Most of the time of the tests is XLA's. They prove what our code says, for which its older generator of loops, twice as quick, does too.
if version("jaxlib").startswith("0.10."):  # later ones have the new one alone, and end at flags that they do not know
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
# Eight virtual devices on two busy cores may come to a collective more than 40 s apart, after which XLA would end the process.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_collective_call_terminate_timeout_seconds=300".strip()

import jax
from jaxtyping import install_import_hook

from lm.platforms import threads

DEVICES = 8
jax.config.update("jax_num_cpu_devices", DEVICES)
with pytest.MonkeyPatch.context() as patch:  # of this process alone: those that tests start have devices of their own
    patch.setenv("PJRT_NPROC", str(threads(DEVICES)))
    jax.devices()
# A shell starts what it puts in the background with interrupts ignored, and the tests of Ctrl-C send some.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Functions of arrays, and not lm.types: JAX also builds pytrees of shapes, shardings and None.
CHECKED = ("lm.infer.sampling", "lm.losses", "lm.model.positions", "lm.scaling.laws.law", "lm.scaling.fits.objectives")
install_import_hook(CHECKED, "runtime_types.typechecked")


def pytest_terminal_summary(terminalreporter):
    seconds: dict[str, float] = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                folder = os.path.dirname(report.nodeid.split("::")[0])
                seconds[folder] += report.duration
    for folder, spent in sorted(seconds.items()):
        terminalreporter.write_line(f"{spent:7.1f} s  {folder}")


@pytest.fixture
def few_starts(monkeypatch):
    """Every 31st of the 4,500 starts, for tests that fit the law many times."""
    _thin(monkeypatch)


@pytest.fixture(scope="module")
def few_starts_in_module():
    with pytest.MonkeyPatch.context() as patch:
        _thin(patch)
        yield


def _thin(patch):
    from lm.scaling.laws.law import Chinchilla

    grid = Chinchilla.starts
    patch.setattr(Chinchilla, "starts", lambda self, centre: grid(self, centre)[::31])
