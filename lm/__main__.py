"""`python -m lm` lists the commands."""

import sys
from typing import Optional

from lm.errors import AGAIN, UserError, run_cli

COMMANDS = {
    "lm.scaling": "fit scaling laws to a table of runs, whatever trained them; predict, plan",
    "experiments": "run a scaling study, or one part of it: plan, train, forecast, fit, report",
    "lm.run": "train one model",
    "lm.data.curate": "repair, filter and deduplicate text, with a ledger of what each rule took",
    "lm.data": "prepare the text of a run, on every core and on machines that share the directory",
    "lm.infer": "continue a text, or fill its blanks, with the model of a run",
    "lm.evals": "evaluate a checkpoint of a run",
    "lm.hf": "read and write models in the Hugging Face layout",
    "lm.replay": "repeat a step that a run left out, from what it kept of it",
    "lm.train.checkpoint": "verify the checkpoints of a run, and name every damage",
    "lm.preflight": "compile a training step for hardware that is not there",
    "lm.study.worker": "train cells of a planned study, on any machine that shares its directory",
    "launch.local": "start the workers of a planned study on this machine",
    "launch.doctor": "say what a machine or cluster has for studies, and what mends what is missing",
    "experiments.replications": "replicate published scaling-law analyses from their public tables",
}


def main(argv: Optional[list[str]] = None) -> int:
    words = [word for word in (sys.argv[1:] if argv is None else argv) if word not in ("-h", "--help")]
    if words:
        name = next((name for name in COMMANDS if words[0] in (name, name.rpartition(".")[2])), None)
        raise UserError(f"python -m lm takes no {words[0]!r}: " + (f"write python -m {name}" if name else "it lists the commands"))
    width = max(map(len, COMMANDS))
    print("usage: python -m COMMAND --help\n")
    for name, text in COMMANDS.items():
        print(f"  python -m {name:{width}s}  {text}")
    return 0


if __name__ == "__main__":
    run_cli(main, AGAIN)
