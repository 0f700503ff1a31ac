"""`python -m lm.scaling VERB`: scaling laws from a table of runs, whatever trained them (imports no jax before a verb runs)."""

import argparse
import importlib
import importlib.util
import types

from lm.errors import run_cli

VERBS = ("fit", "compare", "plan", "power")


def modules() -> dict[str, types.ModuleType]:
    """The module of each verb: HELP, arguments(parser), run(args) -> exit status."""
    names = {verb: f"lm.scaling.commands.{verb}" for verb in VERBS}
    return {verb: importlib.import_module(name) for verb, name in names.items() if importlib.util.find_spec(name)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lm.scaling", description="Fits scaling laws to a table of runs and plans from them.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    found = modules()
    for name, module in found.items():
        described = module.__doc__.splitlines()[0] if module.__doc__ else module.HELP
        module.arguments(verbs.add_parser(name, help=module.HELP, description=described))
    args = parser.parse_args()
    return found[args.verb].run(args)


if __name__ == "__main__":
    run_cli(main)
