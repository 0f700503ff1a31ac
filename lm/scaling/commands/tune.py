"""Finds the best learning rate, batch size or other setting at each N and D of a table of sweeps, and its law x* = c N^a D^b.

The best values are those at the vertex of a quadratic of log loss in the log settings, fitted to the rows near the lowest loss of each N
and D. A sweep whose loss still falls at its end is refused.
"""

import argparse
from typing import TYPE_CHECKING

from lm.errors import UserError, counted
from lm.scaling.commands import table
from lm.scaling.laws import catalogue
from lm.scaling.results import Estimate, Refusal, to_json
from lm.scaling.words import aligned, digits, folded, missing, said, short

if TYPE_CHECKING:
    from lm.scaling.results import Answer
    from lm.scaling.sweeps import SettingAt, SweepAnalysis

HELP = "find the best learning rate and batch size in N and D from sweeps"
SHOWN = 5  # refusals that are printed


def arguments(parser: argparse.ArgumentParser) -> None:
    table.table_argument(parser)
    text = "settings that were swept, such as lr or lr batch=batch_tokens"
    parser.add_argument("--sweep", nargs="+", required=True, metavar="NAME[=COLUMN]", help=text)
    text = "inputs of a setting's law, such as batch=D or lr=N,D (default: N,D)"
    parser.add_argument("--terms", nargs="+", default=[], metavar="NAME=INPUTS", help=text)
    text = "fit the rows whose loss lies within this share of the lowest of their N and D, and its neighbours (default: %(default)s)"
    parser.add_argument("--within", type=float, default=0.02, metavar="SHARE", help=text)
    text = "give the best values at these inputs, such as N=1e9 D=2e10; can be repeated"
    parser.add_argument("--at", nargs="+", action="append", default=[], metavar="NAME=VALUE", help=text)
    table.json_argument(parser)
    table.column_arguments(parser)
    table.interval_arguments(parser, chosen=False)


def run(args: argparse.Namespace) -> int:
    table.check_intervals(args)
    if not 0 < args.within < float("inf"):
        raise UserError(f"--within={args.within:g}: give a positive share, such as .02")
    swept = [pair.partition("=") for pair in args.sweep]
    args.input += [f"{name}={column or name}" for name, _, column in swept]
    terms = {name: tuple(inputs.split(",")) for name, _, inputs in (pair.partition("=") for pair in args.terms)}
    if lacking := [name for name, inputs in terms.items() if not all(inputs)]:
        raise UserError(f"--terms {lacking[0]}: write NAME=INPUTS, such as batch=D or lr=N,D")
    at = [table.numbers_of("--at", pairs) for pairs in args.at]
    from lm.scaling import sweeps

    settings = sweeps.SweepSettings(args.within, terms, args.level, args.draws, args.seed)
    runs = table.table_of(args)
    table.check_values(runs, catalogue.law("chinchilla"))  # N and D are what a sweep's cells are told apart by
    made = sweeps.analyse(runs, [name for name, _, _ in swept], settings, at)
    print(to_json(made) if args.json else short(_text(made)), end="" if args.json else "\n")
    found = any(isinstance(answer, Estimate) for cell in made.cells for answer in cell.best.values())
    return 0 if found or any(not isinstance(law, Refusal) for law in made.laws.values()) else 1


def _text(made: "SweepAnalysis") -> str:
    names = list(made.laws)
    noise = ("" if made.noise is None else f"; residuals {made.noise:.2%}") + f"; {made.level:.0%} intervals"
    lines = [
        f"{made.source}: {counted(len(made.cells), 'cell')} of N and D; quadratics of log loss "
        f"within {made.within:.1%} of the lowest{noise}"
    ]
    rows = []
    for cell in made.cells:
        loss = "-" if cell.loss is None else digits(cell.loss, 4)
        rows.append([f"{cell.n:.3g}", f"{cell.d:.3g}", f"{cell.used} of {cell.rows}", loss, *(_short(cell.best[name]) for name in names)])
    lines += aligned(["N", "D", "rows", "loss", *(f"best {name}" for name in names)], rows)
    refused = [answer.reason for cell in made.cells if isinstance(answer := cell.best[names[0]], Refusal)]
    lines += [f"  refused: {reason}" for reason in refused[:SHOWN]]
    lines += [f"  and {len(refused) - SHOWN} more, which --json holds"] if len(refused) > SHOWN else []
    why = missing(answer for cell in made.cells for answer in cell.best.values())
    lines += [f"  no intervals: {why}"] if why else []
    for name, law in made.laws.items():
        if isinstance(law, Refusal):
            lines.append(f"{name}: {said(law)}")
            continue
        equation = " ".join([f"{name} = c", *(f"{term}^{letter}" for term, letter in zip(law.exponents, "ab", strict=False))])
        lines.append(f"{equation}, over {counted(law.cells, 'cell')} that scatter by {law.scatter:.1%}")
        lines.append(f"  c = {said(law.c)}")
        lines += [f"  {letter} = {said(value)}" for letter, value in zip("ab", law.exponents.values(), strict=False)]
        for within, exponents in law.windows.items():
            values = ", ".join(f"{letter} {value:.3g}" for letter, value in zip("ab", exponents.values(), strict=False))
            lines.append(f"  with --within={within}: {values}")
        lines += folded([law.caution.message] if law.caution else [])
    return "\n".join(lines + [_at(one) for one in made.at])


def _short(answer: "Answer") -> str:
    if isinstance(answer, Refusal):
        return f"refused ({answer.kind})"
    interval = "" if answer.low is None or answer.high is None else f" ({digits(answer.low)} to {digits(answer.high)})"
    return f"{digits(answer.value)}{interval}"


def _at(one: "SettingAt") -> str:
    where = ", ".join(f"{name} {value:.3g}" for name, value in one.inputs.items())
    return f"at {where}: {one.name} {said(one.value)}"
