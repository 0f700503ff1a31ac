"""The figures of a report in reading order, each with its caption; a figure whose fit was refused is left out."""

import pathlib
from collections.abc import Callable, Sequence

from lm.analysis.analysis import Analysis
from lm.analysis.envelope import Envelope
from lm.analysis.recommend import Recommendation
from lm.analysis.score import Score
from lm.report.figures import laws, runs, support
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Estimate, Refusal
from lm.study.rows import Row

CAPTIONS = {
    "isoflop_profiles": (
        "Loss at the end of training against model size, one colour per compute budget. Lines are the parabolas of approach 2, "
        "fitted in log N; stars are their minima and the bars below them the intervals of N*. Error bars are one standard deviation "
        "of the seed noise."
    ),
    "allocation": (
        "Compute-optimal size and tokens against compute. Bands are statistical intervals; dashes extrapolate. Red: the recommended models "
        "with intervals that hold the law's own error. The exponents need not add to 1, since C also counts attention. Grey lines have the "
        "slopes of published fits to web text and are moved onto the minima, since nothing else of them can be compared."
    ),
    "loss_curves": (
        "Held-out loss during training of every run of the grid, on a fixed part of the held-out text; dots are the ends. The "
        "steep ends are the decay of the learning rate, which approach 1 leaves out."
    ),
    "surface": "The law of approach 3 over the cells it was fitted to, with its compute-optimal path.",
    "residuals": "Measured over fitted loss of approach 3. A trend would be something that the law misses.",
    "forecast": "Losses of the largest budget as forecast before its first run started, and as measured.",
    "noise": "Standard deviation of the loss over seeds (initial parameters and order of the data), and the model that weighs every fit.",
    "brackets": "Loss at half and twice the learning rate of the rule.",
    "conventions": (
        "The exponent of N* under every way of counting parameters and FLOPs. Under conventions other than the planned one, "
        "losses are interpolated in log C to common budgets."
    ),
}


def draw(folder: pathlib.Path, rows: Sequence[Row], analysis: Analysis) -> list[dict[str, str]]:
    """Draws the figures that the analysis supports into `folder`; returns the name and caption of each."""
    drawn = []
    for name, make in figures(rows, analysis).items():
        make(folder / name)
        drawn.append({"name": name, "caption": CAPTIONS[name]})
    return drawn


def _allocates(isoflop: Isoflop, recommended: Sequence[Recommendation]) -> bool:
    """Says whether there is an N* or D* to draw."""
    answers = [*(answer for b in isoflop.budgets for answer in (b.n_star, b.d_star)), *(one.n for one in recommended)]
    return any(isinstance(answer, Estimate) for answer in answers)


def figures(rows: Sequence[Row], analysis: Analysis) -> dict[str, Callable[[pathlib.Path], None]]:
    """Returns what draws each figure that the analysis supports."""
    isoflop, parametric, envelope = analysis.isoflop, analysis.parametric, analysis.envelope
    found: dict[str, Callable[[pathlib.Path], None]] = {}
    if runs.curves(rows):
        found["loss_curves"] = lambda path: runs.loss_curves(path, rows)
    if isinstance(isoflop, Isoflop):
        found["isoflop_profiles"] = lambda path: runs.isoflop_profiles(path, isoflop)
    if isinstance(isoflop, Isoflop) and _allocates(isoflop, analysis.recommended):
        surface = parametric if isinstance(parametric, Parametric) else None
        staircase = envelope if isinstance(envelope, Envelope) else None
        found["allocation"] = lambda path: laws.allocation(path, staircase, isoflop, surface, analysis.recommended)
    if isinstance(parametric, Parametric):
        found["surface"] = lambda path: laws.surface(path, parametric)
        found["residuals"] = lambda path: laws.residuals(path, parametric)
    if isinstance(analysis.score, Score) and analysis.forecast is not None:
        made, score = analysis.forecast, analysis.score
        found["forecast"] = lambda path: support.forecast(path, made, score)
    if isinstance(analysis.noise, NoiseModel):
        noise, budgets = analysis.noise, sorted({row.budget for row in rows})
        found["noise"] = lambda path: support.noise(path, noise, budgets)
    if analysis.brackets:
        found["brackets"] = lambda path: support.brackets(path, analysis.brackets)
    if any(not isinstance(answer, Refusal) for row in analysis.conventions for answer in (row.isoflop_a, row.parametric_a)):
        found["conventions"] = lambda path: laws.conventions(path, analysis.conventions)
    return found
