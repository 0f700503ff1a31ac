"""Places a run's weights and optimizer state: their shardings and memories between steps and during an update."""

import dataclasses
import functools
import math
from typing import Any, Optional, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.errors import UserError
from lm.optim.optimizer import make_optimizer, state_shardings
from lm.sharding import RULES, shardings
from lm.train import spikes
from lm.train.config import RunConfig
from lm.types import Inputs, Outputs, Params, TrainState

HOST = "pinned_host"  # JAX's name of the host's memory that a device reads directly


class Model(Protocol):
    """The part of lm.model.architectures.Model that training needs."""

    def init(self, key: jax.Array) -> Params: ...
    def abstract(self) -> Params: ...
    def axes(self) -> Params: ...
    def shardings(self, mesh: Mesh) -> Params: ...
    def apply(self, params: Params, inputs: Inputs, *, compute_dtype: Any) -> Outputs: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The moves of arrays around an update. Each field is a tree of NamedShardings, and None moves nothing.

    parts, weights   ZeRO-1 (Rajbhandari et al. 2020): gradients are added into `parts`, each device updates its part of the weights, and
                     these are gathered to lie as `weights` again
    device, host     optimizer state lies in the memory of the `host` and comes to the `device` for the update
    """

    parts: Optional[Params] = None
    weights: Optional[Params] = None
    device: Any = None
    host: Any = None

    def split(self, tree: Params) -> Params:
        """Splits gradients or weights into the parts that devices update."""
        return tree if self.parts is None else jax.lax.with_sharding_constraint(tree, self.parts)

    def gather(self, params: Params) -> Params:
        """Gathers weights so that they lie as the forward pass needs them."""
        return params if self.weights is None else jax.lax.with_sharding_constraint(params, self.weights)

    def to_device(self, opt_state: Any) -> Any:
        """Fetches optimizer state from the host's memory."""
        return opt_state if self.device is None else jax.device_put(opt_state, self.device)

    def to_host(self, opt_state: Any) -> Any:
        """Stores optimizer state in the host's memory."""
        return opt_state if self.host is None else jax.device_put(opt_state, self.host)


def layout_of_update(config: RunConfig, model: Model, mesh: Mesh) -> Layout:
    """Returns the layout of a configuration's updates; UserError where the devices have no such memory."""
    how, device, host = config.execution, None, None
    if how.offload_optimizer:
        device, host = _optimizer_shardings(config, model, mesh), _state_shardings(config, model, mesh)
    if not how.shard_optimizer:
        return Layout(device=device, host=host)
    return Layout(_moment_shardings(config, model, mesh), model.shardings(mesh), device, host)


def abstract_state(config: RunConfig, model: Model, mesh: Mesh) -> TrainState:
    """Returns shapes, dtypes and shardings of the state between steps.

    Moments lie where their weights lie, and counters on every device. With `execution.shard_optimizer` moments are split over `data` too;
    with `execution.offload_optimizer` they lie in the host's memory (UserError where the devices have none).
    """

    def place(x: Any, sharding: NamedSharding) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    params = jax.tree.map(place, model.abstract(), model.shardings(mesh))
    opt_state = jax.tree.map(place, _abstract_optimizer(config, model), _state_shardings(config, model, mesh))
    everywhere, judged = NamedSharding(mesh, PartitionSpec()), config.bad_steps
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    window = None if judged.spike is None else jax.eval_shape(functools.partial(spikes.empty, judged.window))
    return TrainState(step=step, params=params, opt_state=opt_state, spikes=jax.tree.map(lambda x: place(x, everywhere), window))


def on_one_device(tree: Any) -> int:
    """Returns the bytes that one device holds of a tree of abstract arrays with shardings, without padding of the device's layout."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _abstract_optimizer(config: RunConfig, model: Model) -> Any:
    return jax.eval_shape(make_optimizer(config.optim, model.abstract(), model.axes()).init, model.abstract())


def _moment_shardings(config: RunConfig, model: Model, mesh: Mesh) -> Params:
    """Returns the shardings of moments that have their weight's shape."""
    if not config.execution.shard_optimizer:
        return model.shardings(mesh)
    return shardings(model.axes(), mesh, RULES.optimizer(), abstract=model.abstract())


def _optimizer_shardings(config: RunConfig, model: Model, mesh: Mesh) -> Any:
    """Returns the shardings of optimizer state during an update."""
    everywhere, where = NamedSharding(mesh, PartitionSpec()), _moment_shardings(config, model, mesh)
    return state_shardings(config.optim, _abstract_optimizer(config, model), model.abstract(), model.axes(), where, everywhere)


def _state_shardings(config: RunConfig, model: Model, mesh: Mesh) -> Any:
    """Returns the shardings of optimizer state between updates. Counters stay on the device, where every update reads them."""
    placed = _optimizer_shardings(config, model, mesh)
    if not config.execution.offload_optimizer:
        return placed
    device = mesh.devices.flat[0]
    if HOST not in (memory.kind for memory in device.addressable_memories()):
        raise UserError(
            f"execution.offload_optimizer: {device.platform} devices have no memory of kind {HOST}:"
            " set --config.execution.offload_optimizer=false"
        )
    return jax.tree.map(lambda x, at: at.with_memory_kind(HOST) if x.ndim else at, _abstract_optimizer(config, model), placed)
