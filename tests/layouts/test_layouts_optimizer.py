"""Optimizers on split state: fed the same gradients, every layout makes the same update; and what lies where."""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts.cases import CASES
from layouts.laws import HYPER, Layout, of
from model.small import params_of

from lm.errors import UserError
from lm.model.weights import flatten
from lm.optim.config import Adafactor, AdamW, OptimConfig
from lm.optim.optimizer import make_optimizer
from lm.train.build import build
from lm.train.placement import abstract_state, layout_of_update

OPTIMIZERS = {
    "adamw": OptimConfig(weight_decay=0.1, optimizer=AdamW()),
    "adafactor": OptimConfig(weight_decay=0.1, optimizer=Adafactor(smallest_factored=16)),
}
LAYOUTS = {
    "data_fsdp_tensor": of(data=2, fsdp=2, tensor=2, shard_optimizer=True, offload_optimizer=True),
    "data_stage": of(data=4, stage=2, shard_optimizer=True),
}
EVERYTHING = os.environ.get("LAYOUTS") == "all"
UPDATE = 1e-6  # of the leaf's largest entry


def parts_of(optim: str, layout: Layout, devices: int = 8):
    config = dataclasses.replace(layout.config("decoder"), optim=OPTIMIZERS[optim])
    return build(config, jax.devices()[:devices])


def updated(optim: str, layout: Layout, devices: int = 8) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Weights and optimizer state after two updates with gradients that depend on nothing but their number."""
    parts = parts_of(optim, layout, devices)
    model, mesh = parts.model, parts.mesh
    moves = layout_of_update(parts.config, model, mesh)
    optimizer = make_optimizer(parts.config.optim, model.abstract(), model.axes())
    state = abstract_state(parts.config, model, mesh)
    where = jax.tree.map(lambda x: x.sharding, (state.params, state.opt_state))

    def update(params, opt_state, gradients, step):
        split = moves.split(params)
        updates, opt_state = optimizer.update(
            moves.split(gradients), moves.to_device(opt_state), split, step=step, hyper=HYPER._replace(weight_decay=np.float32(0.1))
        )
        return moves.gather(jax.tree.map(jnp.add, split, updates)), moves.to_host(opt_state)

    params = jax.tree.map(lambda x, like: np.array(x).reshape(like.shape), params_of(CASES["decoder"].model), model.abstract())
    now = jax.device_put((params, jax.jit(optimizer.init)(params)), where)
    call = jax.jit(update, out_shardings=where, donate_argnums=(0, 1))
    for step in range(2):
        rng = np.random.default_rng(step)
        in_order = {path: rng.standard_normal(x.size, np.float32) for path, x in flatten(params).items()}
        gradients = jax.tree.map_with_path(lambda path, x, g=in_order: g["/".join(k.key for k in path)].reshape(x.shape), params)
        with jax.set_mesh(mesh):
            now = call(*now, gradients, np.int32(step))
    assert jax.tree.map(lambda x: x.sharding, now) == where
    return {path: np.asarray(x) for path, x in flatten(now[0]).items()}, [np.asarray(x) for x in jax.tree.leaves(now[1])]


@functools.cache
def alone(optim: str):
    return updated(optim, of(), devices=1)


# In stages the moments of AdamW lie as the gradients of the cover do, which are the state of its descent.
CASES_OF_UPDATES = [("adamw", "data_fsdp_tensor"), ("adafactor", "data_fsdp_tensor"), ("adafactor", "data_stage")]
if EVERYTHING:
    CASES_OF_UPDATES = [(optim, layout) for optim in OPTIMIZERS for layout in LAYOUTS]


@pytest.mark.parametrize(("optim", "layout"), CASES_OF_UPDATES)
def test_the_same_gradients_make_the_same_update(optim, layout):
    params, opt_state = alone(optim)
    found, found_state = updated(optim, LAYOUTS[layout])
    for path, w in params.items():
        assert np.abs(found[path].reshape(w.shape) - w).max() <= UPDATE * np.abs(w).max(), path
    for a, b in zip(found_state, opt_state, strict=True):
        assert np.abs(a.reshape(b.shape) - b).max() <= UPDATE * np.abs(b).max()


def test_state_on_the_host_comes_from_there_and_goes_back():
    parts = parts_of("adamw", LAYOUTS["data_fsdp_tensor"])
    state = abstract_state(parts.config, parts.model, parts.mesh)
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state) if x.ndim}
    assert kinds == {"pinned_host"}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(state.params)} <= {None, "device"}


def test_a_backend_without_host_memory_is_refused(monkeypatch):
    parts = parts_of("adamw", LAYOUTS["data_fsdp_tensor"])
    monkeypatch.setattr("lm.train.placement.HOST", "attic")
    with pytest.raises(UserError, match=r"execution\.offload_optimizer.*attic"):
        abstract_state(parts.config, parts.model, parts.mesh)
