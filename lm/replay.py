"""`python -m lm.replay WORKDIR/bad_steps/00000017`: repeats a bad step of a run, and says which of its rows and weights are at fault.

The folder is the step's bundle (lm.train.bundle). The run's steps from the bundle's checkpoint, or from the start, are repeated on the
text, and then the step itself on the batch that was kept. Nothing is written.
"""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Optional

from lm import config as config_lib
from lm.errors import AGAIN, Parser, UserError, run_cli
from lm.train import bundle, record
from lm.train.config import ExecutionConfig, RunConfig

WORST = 3  # rows that are shown


class Found(NamedTuple):
    """What a repeated step gave: `loss` and `grad_norm` as text, the loss of each row, and the weights whose gradient is not finite."""

    loss: str
    grad_norm: str
    row_losses: Any  # nats per target, float32 [rows]
    weights: list[str]
    same_batch: bool  # whether the text still gives the batch that was kept


def main(argv: Optional[list[str]] = None) -> int:
    """Runs the command and returns its exit status: 0 if the step was as bad again, 1 if not."""
    about = (
        "Repeats a step that changed no weights, because its loss or gradient was not finite or a spike, and says which rows and weights"
    )
    about += " are at fault. The exit status is 0 if loss and gradient norm are those that were recorded, and 1 if they are not."
    parser = Parser(prog="python -m lm.replay", description=about)
    parser.add_argument("folder", type=Path, metavar="DIR", help=f"bundle of a step, such as runs/tiny/{bundle.FOLDER}/00000017")
    parser.add_argument("--data_dir", default=None, help="directory of the prepared data (default: that of the run's record)")
    args = parser.parse_args(argv)
    step, kept = bundle.read(args.folder)
    saved = record.read(args.folder)
    if saved is None:
        raise UserError(f"{args.folder} holds no {record.FILE}: it is no whole bundle")
    config = config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])
    config = dataclasses.replace(config, data_dir=args.data_dir or config.data_dir)
    texts, found = repeat(args.folder, step, kept, saved, config)
    return told(step, found, texts, len(kept[0]["tokens"]))


def told(step: dict[str, Any], found: Found, texts: Callable[[int], str], rows: int) -> int:
    """Prints what was found and returns the command's exit status."""
    import numpy as np

    same = (found.loss, found.grad_norm) == (step["loss"], step["grad_norm"])
    was = "as recorded" if same else f"and recorded were loss {step['loss']}, grad_norm {step['grad_norm']}"
    print(f"step {step['step']:,} on batch {step['batch']:,}: loss {found.loss}, grad_norm {found.grad_norm}, {was}")
    if not found.same_batch:
        print("the text gives another batch now than the run had")
    if not same:
        print("the step does not repeat: with the same versions and kind of device, suspect the device", file=sys.stderr)
    losses = np.where(np.isfinite(found.row_losses), found.row_losses, np.inf)
    for row in np.argsort(-losses, kind="stable")[:WORST].tolist():
        print(f"row {row} of {rows}: {found.row_losses[row]:.4g} nats per target; {texts(row)}")
    if found.weights:
        more = f" and {len(found.weights) - 5} more" if len(found.weights) > 5 else ""
        print(f"gradients that are not finite: {', '.join(found.weights[:5])}{more}")
    return int(not same)


def repeat(
    folder: Path, step: dict[str, Any], kept: list[dict[str, Any]], saved: record.Record, config: RunConfig
) -> tuple[Callable[[int], str], Found]:
    """Repeats the step of a bundle. Returns a function from a row of its batch to the beginning of its text, and what was found."""
    import numpy as np

    from lm import runner
    from lm.data.stream import TrainStream
    from lm.mesh import MeshConfig
    from lm.train.bad_steps import BadSteps
    from lm.train.build import build
    from lm.train.derived import shape_of
    from lm.types import Batch

    try:
        parts = build(config)
    except UserError:  # fewer devices than the run had
        config = dataclasses.replace(config, mesh=MeshConfig(), execution=ExecutionConfig())
        parts = build(config)
    data = runner.prepare_data(config.data, config.data_dir, lambda line: None)
    if data.fingerprint != saved["data"]["fingerprint"]:
        raise UserError(f"{config.data_dir} holds other text than the run's: name the right directory with --data_dir")
    stream = TrainStream(data, config.data, config.batch_size, config.seed, None, config.model.architecture, config.model.vocab_size)
    program = runner.shared_program(shape_of(config), parts.model, parts.mesh)
    order = BadSteps(config.bad_steps, saved["bad_steps"])
    state = _state_before(folder, step, saved, config, program, stream, order)
    of_text = stream[step["batch"]]
    batch = Batch(**kept[0]) if len(kept) == 1 else of_text  # of several processes each kept its own rows
    row_losses, weights = _looked_at(config, parts, program, state.params, batch)
    scalars = dict(zip(program.scalars, _run(program, config, state, batch)[1], strict=True))
    loss, grad_norm = (str(np.float32(scalars[name])) for name in ("loss", "grad_norm"))
    fields = [(value, getattr(of_text, name)) for name, value in vars(batch).items() if value is not None]

    def text(row: int) -> str:
        ids = np.asarray(batch.tokens[row])
        ids = ids[(ids >= 0) & (ids < data.tokenizer.vocab_size)][:60]
        return f"it begins {data.tokenizer.decode(ids)[:60]!r}"

    return text, Found(loss, grad_norm, row_losses, weights, all(np.array_equal(*pair, equal_nan=True) for pair in fields))


def _state_before(
    folder: Path, step: dict[str, Any], saved: record.Record, config: RunConfig, program: Any, stream: Any, order: Any
) -> Any:
    """Returns the state that the step began with, by repeating the steps since the bundle's checkpoint."""
    import numpy as np

    from lm.train import checkpoint, pretrained

    start = step["checkpoint"] or 0
    if start:
        restored = checkpoint.restore(folder, program.layers.stored, among=[start])
        if restored is None:
            raise UserError(f"{folder} has lost its checkpoint of step {start}")
        state = program.layers.read(restored.state)
    else:
        source = record.Source(saved["init_from"]) if "init_from" in saved else None
        state = pretrained.first_state(program.init(np.uint32(config.seed)), program.layers, saved, source, folder)
    for first, last in order.batches(start, step["step"] - 1):
        for batch in stream.iterate(first, last):
            state, _ = _run(program, config, state, batch)
    return state


def _run(program: Any, config: RunConfig, state: Any, batch: Any) -> tuple[Any, Any]:
    """Makes one step; returns the state after it and its scalars."""
    import jax
    import numpy as np

    from lm.train.derived import hyper_of
    from lm.train.feed import to_device, wait_on_virtual_devices

    block = to_device([batch], config.execution.steps_per_dispatch, program.batch_shardings, config.batch_size)
    results = wait_on_virtual_devices(program.mesh, program.run(state, None, block, hyper_of(config), np.int32(1)))
    return results[0], np.asarray(jax.device_get(results[1]))[0]


def _looked_at(config: RunConfig, parts: Any, program: Any, params: Any, batch: Any) -> tuple[Any, list[str]]:
    """Returns the loss of each row in nats per target, and the names of the weights whose gradient is not finite."""
    import jax
    import jax.numpy as jnp

    from lm.losses import negative_log_likelihood, pretraining
    from lm.train.feed import to_device
    from lm.train.step import accumulate, named

    dtype = jnp.dtype(config.compute_dtype)
    loss_fn = pretraining(parts.model.apply, compute_dtype=dtype, z_loss=config.z_loss, label_smoothing=config.label_smoothing)

    def look(params: Any, batch: Any) -> tuple[jax.Array, Any]:
        nll_BP, _ = negative_log_likelihood(parts.model.apply(params, batch.inputs, compute_dtype=dtype).logits, batch.targets)
        losses_B = jnp.sum(batch.weights * nll_BP, axis=1) / jnp.maximum(jnp.sum(batch.weights, axis=1), 1e-30)
        _, grads = accumulate(loss_fn, params, None, batch, jax.random.key(0), config.execution.micro_batches)
        return losses_B, jax.tree.map(lambda g: jnp.all(jnp.isfinite(g)), grads)

    block = to_device([batch], 1, program.batch_shardings, config.batch_size)
    with jax.set_mesh(program.mesh):
        losses_B, finite = jax.device_get(jax.jit(look)(params, jax.tree.map(lambda x: x[0], block)))
    return losses_B, [name for name, is_finite in named(finite) if not is_finite]


if __name__ == "__main__":
    run_cli(main, AGAIN)
