"""`python -m lm.scaling VERB`: scaling laws from a table of runs, whatever trained them (imports no jax before a verb runs)."""

import sys
from typing import Optional

from lm.errors import AGAIN, Parser, run_cli
from lm.scaling import compile_cache
from lm.scaling.commands import backtest, chain, compare, curves, fit, mixture, plan, power, predict, score, table, tune

VERBS = {
    "fit": fit,
    "predict": predict,
    "score": score,
    "compare": compare,
    "plan": plan,
    "power": power,
    "backtest": backtest,
    "mixture": mixture,
    "chain": chain,
    "tune": tune,
    "curves": curves,
}
EPILOG = (
    "Example: python -m lm.scaling fit runs.csv --budget=planned_flops. The exit status is 0 with an answer, 1 if all that was asked for "
    "is refused, 2 if the input has to be mended. docs/scaling.md explains tables, laws, intervals and refusals."
)


def main(argv: Optional[list[str]] = None) -> int:
    description = "Fits scaling laws to a table of training runs (a CSV file, whatever trained them), and plans further runs from the fit."
    parser = Parser(prog="python -m lm.scaling", description=description, epilog=EPILOG)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, module in VERBS.items():
        module.arguments(verbs.add_parser(name, help=module.HELP, description=module.__doc__))
    args = parser.parse_args(argv)
    table.check(args)
    args.command = tuple(sys.argv[1:] if argv is None else argv)  # for what a page says of itself
    return VERBS[args.verb].run(args)


if __name__ == "__main__":
    compile_cache.switch_on()
    run_cli(main, AGAIN)
