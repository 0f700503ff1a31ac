"""`python -m lm.hf import DIR --workdir=RUN` and `python -m lm.hf export RUN DIR`: converts models of the Hugging Face layout."""

from pathlib import Path
from typing import Optional

from lm.data.config import ByteTokenizer
from lm.errors import AGAIN, Parser, UserError, counted, run_cli
from lm.fields import count
from lm.hf.convert import MAX_SHARD_BYTES
from lm.hf.families import FAMILIES
from lm.hf.files import TOKENIZER
from lm.hf.runs import export_run, import_run
from lm.hf.tokenizer_files import PIECES


def parser() -> Parser:
    text = f"Reads and writes models in the Hugging Face layout: {', '.join(FAMILIES)}."
    top = Parser(prog="python -m lm.hf", description=text)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    what = "Makes a run from a model. lm.infer writes with it, and lm.run --config=RUN/config.json --workdir=RUN trains it on."
    into = commands.add_parser("import", help="make a run from a directory with config.json and safetensors weights", description=what)
    into.add_argument("directory", type=Path, help="directory of the model")
    into.add_argument("--workdir", type=Path, required=True, help="work directory of the new run")
    into.add_argument("--eos_token", default=None, help="spelling of the one token that ends a text (default: those of the model's files)")
    what = "Writes a checkpoint of a run as a model that transformers reads."
    out = commands.add_parser("export", help="write a checkpoint of a run as such a directory", description=what)
    out.add_argument("run", type=Path, help="work directory of the run")
    out.add_argument("directory", type=Path, help="directory of the new model")
    out.add_argument("--step", type=int, default=None, help="step of the checkpoint (default: the newest)")
    out.add_argument(
        "--family",
        choices=list(FAMILIES),
        default=None,
        help="family of the model (default: an import's own, or the first that can hold it)",
    )
    out.add_argument(
        "--max_shard_bytes", type=count, default=MAX_SHARD_BYTES, help="largest size of a file of weights (default: %(default)s)"
    )
    return top


def main(argv: Optional[list[str]] = None) -> int:
    args = parser().parse_args(argv)
    if args.command == "import":
        config = import_run(args.directory, args.workdir, eos_token=args.eos_token, say=print)
        kind = config.model.architecture
        print(f"imported {'an' if kind[0] == 'e' else 'a'} {kind} of {counted(config.model.num_layers, 'layer')} into {args.workdir}")
        if not isinstance(config.data.tokenizer, ByteTokenizer) and not Path(getattr(config.data.tokenizer, "path", "")).is_file():
            names = ", ".join((TOKENIZER, *PIECES, "*.tiktoken"))
            print(f"{args.directory} has no tokenizer ({names}): the run cannot read or write text until the model is imported with one")
        return 0
    if args.max_shard_bytes < 1:
        raise UserError("--max_shard_bytes must be 1 or more")
    step = export_run(args.run, args.directory, step=args.step, family=args.family, max_shard_bytes=args.max_shard_bytes, say=print)
    print(f"exported {args.run}, step {step:,}, to {args.directory}")
    return 0


if __name__ == "__main__":
    run_cli(main, AGAIN)
