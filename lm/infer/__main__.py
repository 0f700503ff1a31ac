"""`python -m lm.infer RUN --prompt=TEXT`: continues a text with the model of a run, or scores it, embeds it, or fills its blanks."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from lm.errors import AGAIN, Parser, UserError, run_cli
from lm.fields import count

if TYPE_CHECKING:
    from lm.infer.beams import Beams
    from lm.infer.text_model import TextModel

# Flags of decoding: the step of a strategy that each stands for is in _steps.
STEPS: dict[str, tuple[Any, str]] = {
    "temperature": (float, "sample from softmax(logits / temperature)"),
    "top_k": (int, "sample among the k most likely tokens"),
    "top_p": (float, "sample among the most likely tokens that together reach probability p"),
    "min_p": (float, "sample among tokens of at least p times the probability of the most likely one"),
    "typical_p": (float, "sample among tokens of typical surprise that together reach probability p"),
    "repetition_penalty": (float, "divide or multiply the logits of ids that are there already, prompt included"),
    "presence_penalty": (float, "subtract from the logits of ids that were written"),
    "frequency_penalty": (float, "subtract from the logits of ids for each time that they were written"),
    "no_repeat_ngram": (int, "write no sequence of so many ids twice"),
    "min_tokens": (int, "let no text end before so many new tokens"),
}
DRAWING = ("temperature", "top_k", "top_p", "min_p", "typical_p")


def parser() -> Parser:
    text = (
        "Continues a text, or fills its blanks, with the model of a checkpoint of a run. Decoding is greedy by default; flags of decoding"
    )
    text += " compose in the order of docs/inference.md. --config.data.objective=NAME prompts as another objective than the run's does."
    top = Parser(prog="python -m lm.infer", description=text)
    top.add_argument("run", type=Path, help="work directory of a run, or a model's directory in the Hugging Face layout")
    top.add_argument("--prompt", help="text to continue (default: standard input)")
    top.add_argument("--blank", help="mark in the text for a blank to fill, such as ___ (for objectives that fill blanks)")
    top.add_argument("--max_tokens", type=count, default=128, help="largest number of new tokens (default: %(default)s)")
    top.add_argument("--greedy", action="store_true", help="always take the most likely token, as without flags of decoding")
    for name, (kind, what) in STEPS.items():
        top.add_argument(f"--{name}", type=kind, default=None, help=what)
    top.add_argument("--ban", action="append", default=[], metavar="TEXT", help="never write this text's ids (may be given again)")
    top.add_argument("--force", metavar="TEXT", help="begin with this text's ids")
    top.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end a text before this string (may be given again)")
    top.add_argument("--beams", type=int, default=None, help="search with so many beams for the likeliest text")
    top.add_argument("--length_penalty", type=float, default=None, help="score of beam search: sum of log p / length^PENALTY (default: 1)")
    top.add_argument("--early_stopping", choices=["true", "false", "never"], default=None, help="when beam search ends (default: false)")
    top.add_argument("--draft", type=Path, default=None, help="work directory of a smaller run with the same tokenizer, to guess tokens")
    top.add_argument("--guesses", type=int, default=4, help="tokens that the draft guesses at a time (default: %(default)s)")
    top.add_argument("--samples", type=int, default=1, help="number of continuations (default: %(default)s)")
    top.add_argument("--best_of", type=int, default=1, help="draw so many for each and take the likeliest (default: %(default)s)")
    top.add_argument("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
    top.add_argument("--stream", action="store_true", help="print the text as it is written")
    task = top.add_mutually_exclusive_group()
    task.add_argument("--score", metavar="TEXT", help="print the log-probability of this continuation of the prompt, and write nothing")
    task.add_argument("--embed", choices=["mean", "first", "last"], help="print a vector for each line of the prompt, states pooled so")
    task.add_argument("--fill_mask", metavar="MARK", help="print the likeliest tokens for each MARK in the prompt (encoders)")
    top.add_argument("--step", type=int, default=None, help="step of the checkpoint (default: the newest)")
    top.add_argument("--data_dir", default=None, help="directory of the run's tokenizer (default: that of the run's record)")
    return top


def main(argv: Optional[list[str]] = None) -> int:
    args, overrides = parser().parse_overrides(argv, "--config.data.objective")
    _check(args)
    prompt = sys.stdin.read() if args.prompt is None else args.prompt
    if not prompt:
        raise UserError('the prompt is empty: give a text, such as --prompt="def "')

    from lm.infer import sources

    sources.require(args.run, args.step)
    steps, beams = _checked(args)
    model = sources.load(args.run, step=args.step, data_dir=args.data_dir, overrides=overrides)
    if args.score is not None:
        score = model.score(prompt, args.score)
        print(f"{score.log_prob:.4f} nats over {score.ids} tokens" + ", each the most likely one" * score.greedy)
    elif args.embed is not None:
        for vector in model.embed(prompt.splitlines(), pooling=args.embed):
            print(*(f"{number:.6f}" for number in vector))
    elif args.fill_mask is not None:
        for candidates in model.fill_mask(prompt, mask=args.fill_mask):
            print(*(f"{found.probability:.4f} {found.text!r}" for found in candidates), sep="\n", end="\n\n")
    else:
        _write(model, prompt, args, steps, beams)
    return 0


def _write(model: "TextModel", prompt: str, args: argparse.Namespace, steps: list[Any], beams: "Optional[Beams]") -> None:
    steps, shown = [*steps, *_texts(args, model)], prompt * model.continues(args.blank)
    if args.stream:
        print(shown, end="", flush=True)
        for piece in model.stream(prompt, max_new_tokens=args.max_tokens, strategy=steps, stop=args.stop, seed=args.seed):
            print(piece, end="", flush=True)
        print()
        return
    texts = model.generate(
        prompt, max_new_tokens=args.max_tokens, strategy=steps, beams=beams, samples=args.samples, best_of=args.best_of,
        stop=args.stop, seed=args.seed, blank=args.blank, draft=_draft(args), guesses=args.guesses,
    )  # fmt: skip
    print("\n\n---\n\n".join(shown + text.text for text in texts))


def _check(args: argparse.Namespace) -> None:
    """Raises UserError for a number that is out of range, or flags that contradict one another."""
    for name in ("samples", "best_of", "max_tokens", "guesses"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name}={getattr(args, name)}: give 1 or more")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"--seed={args.seed}: give a whole number from 0 to {2**32 - 1}")
    if args.fill_mask == "":
        raise UserError("--fill_mask= is empty: name the mark that stands in the prompt, such as --fill_mask=[MASK]")
    if args.temperature == 0:
        raise UserError("--temperature=0 divides by zero: leave it out for greedy decoding, or write --greedy")
    drawing = [name for name in DRAWING if getattr(args, name) is not None]
    if args.greedy and drawing:
        raise UserError(f"--greedy takes the most likely token, and --{drawing[0]} is for drawing one: give one of the two")
    if args.beams is not None and drawing:
        raise UserError(f"--beams searches for the likeliest text, and --{drawing[0]} is for drawing one: give one of the two")
    if args.beams is None and (args.length_penalty is not None or args.early_stopping is not None):
        raise UserError(f"--{'early_stopping' if args.length_penalty is None else 'length_penalty'} is for beam search: give --beams too")
    if args.draft is not None and args.beams is not None:
        raise UserError("--beams uses no draft: leave --beams or --draft out")
    if args.stream and (args.samples > 1 or args.best_of > 1 or any(x is not None for x in (args.beams, args.blank, args.draft))):
        raise UserError("--stream prints one text as it is written: leave --beams, --draft, --samples, --best_of and --blank out")
    for name in ("samples", "best_of"):
        if getattr(args, name) > 1 and not drawing and args.beams is None:
            raise UserError(f"--{name} texts would all be the same, since greedy decoding draws nothing: give --temperature=1, say")


def _checked(args: argparse.Namespace) -> "tuple[list[Any], Optional[Beams]]":
    """Returns the steps that numbers stand for, and options of beam search, so that a wrong one is refused before the model is read."""
    from lm.infer.text_model import check_options

    steps, beams = _steps(args), _beams(args)
    check_options(args.samples, args.best_of, beams, args.stop)
    return steps, beams


def _steps(args: argparse.Namespace) -> list[Any]:
    from lm.infer import penalties, sampling

    kinds = {
        "temperature": sampling.Temperature, "top_k": sampling.TopK, "top_p": sampling.TopP, "min_p": sampling.MinP,
        "typical_p": sampling.Typical, "repetition_penalty": penalties.RepetitionPenalty, "presence_penalty": penalties.PresencePenalty,
        "frequency_penalty": penalties.FrequencyPenalty, "no_repeat_ngram": penalties.NoRepeatNGram, "min_tokens": penalties.MinLength,
    }  # fmt: skip
    return [kind(value) for name, kind in kinds.items() if (value := getattr(args, name)) is not None]


def _texts(args: argparse.Namespace, model: "TextModel") -> list[Any]:
    """Returns the steps that texts stand for, which take the model's tokenizer."""
    from lm.infer import penalties

    steps: list[Any] = []
    encode = model.special.tokenizer.encode
    if args.ban:
        steps.append(penalties.Banned(tuple(tuple(encode(text).tolist()) for text in args.ban)))
    if args.force:
        steps.append(penalties.ForcedFirst(tuple(encode(args.force).tolist())))
    return steps


def _draft(args: argparse.Namespace) -> "Optional[TextModel]":
    from lm.infer import sources

    return None if args.draft is None else sources.load(args.draft)


def _beams(args: argparse.Namespace) -> "Optional[Beams]":
    from lm.infer.beams import Beams

    if args.beams is None:
        return None
    early: Any = {"true": True, "never": "never"}.get(args.early_stopping, False)
    return Beams(args.beams, 1.0 if args.length_penalty is None else args.length_penalty, early)


if __name__ == "__main__":
    run_cli(main, AGAIN)
