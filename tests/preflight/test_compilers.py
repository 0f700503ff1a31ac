"""`make preflight`: a small model of every family through the compilers of TPUs and GPUs that are not there."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.data.config import DataConfig
from lm.data.objectives.config import MaskedLM, NextToken, PrefixLM, SpanCorruption
from lm.mesh import MeshConfig
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.preflight.job import Request, run_all
from lm.preflight.topologies import parse
from lm.train.config import RunConfig

ROOT = Path(__file__).parent.parent.parent
TOPOLOGIES = ("tpu:v5e:2x2", "gpu:h100:1x4")
SIZES = {"vocab_size": 512, "d_model": 256, "num_layers": 2, "max_length": 256}
HEADS = AttentionConfig(num_heads=4, head_dim=64, documents="joined")
MODELS = {
    "decoder": (ModelConfig(**SIZES, attention=HEADS, mlp=MLPConfig(512)), NextToken()),
    "prefix_lm": (ModelConfig(**SIZES, architecture="prefix_lm", attention=HEADS, mlp=MLPConfig(512)), PrefixLM()),
    "encoder_decoder": (
        ModelConfig(**SIZES, architecture="encoder_decoder", attention=HEADS, mlp=MLPConfig(512), positions="relative"),
        SpanCorruption(sentinels=50),
    ),
    "encoder": (ModelConfig(**SIZES, architecture="encoder", attention=HEADS, mlp=MLPConfig(512)), MaskedLM(next_sentence=False)),
}
TIMEOUT = 600.0


def configuration(family):
    model, objective = MODELS[family]
    if family in ("encoder", "encoder_decoder"):
        model = dataclasses.replace(model, attention=dataclasses.replace(HEADS, documents="isolated"))
    data = DataConfig(sequence_length=256, objective=objective)
    return RunConfig(model=model, data=data, batch_size=8, compute_dtype="bfloat16", mesh=MeshConfig(fsdp=2, tensor=2))


@pytest.fixture(scope="module")
def results():
    """Compiles every family for every topology, two at a time."""
    names = [(family, topology) for family in MODELS for topology in TOPOLOGIES]
    requests = [Request(configuration(family), parse(topology), TIMEOUT) for family, topology in names]
    outcomes = dict(run_all(requests, at_once=2, say=print, names=[" ".join(name) for name in names]))
    return {names[index]: outcome for index, outcome in outcomes.items()}


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("family", MODELS)
def test_every_family_compiles_and_the_numbers_are_sane(results, family, topology):
    outcome = results[family, topology]
    assert outcome.error is None
    result = outcome.result
    assert result["fits"] is True
    assert (result["devices"], result["mesh"]) == (4, {"fsdp": 2, "tensor": 2})
    sizes, state = result["bytes_per_device"], result["state_bytes"]
    whole = state["parameters"] + state["optimizer"] + 4  # and the step's number
    if topology.startswith("gpu"):
        assert sizes["aliased"] == whole  # donated: the state comes in and goes out in the same bytes
    else:  # a TPU pads the last two dimensions to tiles of 8 x 128
        assert whole <= sizes["aliased"] < 1.1 * whole
    assert sizes["arguments"] >= sizes["aliased"]
    assert sizes["total"] == sizes["arguments"] + sizes["outputs"] - sizes["aliased"] + sizes["temporaries"] + sizes["code"]
    flops = result["flops_per_device"]
    # every product of the ledger, in forward and backward pass; a kernel recomputes attention's weights and passes over hidden pairs
    assert 0.85 * flops["matmul_causal"] < flops["compiled"] < 1.25 * flops["matmul_full"]
    along = {axis for collective in result["collectives"] for axis in collective["axes"]}
    assert along == {"fsdp", "tensor"}
    assert all(collective["bytes"] > 0 and collective["sent"] > 0 for collective in result["collectives"])
    times = result["estimate"]
    assert times["step_seconds"] == max(times[f"{name}_seconds"] for name in ("compute", "memory", "network")) > 0
    assert 0 < times["mfu_bound"]["matmul_causal"] <= times["mfu_bound"]["matmul_full"] < 1.1
    assert "optimal_seconds" not in json.dumps(result)


def test_masks_and_devices_choose_the_kernels(results):
    kernels = {name: outcome.result["attention"] for name, outcome in results.items()}
    assert kernels["decoder", "tpu:v5e:2x2"] == "splash"
    assert kernels["decoder", "gpu:h100:1x4"] == "cudnn"


DEVICES = {"tpu:v4:2x2x1": 4, "tpu:v5p:2x2x1": 4, "tpu:v6e:2x2": 4, "tpu:tpu7x:2x2x1": 8, "gpu:b200:1x2": 2}


@pytest.mark.parametrize("topology", DEVICES)
def test_every_other_device_compiles_a_decoder(topology):
    whole = dataclasses.replace(configuration("decoder"), mesh=MeshConfig(data=1, fsdp=DEVICES[topology]))
    ((_, outcome),) = run_all([Request(whole, parse(topology), TIMEOUT)], at_once=1, say=print, names=[topology])
    assert outcome.error is None
    result = outcome.result
    assert result["fits"] is True
    assert (result["devices"], result["mesh"]) == (DEVICES[topology], {"fsdp": DEVICES[topology]})
    assert 0 < result["bytes_per_device"]["peak"] < 1e9
    flops = result["flops_per_device"]
    assert 0.85 * flops["matmul_causal"] < flops["compiled"] < 1.25 * flops["matmul_full"]
    assert result["estimate"]["step_seconds"] > 0


def preflight(*words, environment=None):
    command = (sys.executable, "-m", "lm.preflight", *words)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment or dict(os.environ), timeout=TIMEOUT)


@pytest.mark.parametrize(("remat", "times"), [("none", 1), ("dots", 1), ("full", 2)])
def test_cudnns_forward_pass_runs_again_only_where_nothing_is_kept(tmp_path, remat, times):
    options = (f"execution.remat={remat}", "execution.unroll=false", "execution.attention=cudnn", "compute_dtype=bfloat16")
    flags = [f"--config.{option}" for option in (*options, "model.attention.documents=joined")]
    ended = preflight("--config=configs/decoder.py:tiny", "--topology=gpu:h100:1x1", *flags, f"--hlo={tmp_path / 'hlo'}")
    assert ended.returncode == 0, ended.stderr
    program = (tmp_path / "hlo").read_text()
    assert (program.count('"__cudnn$fmhaSoftmax"'), program.count('"__cudnn$fmhaSoftmaxBackward"')) == (times, 1)


def test_packed_documents_take_the_fused_kernel_on_gpus(tmp_path):
    """Its forward pass runs again in the backward one, and no array has a query and a key for its last two axes."""
    options = ("execution.unroll=false", "execution.attention=cudnn", "compute_dtype=bfloat16", "data.sequence_length=1024")
    flags = [
        f"--config.{option}" for option in (*options, "model.max_length=1024", "model.vocab_size=260", "model.attention.documents=isolated")
    ]
    where = ("--topology=gpu:h100:1x2", "--config.mesh.tensor=2", f"--hlo={tmp_path / 'hlo'}", f"--out={tmp_path / 'result'}")
    ended = preflight("--config=configs/decoder.py:tiny", *where, *flags)
    assert ended.returncode == 0, ended.stderr
    program = (tmp_path / "hlo").read_text()
    assert (program.count('"__cudnn$fmhaSoftmax"'), program.count('"__cudnn$fmhaSoftmaxBackward"')) == (2, 1)
    assert "1024,1024]" not in program
    flops = json.loads((tmp_path / "result").read_text())["flops_per_device"]
    assert flops["matmul_causal"] < flops["compiled"] < 1.3 * flops["matmul_causal"]


def test_two_commands_at_once_both_succeed():
    command = (sys.executable, "-m", "lm.preflight", "--config=configs/decoder.py:tiny", "--topology=tpu:v5e:2x2")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen((*command, "--config.mesh.fsdp=4"), cwd=ROOT, **streams) for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, err
        assert json.loads(out)["fits"] is True


def test_what_does_not_fit_is_a_result():
    ended = preflight("--config=configs/decoder.py:8b", "--topology=tpu:v5e:2x2", "--config.mesh.fsdp=4")
    assert ended.returncode == 1
    result = json.loads(ended.stdout)
    assert result["fits"] is False
    assert result["bytes_per_device"]["needed"] > result["bytes_per_device"]["memory"]
    assert "RESOURCE_EXHAUSTED" in result["compiler_said"]
    assert "does not fit" in ended.stderr.splitlines()[-1]


def test_a_mesh_that_does_not_divide_is_one_line():
    ended = preflight("--config=configs/decoder.py:tiny", "--topology=gpu:h200:1x8", "--config.mesh.fsdp=3")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith("error: mesh ")


def test_searches_rank_what_fits():
    words = ("--config=configs/decoder.py:tiny", "--topology=tpu:v5e:2x2", "--search", "--most=2", "--config.batch_size=32")
    ended = preflight(*words)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["compiled"] == len(found["candidates"]) == 2
    times = [candidate["result"]["estimate"]["step_seconds"] for candidate in found["candidates"]]
    assert times == sorted(times)


@pytest.mark.parametrize("code", ["import lm.runner, jax; jax.devices()", "import jax, lm.runner; jax.devices()"])
def test_ordinary_commands_stay_silent(code):
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TPU_", "TF_"))}
    ended = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, env=quiet, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_dry_run_stays_silent():
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TPU_", "TF_"))}
    command = (sys.executable, "-m", "lm.run", "--config=configs/decoder.py:tiny", "--dry_run")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_time_limit_holds():
    start = time.monotonic()
    words = ("--config=configs/decoder.py:8b", "--config.mesh.fsdp=64", "--config.execution.remat=full")  # which takes half a minute
    ended = preflight(*words, "--topology=tpu:v5p:4x4x4", "--timeout=6")
    assert ended.returncode == 2
    assert "no result within --timeout=6 seconds" in ended.stderr.splitlines()[-1]
    assert time.monotonic() - start < 30
