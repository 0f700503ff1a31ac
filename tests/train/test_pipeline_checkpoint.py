"""Checkpoints know no pipelines: layers lie in their order on disk, and a run stops on one mesh and goes on on another."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from lm import runner
from lm.config import apply_overrides
from lm.describe import describe
from lm.evals.__main__ import evaluate_loss
from lm.train import checkpoint, metrics, sealed
from lm.train.build import build, execution_of
from lm.train.config import RunConfig
from lm.train.layer_order import layer_order
from lm.train.placement import abstract_state
from tests.small_run import on_devices, streams_that_break, text_files

STEPS, ROWS, LENGTH, SAVED = 5, 16, 16, 3
COMMON = [
    f"data.sequence_length={LENGTH}", f"train_tokens={STEPS * ROWS * LENGTH}", f"batch_size={ROWS}",
    "evaluation.documents_bytes=300", "evaluation.curve_bytes=200", "evaluation.points_per_decade=1", "evaluation.stride=8",
    "log.tensorboard=false", "log.every_steps=1", "log.layer_norms=true", f"checkpoint.every_steps={SAVED}",
    "model.d_model=16", "model.num_layers=4",
    "model.attention.num_heads=2", "model.attention.head_dim=8", "model.mlp.d_ff=16", "optim.learning_rate=2e-2",
    "execution.unroll=false",
    "model.vocab_size=259",
    "optim.optimizer=adafactor", "optim.optimizer.smallest_factored=8",
]  # fmt: skip
PIPELINE = ["mesh.stage=2", "mesh.fsdp=2", "execution.pipeline_repeats=2", "execution.pipeline_micro_batches=4"]


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """One run on two meshes: on one device, and in a pipeline with fsdp on four."""
    text = text_files(tmp_path_factory.mktemp("pipelines"), documents=20, lines=50)
    plain = apply_overrides(RunConfig(), [*text, *COMMON])
    return {"plain": plain, "pipeline": apply_overrides(plain, PIPELINE)}


DEVICES = {"plain": 1, "pipeline": 4}


def trained(name, configs, workdir):
    with on_devices(DEVICES[name]):
        return runner.train_run(configs[name], workdir)


@pytest.fixture(scope="module")
def straight(configs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, trained("plain", configs, workdir)


def arrays(workdir):
    """Shapes and dtypes of the newest checkpoint by name."""
    meta = json.loads((max((workdir / sealed.FOLDER).iterdir()) / "meta.json").read_text())
    return meta["arrays"]


def close(found, expected):
    for name in expected:
        a, b = np.asarray(found[name], np.float64), np.asarray(expected[name], np.float64)
        assert np.max(np.abs(a - b)) <= 1e-4 * max(np.max(np.abs(b)), 1e-6), name


@pytest.mark.parametrize(("first", "then"), [("pipeline", "plain"), ("plain", "pipeline")])
def test_a_run_goes_on_on_another_mesh_as_if_it_had_never_stopped(first, then, configs, straight, tmp_path):
    folder, expected = straight
    with streams_that_break(at=SAVED + 1), pytest.raises(OSError, match="gone"):
        trained(first, configs, tmp_path)
    assert checkpoint.steps(tmp_path) == [SAVED]
    assert arrays(tmp_path) == arrays(folder)
    found = trained(then, configs, tmp_path)
    assert (found["status"], found["resumes"][0]["step"], found["id"]) == ("completed", SAVED, expected["id"])
    assert found["final"]["nats"] == pytest.approx(expected["final"]["nats"], rel=1e-5)
    parts = build(configs["plain"], jax.devices()[:1])
    target = abstract_state(configs["plain"], parts.model, parts.mesh)
    close(*(checkpoint.named_arrays(checkpoint.restore(place, target).state) for place in (tmp_path, folder)))
    for a, b in zip(metrics.read(tmp_path), metrics.read(folder), strict=True):  # norms are vectors in the order of layers
        for name in b:
            if name.startswith(("gradients/", "loss")):
                np.testing.assert_allclose(a[name], b[name], rtol=2e-3, atol=1e-5, err_msg=name)
    assert ("pipeline_bubble" in found["environment"]) == (then == "pipeline")
    again = evaluate_loss(tmp_path)
    assert again["nats"] == pytest.approx(found["final"]["nats"], rel=1e-5)


def test_a_dry_run_says_how_long_stages_idle(configs):
    assert "11.1% of 9 ticks" in describe(build(configs["pipeline"]))
    more = dataclasses.replace(configs["pipeline"].execution, pipeline_micro_batches=8)
    assert execution_of(more, build(configs["pipeline"]).mesh).pipeline.bubble == 1 / 17


T5 = ["model.architecture=encoder_decoder", "data.objective=span_corruption", "model.vocab_size=272", "model.encoder_layers=8"]


@pytest.mark.parametrize("optimizer", [[], ["optim.optimizer=adamw", "execution.shard_optimizer=true"]], ids=["adafactor", "adamw"])
def test_the_stored_form_is_the_state_of_a_run_without_a_pipeline(optimizer, configs):
    def state_of(changes):
        config = apply_overrides(configs["plain"], [*T5, *optimizer[:1], *changes])
        parts = build(config)
        return abstract_state(config, parts.model, parts.mesh), parts.model.axes()

    expected, _ = state_of([])
    found = layer_order(*state_of([*PIPELINE, *optimizer[1:]])).stored
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), jax.tree_util.keystr(path)
        if "block_00" in jax.tree_util.keystr(path):  # and each device holds what its stage has of it
            assert a.sharding.shard_shape(a.shape)[0] == a.shape[0] // 2, jax.tree_util.keystr(path)
