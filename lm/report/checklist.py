"""The reporting checklist of Li et al. 2025 (a survey of scaling-law papers, arXiv 2502.18969), filled in from the study."""

import math
from collections.abc import Sequence
from typing import Any

from lm.analysis.analysis import Analysis
from lm.errors import counted
from lm.report.records import words
from lm.report.tables import percent
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.words import scientific, si
from lm.study.rows import Row

Item = tuple[str, str]
GROUPS = ("", "attention.", "mlp.")  # parts of the model's configuration that hold the fields of a cell's shape


def fill(study: dict[str, Any], rows: Sequence[Row], analysis: Analysis) -> list[tuple[str, list[Item]]]:
    """Returns the checklist: title of a section -> questions with their answers."""
    return [
        ("The law", _law(rows, analysis)),
        ("Counting", _counting(analysis)),
        ("The runs", _runs(study, rows, analysis)),
        ("Training", _training(study, rows)),
        ("The fit", _fit(analysis)),
        ("Reproduction", _reproduction(study, rows)),
    ]


def _law(rows: Sequence[Row], analysis: Analysis) -> list[Item]:
    fitted = analysis.parametric
    if isinstance(fitted, Parametric):
        values = ", ".join(f"{name} = {value:.8g}" for name, value in fitted.values.items())
    else:
        values = "refused, see above"
    return [
        ("Form", "N* ~ C^a and D* ~ C^b (approaches 1 and 2); L(N, D) = E + A / N^alpha + B / D^beta (approach 3)"),
        ("Fitted values", values),
        ("What varies", f"training tokens, and of the shape: {_shape(rows, True)}"),
        ("What is fixed", f"{_shape(rows, False)}, context {rows[0].sequence_length}"),
    ]


def _shape(rows: Sequence[Row], varying: bool) -> str:
    """Lists the fields of the shape that take several values over the cells, or (`varying` false) those that take one."""
    found = []
    for field in rows[0].shape:
        values = sorted({row.shape[field] for row in rows})
        if (len(values) > 1) == varying:
            found.append(f"{field} {values[0]}" + (f" to {values[-1]}" if varying else ""))
    return ", ".join(found) or "nothing"


def _counting(analysis: Analysis) -> list[Item]:
    names = {"total": "all", "non_embedding": "without input and position embeddings", "matmul": "those that enter matrix products"}
    flops = {
        "6nd": "6 N D",
        "matmul_full": "three times the forward matrix products, attention over all pairs",
        "matmul_causal": "three times the forward matrix products, attention over visible pairs",
    }
    n, c = str(analysis.settings["n"]), str(analysis.settings["c"])
    return [
        ("N", f"{n} parameters: {names.get(n, n)}; the head is counted"),
        ("D", "document tokens consumed once, end-of-document tokens included"),
        ("C", f"{c}: {flops.get(c, c)}; elementwise work, optimizer and rematerialisation left out"),
        ("Other conventions", "in the table of conventions above"),
        ("Loss", "nats summed over all tokens of whole held-out documents over their UTF-8 bytes, strided windows"),
    ]


def _runs(study: dict[str, Any], rows: Sequence[Row], analysis: Analysis) -> list[Item]:
    used = [row for row in rows if row.id in set(analysis.used)]
    n, d = [row.n() for row in used], [row.tokens for row in used]
    budgets = sorted({row.budget for row in rows})
    data = study["data"]
    corpora = ", ".join(component["corpus"] for component in data["components"])
    epochs = max(row.tokens for row in rows) / data["tokens_per_epoch"]
    seen = "no token is seen twice" if epochs <= 1 else f"tokens are seen up to {math.ceil(epochs)} times"
    unmeasured = "; what its tokens lose of the text was not measured (before 0.6.0)" if "lost_bytes" not in data else ""
    return [
        ("Number of runs", f"{len(rows)} planned, {len(used)} used, {len(analysis.excluded)} excluded by rule (table of cells)"),
        ("Range of N", f"{si(min(n), 3)} to {si(max(n), 3)}"),
        ("Range of D", f"{si(min(d), 3)} to {si(max(d), 3)} tokens"),
        ("Range of C", f"{scientific(budgets[0])} to {scientific(budgets[-1])} FLOPs in {counted(len(budgets), 'budget')}"),
        ("Data", f"{corpora}, fingerprint {study['fingerprint']}; {seen}{unmeasured}"),
        ("Grid fixed before the fit", "yes: study.json is written before the first run and not changed afterwards"),
    ]


def _training(study: dict[str, Any], rows: Sequence[Row]) -> list[Item]:
    base, definition = study["definition"]["base"], study["definition"]
    optim = base["optim"]
    schedule = optim["schedule"]
    rule = dict(definition["learning_rate"])
    name, factors = rule.pop("rule"), definition["bracket_factors"]
    bracketed = sum(bool(budget["brackets"]) for budget in definition["budgets"])
    checked = f"checked by brackets of factors {', '.join(f'{f:g}' for f in factors)}" if bracketed else "not checked in this study"
    return [
        ("Architecture", words(base["model"], without=[f"{group}{field}" for group in GROUPS for field in rows[0].shape])),
        ("Optimizer", f"AdamW, betas {optim['beta1']}, {optim['beta2']}, weight decay {optim['weight_decay']}, clip {optim['clip_norm']}"),
        ("Learning rate", f"{name} with {', '.join(f'{k} = {v}' for k, v in rule.items())}; {checked}"),
        ("Schedule", f"{words(schedule)}; warm-up the smaller of {percent(optim['warmup_fraction'], 0)} of the run and N tokens"),
        ("Batch", f"{min(r.batch_size for r in rows)} to {max(r.batch_size for r in rows)} sequences of {rows[0].sequence_length} tokens"),
        ("Which checkpoints", "the end of each run, after its learning rate has decayed; approach 1 uses constant-rate points only"),
        ("Arithmetic", f"{base['compute_dtype']} compute, float32 parameters and optimizer state"),
    ]


def _fit(analysis: Analysis) -> list[Item]:
    settings, noise, fitted = analysis.settings, analysis.noise, analysis.parametric
    seeds = (
        f"{noise.dof} degrees of freedom over {counted(len(noise.cells), 'cell')}"
        if isinstance(noise, NoiseModel)
        else "not measured, see above"
    )
    items = [
        ("Objective", f"Huber (delta {settings['delta']:g}) on log loss for approach 3; least squares for approach 2"),
        ("Seed noise", seeds),
        (
            "Intervals",
            f"{settings['level']:.0%}, {counted(settings['draws'], 'draw')}: parametric bootstrap "
            "with sigma(C), and residual bootstrap beside it",
        ),
        ("Interval refused when", f"more than {percent(settings['max_lost'], 0)} of the draws have no interior minimum"),
    ]
    if isinstance(fitted, Parametric):
        condition = f"condition number of the scaled Jacobian {fitted.condition:.2g}, scaled gradient {fitted.gradient:.1g}"
        items += [
            (
                "Optimiser",
                f"{counted(fitted.starts, 'start')} in float64 with analytic gradients; {fitted.agreeing} end at the optimum; {condition}",
            ),
            ("Objective value", f"{fitted.objective_value:.10g}"),
        ]
    return items


def _reproduction(study: dict[str, Any], rows: Sequence[Row]) -> list[Item]:
    return [
        ("Command", f"python -m experiments {study['name']}, or the path of its study.py"),
        ("Code", str(study.get("revision"))),
        ("Data fingerprint", str(study["fingerprint"])),
        ("Results as data", "study.json, cells/*/run.json, forecast.json and fit.json beside this page"),
        ("Same bits", "same machine type, versions and number of cores per worker; elsewhere within the seed noise"),
    ]
