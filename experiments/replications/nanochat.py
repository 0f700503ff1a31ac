"""nanochat's IsoFLOP optima: how the exponents move with the counting of N, and what rounding the budgets costs."""

import pathlib

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, at_least, within

NAME = "nanochat"
PUBLISHED = {  # exponents of N* and D* as printed, and of the printed optima at the true budgets
    "transformer+lm_head": ((0.54, 0.536), (0.49, 0.489)),
    "all_params": ((0.37, 0.374), (0.50, 0.501)),
    "transformer_only": ((0.70, 0.696), (0.41, 0.406)),
}


def run(data: pathlib.Path) -> Replication:
    table = tables.read(data / "nanochat_isoflop" / "optima.csv")
    checks: list[Check] = []
    for convention, pairs in PUBLISHED.items():
        rows = table["convention"] == convention
        for of, name, (published, target) in zip(("params", "tokens"), ("a", "b"), pairs, strict=True):
            ours = tables.slope(table["flops_actual"][rows], table[of][rows])
            checks.append(within(f"{convention}: {name}", ours, target, 0.006, published))
    head = table["convention"] == "transformer+lm_head"
    rounded, true = (tables.slope(table[column][head], table["params"][head]) for column in ("flops", "flops_actual"))
    checks.append(at_least("a with true budgets less a with rounded ones", true - rounded, 0.01))
    notes = ("the log prints budgets rounded to 1, 2, 5 and 10e18; they were 1, 2.15, 4.64 and 10e18",)
    return Replication(NAME, checks=tuple(checks), notes=notes)
