"""The compiled functions of a run, shared by all runs of one shape.

Runs differ in peak learning rate, weight decay, warm-up, horizon and seed through `Hyper`, an argument. So a study compiles once per
shape, and `shape_of` says which configurations have one.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.data.config import DataConfig
from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.losses import LossFn, pretraining
from lm.optim.optimizer import make_optimizer
from lm.optim.schedules import warmup_steps
from lm.rows import RowShape
from lm.train.config import CheckpointConfig, EvalConfig, LogConfig, RunConfig
from lm.train.feed import abstract_batch
from lm.train.layer_order import LayerOrder, layer_order
from lm.train.mesh_fit import check_mesh_fit
from lm.train.placement import Model, abstract_state, layout_of_update
from lm.train.step import Step, make_step
from lm.types import Batch, Hyper, TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What `compile_program` makes of a configuration. K is `config.execution.steps_per_dispatch`.

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


class Lowered(NamedTuple):
    """A run's functions, lowered for its mesh: what `lm.run` compiles and runs, and `lm.preflight` compiles only."""

    init: Any
    run: Any
    state: TrainState  # abstract, with shardings
    batches: Batch  # the same, of `steps_per_dispatch` steps
    scalars: tuple[str, ...]


def compiler_options(mesh: Mesh) -> Optional[dict[str, Any]]:
    """On CPU, LLVM's level 2: code of level 3 takes 15-20% longer to run and 20-60% longer to compile (decoders of width 16 to 64)."""
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 2} if is_cpu else None


def row_of(config: RunConfig) -> RowShape:
    """The places in one of the run's rows; UserError for an objective that cannot train the architecture."""
    return row_shape(config.data, config.model.architecture)


def tokens_per_step(config: RunConfig) -> int:
    """Tokens of text that a step consumes (D counts these), with the padding of padded rows."""
    return config.batch_size * row_of(config).text


def total_steps(config: RunConfig) -> int:
    """Whole steps in the token budget; UserError when there is none."""
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: give 1 or more")
    steps = config.train_tokens // tokens_per_step(config)
    if steps < 1:
        per_step = tokens_per_step(config)
        raise UserError(f"train_tokens={config.train_tokens:,} holds no step of {per_step:,} tokens: raise it, or lower batch_size")
    return steps


def hyper_of(config: RunConfig) -> Hyper:
    """The run's scalars, as numpy values of the step's types."""
    steps = total_steps(config)
    warmup = warmup_steps(config.optim.warmup_fraction, config.optim.warmup_tokens, steps, tokens_per_step(config))
    return Hyper(
        learning_rate=np.float32(config.optim.learning_rate),
        weight_decay=np.float32(config.optim.weight_decay),
        warmup_steps=np.int32(warmup),
        total_steps=np.int32(steps),
        seed=np.uint32(config.seed),
    )


def shape_of(config: RunConfig) -> RunConfig:
    """`config` without what the executable does not depend on: two configurations of equal shape share a Program."""
    return dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, learning_rate=0.0, weight_decay=0.0, warmup_fraction=0.0, warmup_tokens=None),
        evaluation=EvalConfig(),
        log=LogConfig(layer_norms=config.log.layer_norms),
        checkpoint=CheckpointConfig(),
        data=layout_of(config.data),
        train_tokens=0,
        seed=0,
        data_dir="",
    )


def layout_of(data: DataConfig) -> DataConfig:
    """What of a data configuration decides the shape of its rows; whole documents' rows are packed, or not, in one shape."""
    packing = data.objective.packing or "concatenate"
    return DataConfig(sequence_length=data.sequence_length, packing=packing, objective=data.objective)


def compile_program(config: RunConfig, model: Model, mesh: Mesh, *, loss_fn: Optional[LossFn] = None, frozen: Any = None) -> Program:
    """Compiles initialisation and step for one shape of run; see `lower`."""
    start = time.monotonic()
    lowered = lower(config, model, mesh, loss_fn=loss_fn, frozen=frozen)
    with jax.set_mesh(mesh):
        make, run = lowered.init.compile(compiler_options(mesh)), lowered.run.compile(compiler_options(mesh))
    return Program(
        config=config,
        mesh=mesh,
        abstract=lowered.state,
        layers=layer_order(lowered.state, model.axes()),
        batch_shardings=jax.tree.map(lambda x: x.sharding, lowered.batches),
        init=make,
        run=run,
        scalars=lowered.scalars,
        flops_per_step=_flops(run),
        compile_seconds=time.monotonic() - start,
    )


def lower(config: RunConfig, model: Model, mesh: Mesh, *, loss_fn: Optional[LossFn] = None, frozen: Any = None) -> Lowered:
    """The functions of one shape of run before they are compiled; the mesh's devices may be descriptions of ones that are not there.

    `frozen` (arrays or abstract ones) is what `loss_fn` gets beside the parameters. UserError if the batch cannot be split as configured.
    """
    check_mesh_fit(config, mesh)
    abstract, axes = model.abstract(), model.axes()
    loss_fn = loss_fn or _pretraining(config, model)
    optimizer = make_optimizer(config.optim, abstract, axes)
    state, layout = abstract_state(config, model, mesh), layout_of_update(config, model, mesh)
    options: dict[str, Any] = {"micro_batches": config.execution.micro_batches, "layer_norms": axes if config.log.layer_norms else None}
    step = make_step(loss_fn, optimizer, config.optim.schedule, layout=layout, **options)

    def init(seed: jax.Array) -> TrainState:
        params = model.init(jax.random.key(seed))
        return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))

    batches = abstract_batch(row_of(config), (config.execution.steps_per_dispatch, config.batch_size), mesh)
    replicated = NamedSharding(mesh, PartitionSpec())
    scalar: Any = functools.partial(jax.ShapeDtypeStruct, (), sharding=replicated)
    hyper = Hyper(scalar(jnp.float32), scalar(jnp.float32), scalar(jnp.int32), scalar(jnp.int32), scalar(jnp.uint32))
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches)
    with jax.set_mesh(mesh):
        metrics = jax.eval_shape(step, state, frozen, one, hyper)[1]
    names = tuple(name for name, value in metrics.items() if value.ndim == 0)
    results = (jax.tree.map(lambda x: x.sharding, state), replicated, dict.fromkeys((n for n in metrics if n not in names), replicated))
    with jax.set_mesh(mesh):
        make = jax.jit(init, out_shardings=results[0]).lower(scalar(jnp.uint32))
        several = _several(step, metrics, names, config.execution.steps_per_dispatch)
        run = jax.jit(several, donate_argnums=0, out_shardings=results).lower(state, frozen, batches, hyper, scalar(jnp.int32))
    return Lowered(init=make, run=run, state=state, batches=batches, scalars=names)


def _several(step: Step, metrics: dict[str, Any], names: tuple[str, ...], most: int) -> Callable:
    """A loop over at most `most` steps. The number of steps is an argument, so every step runs the same code whatever their grouping.

    That makes a run's results independent of where evaluations and checkpoints cut it, bit for bit.
    """

    def several(state: TrainState, frozen: Any, batches: Batch, hyper: Hyper, count: jax.Array):
        def body(i, carry):
            state, scalars, vectors = carry
            batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), batches)
            state, found = step(state, frozen, batch, hyper)
            row = jnp.stack([found[name].astype(jnp.float32) for name in names])
            vectors = {name: old.at[i].set(found[name]) for name, old in vectors.items()}
            return state, scalars.at[i].set(row), vectors

        vectors = {name: jnp.zeros((most, *m.shape), m.dtype) for name, m in metrics.items() if name not in names}
        start = (state, jnp.zeros((most, len(names)), jnp.float32), vectors)
        return jax.lax.fori_loop(0, count, body, start)

    return several


def _pretraining(config: RunConfig, model: Model) -> LossFn:
    dtype = jnp.dtype(config.compute_dtype)
    return pretraining(model.apply, compute_dtype=dtype, z_loss=config.z_loss, label_smoothing=config.label_smoothing)


def _flops(compiled: Any) -> Optional[float]:
    """XLA's count of the compiled loop, which counts its body once; None where a backend does not say."""
    try:
        analysis = compiled.cost_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    analysis = analysis[0] if isinstance(analysis, list) and analysis else analysis
    flops = (analysis or {}).get("flops", 0.0)
    return float(flops) if flops > 0 else None
