"""`python -m lm.infer RUN --prompt=TEXT`: continues a text with the model of a run, or fills its blanks."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from lm import config as config_lib
from lm.errors import AGAIN, Parser, UserError, run_cli
from lm.fields import count
from lm.mesh import MeshConfig
from lm.train import record, sealed
from lm.train.config import RunConfig
from lm.train.run_tokenizer import run_tokenizer

if TYPE_CHECKING:
    from lm.infer.strategy import Strategy


def parser() -> Parser:
    text = "Continues a text, or fills its blanks, with the model of a checkpoint of a run. Decoding is greedy by default."
    text += " --config.data.objective=NAME prompts as another objective than the run's does."
    top = Parser(prog="python -m lm.infer", description=text)
    top.add_argument("run", type=Path, help="work directory of the run")
    top.add_argument("--prompt", help="text to continue (default: standard input)")
    top.add_argument("--blank", help="mark in the text for a blank to fill, such as ___ (for objectives that fill blanks)")
    top.add_argument("--max_tokens", type=count, default=128, help="largest number of new tokens (default: %(default)s)")
    top.add_argument("--temperature", type=float, default=None, help="sample from softmax(logits / temperature)")
    top.add_argument("--top_k", type=int, default=None, help="sample among the k most likely tokens")
    top.add_argument("--top_p", type=float, default=None, help="sample among the most likely tokens that together reach probability p")
    top.add_argument("--samples", type=int, default=1, help="number of continuations (default: %(default)s)")
    top.add_argument("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
    top.add_argument("--step", type=int, default=None, help="step of the checkpoint (default: the newest)")
    top.add_argument("--data_dir", default=None, help="directory of the run's tokenizer (default: that of the run's record)")
    return top


def main(argv: Optional[list[str]] = None) -> int:
    args, overrides = parser().parse_overrides(argv, "--config.data.objective")
    _check(args)
    prompt = sys.stdin.read() if args.prompt is None else args.prompt
    if not prompt:
        raise UserError('the prompt is empty: give a text, such as --prompt="def "')
    read_run(args.run, args.step)  # says what is wrong with it before jax is imported
    texts = continuations(
        args.run, prompt, _strategy(args), max_tokens=args.max_tokens, blank=args.blank, samples=args.samples, seed=args.seed,
        step=args.step, data_dir=args.data_dir, overrides=overrides,
    )  # fmt: skip
    print("\n\n---\n\n".join(texts))
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for a number that is out of range."""
    for name in ("samples", "max_tokens", "top_k"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}={value}: give 1 or more")
    if args.temperature is not None and not 0 < args.temperature < math.inf:
        raise UserError(f"--temperature={args.temperature:g}: give a number above 0, or leave it out for greedy decoding")
    if args.top_p is not None and not 0 < args.top_p <= 1:
        raise UserError(f"--top_p={args.top_p:g}: give a probability above 0 and at most 1")


def _strategy(args: argparse.Namespace) -> "Strategy":
    from lm.infer.sampling import Temperature, TopK, TopP
    from lm.infer.strategy import compose

    steps: list[Any] = [] if args.temperature is None else [Temperature(args.temperature)]
    steps += [] if args.top_k is None else [TopK(args.top_k)]
    steps += [] if args.top_p is None else [TopP(args.top_p)]
    return compose(steps)


def read_run(workdir: Path, step: Optional[int] = None) -> tuple[record.Record, RunConfig]:
    """Returns the record and the configuration of a run that can continue a text; UserError for none, or for no such checkpoint."""
    saved = record.read(workdir)
    if saved is None:
        raise UserError(f"{workdir} holds no run (no {record.FILE}): name a work directory that lm.run or a study wrote")
    config = config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])
    if config.model.architecture == "encoder":
        raise UserError(f"{workdir} holds an encoder-only model, which cannot continue a text: name a run of another architecture")
    sealed.require(workdir, step)
    return saved, config


def continuations(
    workdir: Path,
    prompt: str,
    strategy: "Strategy",
    *,
    max_tokens: int,
    blank: Optional[str] = None,
    samples: int = 1,
    seed: int = 0,
    step: Optional[int] = None,
    data_dir: Optional[str] = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Returns `samples` texts that the model of a run writes. They begin with the prompt if the objective continues it.

    Args:
      workdir: the work directory of the run.
      prompt: the text that the model reads.
      strategy: how the next token is chosen.
      max_tokens: the largest number of new tokens.
      blank: the mark in the prompt for a blank to fill.
      samples: the number of texts.
      seed: the seed of the draws.
      step: the step of the checkpoint (default: the newest).
      data_dir: the directory of the tokenizer (default: that of the run's record).
      overrides: settings "data.objective...=value" of the objective whose prompts the model knows (default: the run's).

    Raises:
      UserError: run, checkpoint or tokenizer are missing or do not fit together, or the model is encoder-only.
    """
    saved, config = read_run(workdir, step)
    tokenizer = run_tokenizer(config, data_dir or config.data_dir, saved)

    if overrides:
        config = config_lib.apply_overrides(config, list(overrides))
        tokenizer = config.data.objective.tokenizer(getattr(tokenizer, "base", tokenizer))
        config.data.objective.require_vocabulary(tokenizer, config.model.vocab_size, config.data.sequence_length)

    import jax

    from lm.data.objectives.base import SpecialIds
    from lm.infer.decode import generate
    from lm.infer.prompts import as_imported, prompt_ids, written
    from lm.model import architectures
    from lm.model.execution import AS_LISTED
    from lm.model.layers import listed
    from lm.sharding import make_mesh
    from lm.train import checkpoint

    stored = architectures.build(config.model)
    placed = stored.shardings(make_mesh(MeshConfig(), jax.devices()[:1]))
    target = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), stored.abstract(), placed)
    params, model = listed(checkpoint.restore_params(workdir, target, step)[0]), architectures.build(config.model, AS_LISTED)
    special = SpecialIds(tokenizer, config.data.objective, config.model.vocab_size)
    source = record.origin(saved).get("ids") or {}
    # An import that nobody asks for another objective's prompts begins as its own tokenizer and transformers do.
    imported = source if saved["status"] == "imported" and blank is None and not overrides else {}
    architecture = config.model.architecture
    ids = as_imported(prompt, special, architecture, imported) if imported else prompt_ids(prompt, special, architecture, blank)
    rows = generate(
        model, params, [ids] * samples, max_new_tokens=max_tokens, strategy=strategy, eos_id=[tokenizer.eos_id, *source.get("stops", [])],
        start_id=imported.get("first") or tokenizer.start_id, seed=seed, compute_dtype=config.compute_dtype,
    )  # fmt: skip
    continues = blank is None and config.data.objective.continues_text
    after = tokenizer.encode(prompt).tolist() if continues else []
    return [prompt * continues + written(row, special, after) for row in rows]


if __name__ == "__main__":
    run_cli(main, AGAIN)
