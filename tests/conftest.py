"""Every test runs on 8 virtual CPU devices; the summary says how many seconds each folder took."""

import collections
import gc
import os
import shutil
import signal
import sys
import tempfile
from importlib.metadata import version

import pytest

# Byte code is kept whatever the environment says: without it, every process of a run compiles all tests and modules, which takes 5 s.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Matrices are small: on busy cores, further threads of BLAS take most of their time to wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
_FLAGS = [
    os.environ.get("XLA_FLAGS", ""),
    # Tests run each program a few times: compiling it well takes longer than what it saves. (The solver of fits sets its own level.)
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",  # programs are small: to compile them in parts takes a sixth longer
    # Eight virtual devices on two busy cores may come to a collective more than 40 s apart, after which XLA would end the process.
    "--xla_cpu_collective_call_terminate_timeout_seconds=300",
]
if version("jaxlib").startswith("0.10."):  # later ones have the new generator of loops alone, and end at flags that they do not know
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # the older one takes half the time
os.environ["XLA_FLAGS"] = " ".join(filter(None, _FLAGS))
# Processes of one test run share a cache of compiled programs: pytest's own, and those that tests start.
_CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = tempfile.mkdtemp(prefix="lm-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from jaxtyping import install_import_hook

DEVICES = 8
# Functions of arrays, and not lm.types: JAX also builds pytrees of shapes, shardings and None.
CHECKED = ("lm.infer.sampling", "lm.losses", "lm.model.positions", "lm.scaling.laws.law", "lm.scaling.fits.objectives")
install_import_hook(CHECKED, "runtime_types.typechecked")


def pytest_configure(config):
    if getattr(config.option, "tx", None) and not hasattr(config, "workerinput"):
        return  # the process that hands out tests runs none: it does without JAX, and its workers begin earlier
    import jax

    from lm.platforms import threads

    jax.config.update("jax_num_cpu_devices", DEVICES)
    with pytest.MonkeyPatch.context() as patch:  # of this process alone: those that tests start have devices of their own
        patch.setenv("PJRT_NPROC", str(threads(DEVICES)))
        jax.devices()
    # A shell starts what it puts in the background with interrupts ignored, and the tests of Ctrl-C send some.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The files that take longest (5 to 20 s of processor time), longest first: a worker that starts one late works on alone at the end.
LONGEST = (
    "hosts/test_hosts_meshes.py", "test_runner_families.py", "layouts/test_layouts_encoder_decoder.py", "layouts/test_layouts_encoder.py",
    "model/test_tasks.py", "layouts/test_layouts_decoder.py", "hosts/test_hosts.py", "train/test_pipeline_checkpoint.py",
    "report/test_report.py", "layouts/test_layouts_prefix_lm.py", "scaling/test_mixtures.py", "model/test_attention_ring.py",
    "scaling/test_fit.py", "hf/test_golden.py", "infer/test_decode_families.py", "hf/test_imported_runs.py", "scaling/test_laws.py",
    "test_experiments.py", "scaling/test_parametric.py", "scaling/test_curve_fit.py", "scaling/test_multiplier.py", "scaling/test_chain.py",
    "test_runner.py", "model/test_execution.py", "model/test_pipeline_stages.py", "model/test_attention_blockwise.py", "test_launch.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {f"tests/{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.split("::")[0], len(place)))


def pytest_collection_finish():
    # Tracing allocates much that lives on: to look through all of it, time and again, takes a twelfth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def pytest_unconfigure():
    if _CACHE is not None:  # in the process that made it: the others found its name in the environment
        shutil.rmtree(_CACHE, ignore_errors=True)


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


@pytest.fixture
def nine_starts(monkeypatch):
    """Every 500th of the starts: nine, for tests that count over many studies."""
    _thin(monkeypatch, 500)


def _thin(patch, step=31):
    from lm.scaling.laws.law import Chinchilla

    grid = Chinchilla.starts
    patch.setattr(Chinchilla, "starts", lambda self, centre: grid(self, centre)[::step])
