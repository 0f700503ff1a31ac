"""`python -m lm.data.curate INPUT... --out=DIR [--steps=...]`: repairs, filters and deduplicates text (docs/curation.md)."""

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Optional

from lm.errors import CONTINUES, Parser, UserError, counted, require_local, run_cli
from lm.fields import count

TRIAL = 2_000_000  # bytes of text that --dry_run tries the steps on


def parser() -> Parser:
    from lm.data.curation.recipes import RECIPES
    from lm.data.curation.steps import REGISTRY

    top = Parser(
        prog="python -m lm.data.curate",
        description="Repairs, filters and deduplicates text by a pipeline of steps. Writes shards for the corpus text_files, a ledger of"
        " what each rule took, and a page with samples. A curation that was stopped goes on with the same command.",
        epilog=f"Steps: {', '.join(REGISTRY)}. Recipes: "
        + "; ".join(f"{name} = {', '.join(step.name for step in steps)}" for name, steps in RECIPES.items())
        + ". --dry_run lists the settings of each step.",
    )
    top.add_argument("input", nargs="+", metavar="INPUT", help="files, folders or patterns, as the corpus text_files takes them")
    top.add_argument("--out", required=True, metavar="DIR", help="folder of the result, which is made")
    what = "names of steps and recipes, separated by commas, or FILE.py[:NAME] with a tuple of steps, or FILE.json (default: fineweb)"
    top.add_argument("--steps", default="fineweb", metavar="STEPS", help=what)
    top.add_argument(
        "--set", action="append", default=[], metavar="STEP.KEY=VALUE", help="one setting of a step, such as minhash.buckets=9"
    )
    top.add_argument("--field", default=None, help="field of the text, or a template of several (default: text)")
    what = "fields that are carried along, separated by commas; the step url looks at url"
    top.add_argument("--keep", default=None, metavar="FIELD,...", help=what)
    top.add_argument("--lines", action="store_true", help="each line of a text file is a document")
    top.add_argument("--longest_document", type=count, default=None, metavar="BYTES", help="of a document that is used (default: 4M)")
    what = "what happens to documents that are too long or cannot be read (default: refuse)"
    top.add_argument("--unusable", choices=("refuse", "skip"), default="refuse", metavar="refuse|skip", help=what)
    top.add_argument("--processes", type=count, default=None, metavar="N", help="processes that work (default: one for each core)")
    top.add_argument("--dry_run", action="store_true", help="print files, steps and settings, try them on the first text, write nothing")
    top.add_argument("--json", action="store_true", help="print the ledger, without samples, as one JSON object")
    return top


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = parser().parse_args(argv)
    try:
        return _curate(args)
    except UserError as error:
        raise UserError(own_flags(str(error)), error.names) from error


def own_flags(advice: str) -> str:
    """Returns advice of the readers of corpora in the words of this command."""
    advice = advice.replace("--config.data.components.0.paths", "the files that are named").replace("--config.data_dir", "--out")
    return re.sub(r"--config\.data\.components\.0\.(\w+)", r"--\1", advice)


def _curate(args: Any) -> int:
    from lm.data.corpora import places, readers
    from lm.data.curation import run, summary
    from lm.data.curation.plan import Plan

    if args.processes is not None and args.processes < 1:
        raise UserError("--processes must be 1 or more")
    require_local(args.out)
    keep = tuple(filter(None, (args.keep or "").split(",")))
    if own := {"id", "text"} & set(keep):
        raise UserError(f"--keep={min(own)}: the result has a field of that name of its own; name the field otherwise in the input")
    for path in args.input:
        if places.is_address(path):
            raise UserError(f"{path}: files at addresses are not curated; copy them here")
    say = (lambda line: print(line, file=sys.stderr)) if args.json else print
    longest = {} if args.longest_document is None else {"longest": args.longest_document}
    files = tuple(readers.expand(args.input, say))
    _require_files(files, args.out, keep)
    plan = Plan(
        files=files,
        out=args.out,
        steps=args.steps,
        settings=tuple(args.set),
        field=args.field,
        keep=keep,
        lines=args.lines,
        skip=args.unusable == "skip",
        **longest,
    )
    if "url" not in keep and any(step.name == "url" for step in plan.chosen()):
        say("the step url lets every document pass: its field is read with --keep=url")
    if args.dry_run:
        return _dry_run(plan)
    ledger = run.curate(plan, say, args.processes)
    if args.json:
        short = {**ledger, "steps": [{key: value for key, value in step.items() if key != "samples"} for step in ledger["steps"]]}
        print(json.dumps(short))
        return 0
    for line in summary.lines(ledger):
        print(line)
    if not ledger["kept"]["documents"]:
        print("warning: no document is left")
    print(f"wrote {os.path.join(args.out, 'text')}, {os.path.join(args.out, 'ledger.json')} and {os.path.join(args.out, 'report.html')}")
    return 0


def _require_files(files: Sequence[str], out: str, keep: Sequence[str]) -> None:
    """Raises UserError for inputs that lie in the result, and for those without fields where some are to be kept."""
    from lm.data.corpora import readers

    result = os.path.join(os.path.realpath(out), "")
    for path in files:
        if os.path.realpath(path).startswith(result):
            raise UserError(f"{path} lies in --out={out}: give another --out, or other files")
        if keep and not readers.Kind(path).has_fields:
            raise UserError(
                f"{path} has no fields, and --keep={','.join(keep)} asks for some: leave --keep out, or give .jsonl, .csv or .parquet"
            )


def _dry_run(plan: Any) -> int:
    from lm.data.corpora import readers
    from lm.data.corpora.faults import Faults
    from lm.data.curation import apply, sources, store, summary
    from lm.data.curation.steps import to_json

    steps = plan.chosen()
    for step in steps:
        step.check()
    stored = sum(map(os.path.getsize, plan.files))
    expected = readers.estimated_bytes(plan.files, plan.field)
    print(f"{counted(len(plan.files), 'file')}, {summary.size(stored)}, about {summary.size(expected)} of text")
    for number, stage in enumerate(plan.stages(), 1):
        names = [*([f"{stage.first.name} (first of each cluster)"] if stage.first else []), *(step.name for step in stage.steps)]
        print(f"pass {number}: {', '.join(names) or 'reading'}" + (f"; then keys of {stage.sketch.name}" if stage.sketch else ""))
    for step in steps:
        said = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in to_json(step).items() if key != "name"]
        print(f"  {step.name}: {', '.join(said) or 'no settings'}")
    faults = Faults(plan.longest, plan.skip)
    batch = next(store.batches(sources.documents(plan.units()[0], plan.reading(), faults), TRIAL), [])
    begin, read = time.process_time(), sum(document.size for document in batch)
    kept, _ = apply.apply(batch, steps)
    seconds = time.process_time() - begin
    if not read:
        print("trial: no document in the first part of the files")
        return 0
    rate = read / max(seconds, 1e-9)
    left = f"{counted(len(kept), 'document')} left of the first {len(batch):,} ({summary.size(read)})"
    print(f"trial: {left}; {summary.size(rate)} a second and process: about {expected / rate / 3600:.2g} hours of processor time for all")
    return 0


if __name__ == "__main__":
    run_cli(main, CONTINUES)
