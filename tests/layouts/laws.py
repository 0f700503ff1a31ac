"""The laws of a layout: the loss, gradients and weights of a run's own step on a mesh of eight devices are those of one device."""

import dataclasses
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from layouts.cases import CASES
from model.small import params_of

from lm.mesh import MeshConfig
from lm.model.architectures import Model
from lm.model.weights import flatten
from lm.train import placement, program
from lm.train.build import build
from lm.train.config import ExecutionConfig, RunConfig
from lm.train.feed import to_device, wait_on_virtual_devices
from lm.types import Hyper, Params, TrainState

ROWS, STEPS, RATE = 8, 3, 0.02
LOSS, GRADIENT, WEIGHT = 1e-6, 1e-5, 1e-6  # relative; of the gradient's norm or the leaf's largest entry; of the leaf's largest entry
HYPER = Hyper(np.float32(RATE), np.float32(0.0), np.int32(0), np.int32(STEPS), np.uint32(0))


@dataclasses.dataclass(frozen=True)
class Layout:
    """The sizes of a mesh and the options of execution that a run's command adds."""

    mesh: MeshConfig
    execution: dict[str, Any] = dataclasses.field(default_factory=dict)

    def config(self, name: str) -> RunConfig:
        how = ExecutionConfig(**{"unroll": False, **self.execution})
        return dataclasses.replace(CASES[name].config, mesh=self.mesh, execution=how, batch_size=ROWS)


ONE = Layout(MeshConfig())


def of(**options: Any) -> Layout:
    """Sizes of mesh axes and options, told apart by name."""
    sizes = {field.name for field in dataclasses.fields(MeshConfig)}
    return Layout(
        MeshConfig(**{name: value for name, value in options.items() if name in sizes}),
        {name: value for name, value in options.items() if name not in sizes},
    )


def descent(*_: Any) -> optax.GradientTransformationExtraArgs:
    """Plain gradient descent whose state is the last gradient."""

    def update(gradients: Any, old: Any, params: Any = None, **_: Any):
        return jax.tree.map(lambda g: -RATE * g, gradients), gradients

    return optax.GradientTransformationExtraArgs(lambda params: jax.tree.map(jnp.zeros_like, params), update)


def lowered(config: RunConfig, model: Model, mesh: Any) -> program.Lowered:
    """lm.train.program.lower, with descent for the optimizer; initialisation is not looked at here, and not traced either."""

    def as_weights(config: Any, state: Any, params: Any, axes: Any, where: Any, elsewhere: Any) -> Any:
        return where

    def zeros(model: Model, key: Any) -> Any:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), model.abstract())

    with (
        mock.patch.object(Model, "init", zeros),
        mock.patch.object(program, "make_optimizer", descent),
        mock.patch.object(placement, "make_optimizer", descent),
        mock.patch.object(placement, "state_shardings", as_weights),
    ):
        return program.lower(config, model, mesh)


@dataclasses.dataclass(frozen=True)
class Found:
    losses: list[float]
    gradient: dict[str, np.ndarray]  # of the first step
    params: dict[str, np.ndarray]  # after the last


def run(name: str, layout: Layout, devices: int = 8) -> Found:
    """Three steps of the run's own compiled step."""
    parts = build(layout.config(name), jax.devices()[:devices])
    low = lowered(parts.config, parts.model, parts.mesh)
    with jax.set_mesh(parts.mesh):
        compiled = low.run.compile({"xla_backend_optimization_level": 0})
    start = to_layout(parts.model, params_of(CASES[name].model))
    now = TrainState(np.int32(0), start, jax.tree.map(np.zeros_like, start))
    now = jax.tree.map(lambda x, at: jax.device_put(np.array(x), at.sharding), now, low.state)
    where = jax.tree.map(lambda x: x.sharding, low.batches)
    everywhere = jax.NamedSharding(parts.mesh, jax.P())
    losses, gradient = [], {}
    for step in range(STEPS):
        block = to_device([CASES[name].batch(ROWS, seed=step)], 1, where)
        now, scalars, _ = wait_on_virtual_devices(parts.mesh, compiled(now, None, block, *jax.device_put((HYPER, np.int32(1)), everywhere)))
        losses.append(float(np.asarray(scalars)[0, low.scalars.index("loss")]))
        if step == 0:
            gradient = host(now.opt_state)
    return Found(losses, gradient, host(now.params))


def to_layout(model: Model, params: Params) -> Params:
    """Weights in the order of layers, as the model's stacks hold them: a pipeline's [repeats, stages, layers] is that order too."""
    return jax.tree.map(lambda x, like: np.reshape(x, like.shape), params, model.abstract())


def host(params: Params) -> dict[str, np.ndarray]:
    return {path: np.asarray(x, np.float64) for path, x in flatten(params).items()}


@functools.cache
def reference(name: str) -> Found:
    return run(name, ONE, devices=1)


def agree(found: Found, expected: Found) -> None:
    """Asserts that losses, the first gradient and the last weights are the same."""
    np.testing.assert_allclose(found.losses, expected.losses, rtol=LOSS, err_msg="loss")
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in expected.gradient.values()))
    for path, g in expected.gradient.items():
        worst = np.abs(found.gradient[path].reshape(g.shape) - g).max() / max(norm, np.abs(g).max())
        assert worst <= GRADIENT, f"gradient of {path}: {worst:.1e}"
    for path, w in expected.params.items():
        worst = np.abs(found.params[path].reshape(w.shape) - w).max() / np.abs(w).max()
        assert worst <= WEIGHT, f"weight {path}: {worst:.1e}"
