"""The compiled functions of a run, shared by all runs of one shape.

The shape of a run is the part of its configuration that its compiled code depends on (`lm.train.derived.shape_of`). Peak learning rate,
weight decay, warm-up, horizon and seed are no part of it: they are `Hyper`, an argument. So a study compiles once per shape.

`lower` puts the training step (lm.train.step), which computes the gradient, into a loop over several steps.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.losses import LossFn, pretraining
from lm.optim.optimizer import make_optimizer
from lm.train import spikes
from lm.train.config import RunConfig
from lm.train.derived import row_of
from lm.train.feed import abstract_batch
from lm.train.layer_order import LayerOrder, layer_order
from lm.train.placement import Model, abstract_state, layout_of_update
from lm.train.step import Step, make_step
from lm.types import Batch, Hyper, TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The compiled functions of one shape of run, made by `compile_program`. K is `config.execution.steps_per_dispatch`.

    `init(seed)` -> state, born in its shards. `run(state, frozen, batches, hyper, count)` -> (state, scalars [K, metrics], vectors) takes
    `count` <= K steps on batches with a leading axis K, donating the state; rows of its results past `count` are zero.
    """

    config: RunConfig
    mesh: Mesh
    abstract: TrainState  # shapes, dtypes and shardings
    layers: LayerOrder  # the state's form in checkpoints
    batch_shardings: Batch
    init: Callable[[jax.Array], TrainState]
    run: Callable[..., tuple[TrainState, jax.Array, dict[str, jax.Array]]]
    scalars: tuple[str, ...]  # names of the columns of the scalars
    flops_per_step: Optional[float]  # XLA's own count
    compile_seconds: float
    on: Callable[[Mesh], "Program"]  # compiles the same functions for other devices


class Lowered(NamedTuple):
    """A run's functions, lowered for its mesh: `lm.run` compiles and runs them, `lm.preflight` only compiles them."""

    init: Any
    run: Any
    state: TrainState  # abstract, with shardings
    batches: Batch  # the same, of `steps_per_dispatch` steps
    scalars: tuple[str, ...]


def compiler_options(mesh: Mesh) -> Optional[dict[str, Any]]:
    """Returns XLA's options for this mesh's devices; None where its defaults serve.

    On a CPU it is LLVM's level 2, unless XLA_FLAGS name a level: code of level 3 takes 15-20% longer to run and 20-60% longer to compile
    (decoders of width 16 to 64).
    """
    level = "xla_backend_optimization_level"
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return {level: 2} if is_cpu and level not in os.environ.get("XLA_FLAGS", "") else None


def compile_program(config: RunConfig, model: Model, mesh: Mesh, *, loss_fn: Optional[LossFn] = None, frozen: Any = None) -> Program:
    """Compiles initialisation and step of one shape of run; the arguments are those of `lower`."""
    start = time.monotonic()
    lowered = lower(config, model, mesh, loss_fn=loss_fn, frozen=frozen)
    with jax.set_mesh(mesh):
        init, run = lowered.init.compile(compiler_options(mesh)), lowered.run.compile(compiler_options(mesh))
    return Program(
        config=config,
        mesh=mesh,
        abstract=lowered.state,
        layers=layer_order(lowered.state, model.axes()),
        batch_shardings=jax.tree.map(lambda x: x.sharding, lowered.batches),
        init=init,
        run=run,
        scalars=lowered.scalars,
        flops_per_step=_flops(run),
        compile_seconds=time.monotonic() - start,
        on=lambda other: compile_program(config, model, other, loss_fn=loss_fn, frozen=frozen),
    )


def lower(config: RunConfig, model: Model, mesh: Mesh, *, loss_fn: Optional[LossFn] = None, frozen: Any = None) -> Lowered:
    """Traces and lowers the functions of one shape of run.

    Args:
      config: a configuration that fits the mesh (lm.train.build checks that).
      model: the model of the configuration.
      mesh: the mesh; its devices may be descriptions of ones that are not there.
      loss_fn: the loss to minimise (default: the cross-entropy of pre-training).
      frozen: arrays, or abstract ones, that `loss_fn` gets beside the parameters and no gradient is taken of; pre-training has none.
    """
    axes = model.axes()
    optimizer = make_optimizer(config.optim, model.abstract(), axes)
    step = make_step(
        loss_fn or _pretraining(config, model),
        optimizer,
        config.optim.schedule,
        micro_batches=config.execution.micro_batches,
        layer_norms=axes if config.log.layer_norms else None,
        layout=layout_of_update(config, model, mesh),
        spike=config.bad_steps.spike,
    )

    def init(seed: jax.Array) -> TrainState:
        params = model.init(jax.random.key(seed))
        window = None if config.bad_steps.spike is None else spikes.empty(config.bad_steps.window)
        return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params), spikes=window)

    state = abstract_state(config, model, mesh)
    batches = abstract_batch(row_of(config), (config.execution.steps_per_dispatch, config.batch_size), mesh)
    replicated = NamedSharding(mesh, PartitionSpec())
    scalar: Any = functools.partial(jax.ShapeDtypeStruct, (), sharding=replicated)
    hyper = Hyper(scalar(jnp.float32), scalar(jnp.float32), scalar(jnp.int32), scalar(jnp.int32), scalar(jnp.uint32))
    with jax.set_mesh(mesh):
        # The step is traced once, for its shapes and as the body of the loop; there its inputs are of the mesh, too.
        step = jax.jit(step, inline=True)
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype, sharding=replicated), batches)
        metrics = jax.eval_shape(step, state, frozen, batch, hyper)[1]
        scalars = tuple(name for name, value in metrics.items() if value.ndim == 0)
        state_at = jax.tree.map(lambda x: x.sharding, state)
        results_at = (state_at, replicated, dict.fromkeys((name for name in metrics if name not in scalars), replicated))
        several = _several_steps(step, metrics, scalars, config.execution.steps_per_dispatch)
        return Lowered(
            init=jax.jit(init, out_shardings=state_at).lower(scalar(jnp.uint32)),
            run=jax.jit(several, donate_argnums=0, out_shardings=results_at).lower(state, frozen, batches, hyper, scalar(jnp.int32)),
            state=state,
            batches=batches,
            scalars=scalars,
        )


def _several_steps(step: Step, metrics: dict[str, Any], scalars: tuple[str, ...], most: int) -> Callable:
    """Returns a loop over at most `most` steps, whose number is an argument: every step runs the same code, however they are grouped.

    That makes a run's results independent of where evaluations and checkpoints cut it, bit for bit.
    """

    def several(state: TrainState, frozen: Any, batches: Batch, hyper: Hyper, count: jax.Array):
        def body(i, carry):
            state, rows, vectors = carry
            batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), batches)
            state, found = step(state, frozen, batch, hyper)
            row = jnp.stack([found[name].astype(jnp.float32) for name in scalars])
            vectors = {name: old.at[i].set(found[name]) for name, old in vectors.items()}
            return state, rows.at[i].set(row), vectors

        vectors = {name: jnp.zeros((most, *m.shape), m.dtype) for name, m in metrics.items() if name not in scalars}
        start = (state, jnp.zeros((most, len(scalars)), jnp.float32), vectors)
        return jax.lax.fori_loop(0, count, body, start)

    return several


def _pretraining(config: RunConfig, model: Model) -> LossFn:
    """Returns the cross-entropy of pre-training with the configuration's options."""
    dtype = jnp.dtype(config.compute_dtype)
    return pretraining(model.apply, compute_dtype=dtype, z_loss=config.z_loss, label_smoothing=config.label_smoothing)


def _flops(compiled: Any) -> Optional[float]:
    """Returns XLA's FLOPs of the compiled loop, whose body it counts once; None where a backend does not say."""
    try:
        analysis = compiled.cost_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    analysis = analysis[0] if isinstance(analysis, list) and analysis else analysis
    flops = (analysis or {}).get("flops", 0.0)
    return float(flops) if flops > 0 else None
