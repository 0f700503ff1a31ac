"""A small study from the command to its report: every figure, every cell, refusals as text, and nothing loaded from elsewhere."""

import base64
import dataclasses
import html
import json
import pathlib
import re
import shutil
import warnings

import numpy as np
import pytest
import small_study

from lm import files, report
from lm.analysis import analysis
from lm.report import pictures
from lm.report.figures import laws
from lm.report.pictures import CAPTIONS
from lm.scaling.page import cells
from lm.scaling.results import Refusal
from lm.scaling.settings import AnalysisSettings
from lm.scaling.words import typeset
from lm.study import gate
from lm.study.rows import read_rows
from lm.study.study import Budget
from tests.drawn import kept, legends_inside, overlaps

SIZES = (1, 2, 3, 4, 6, 8)
STUDY = small_study.small(
    budgets=(
        Budget(1e11, SIZES, repeats=(2, 3, 6), brackets=(2, 6)),
        Budget(2.5e11, SIZES, repeats=(3,), brackets=(4,)),
        Budget(6e11, SIZES),
        Budget(1.5e12, (2, 3, 4, 6, 8), stage=1),
    ),
    analysis=AnalysisSettings(draws=60, table_draws=10),
    limits=dataclasses.replace(small_study.small().limits, min_steps=20),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_starts_in_module):
    """A study that went through the verb `all`: its directory, its analysis, the exit status, and what was printed."""
    root = tmp_path_factory.mktemp("report") / "s"
    with pytest.MonkeyPatch.context() as patch:

        def run(launcher, root, before_stage_1, view):
            def forecast_then_diverge():
                patch.setenv("FAKE_DIVERGE", "64")  # the largest size of the last budget
                return before_stage_1()

            return small_study.train_here(launcher, root, forecast_then_diverge, view)

        verbs = small_study.commands_on(STUDY, root, patch, run)
        status = verbs.do("all")
    return root, analysis.read(root / "fit.json"), status, verbs.out.getvalue()


@pytest.fixture
def again(finished, tmp_path, monkeypatch):
    """The verbs of a copy of the finished study."""
    return small_study.commands_on(STUDY, pathlib.Path(shutil.copytree(finished[0], tmp_path / "s")), monkeypatch)


@pytest.fixture(scope="module")
def page(finished):
    return (finished[0] / "report.html").read_text(encoding="utf-8")


def visible(page):
    """The text that a reader sees."""
    body = re.sub(r"<(style|title)>.*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def _pictures(page):
    return [base64.b64decode(data).decode() for data in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)]


def test_one_command_does_everything(finished):
    root, _, _, printed = finished
    rows = read_rows(root)
    assert [row.status for row in rows if not row.completed] == ["diverged"]
    stored = gate.read_forecast(root)
    assert set(stored["runs"]) <= {row.id for row in rows if row.stage == 0}
    for name in ("study.json", "forecast.json", "fit.json", "summary.json", "report.html"):
        assert (root / name).stat().st_size > 0
    assert f"report: {root / 'report.html'}" in printed
    assert stored["sha256"][:16] in printed


def test_the_second_call_changes_nothing_and_fit_prints_its_results_as_json(finished, again, capsys):
    before = {path: path.stat().st_mtime_ns for path in again.root.rglob("*") if path.is_file()}
    assert again.do("all") == finished[2]
    capsys.readouterr()
    assert again.do("fit", as_json=True) == finished[2]
    printed = json.loads(capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in again.root.rglob("*") if path.is_file()} == before
    assert set(printed["exponents"]) == {"envelope", "isoflop", "parametric"}
    assert set(printed["sigma"]) == {"1e+11", "2.5e+11", "6e+11", "1.5e+12"}
    assert printed["forecast"]["cells"] == 4
    assert finished[2] == (1 if printed["failures"] else 0)


def test_every_figure_is_drawn_twice_and_shown_once(finished, page):
    root = finished[0]
    for name in CAPTIONS:
        assert (root / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (root / "figures" / f"{name}.svg").stat().st_size > 2000
        assert page.count(f'<figure id="{name}" ') == 1
    assert len(_pictures(page)) == len(CAPTIONS)


def test_the_same_results_give_the_same_bytes_and_no_text_of_a_figure_overlaps_another(finished, page):
    root = finished[0]
    before = {path.name: path.read_bytes() for path in (root / "figures").iterdir()}
    with kept() as figures:
        report.write(root)
    assert (root / "report.html").read_text(encoding="utf-8") == page
    assert {path.name: path.read_bytes() for path in (root / "figures").iterdir()} == before
    assert [(overlaps(figure), legends_inside(figure)) for figure in figures] == [([], [])] * len(CAPTIONS)


def test_the_page_and_its_figures_load_nothing(page):
    for text in (page, *_pictures(page)):
        targets = re.findall(r"""(?:\bsrc|\bhref|xlink:href)\s*=\s*["']([^"']*)["']""", text)
        assert all(target.startswith(("data:", "#")) for target in targets)
        assert not re.search(r"@import|<link|<script|<iframe|url\(\s*['\"]?https?:", text)
    assert "http://" not in page
    assert "https://" not in page


def test_every_cell_is_in_the_table_with_its_use(finished, page):
    root, fitted, *_ = finished
    rows = read_rows(root)
    assert all(page.count(f"<td>{row.id}</td>") == 1 for row in rows)
    (excluded,) = fitted.excluded
    assert f"<td>{excluded.id}</td>" in page
    assert "<td>diverged: loss is not finite at step 7</td>" in page
    assert page.count("<td>learning rate</td>") == sum(row.role == "bracket" for row in rows)


def test_nothing_that_is_missing_is_written_as_a_number_or_a_name_of_the_language(page):
    found = re.findall(r".{30}\b(?:nan|NaN|None|inf|True|False)\b.{30}|Refusal\(|Estimate\(|\{'", visible(page))
    assert found == []


def test_refusals_are_shown_as_text(finished, page):
    fitted = finished[1]
    text = visible(page)
    assert isinstance(fitted.envelope.a, Refusal)
    assert text.count(fitted.envelope.a.reason) == 1
    assert len(fitted.failures) > 0
    for line in fitted.failures:
        assert text.count(f"No clear minimum: {typeset(line)}") == 1


def test_numbers_on_the_page_are_those_of_the_analysis(finished, page):
    root, fitted, *_ = finished
    text = visible(page)
    for answer in (fitted.isoflop.a, fitted.isoflop.b, fitted.parametric.a_counted):
        assert f"{answer.value:.3f} ({answer.low:.3f} to {answer.high:.3f})" in text
    assert f"with the power law's own error {fitted.isoflop.a_with_error.value:.3f} ({fitted.isoflop.a_with_error.low:.3f} to" in text
    for own in (fitted.parametric.a_with_error, fitted.parametric.a_counted_with_error):
        assert f"{own.value:.3f} ({own.low:.3f} to" in text
    for sigma in fitted.sigma.values():
        assert f"{100 * sigma.value:.2f} ({100 * sigma.low:.2f} to {100 * sigma.high:.2f})" in text
    for bracket in fitted.brackets:
        rule = bracket.loss[bracket.factors.index(min(bracket.factors, key=lambda f: abs(f - 1)))]
        for loss in bracket.loss:
            assert f"{loss:.4f}" + (f" ({loss / rule - 1:+.2%})" if loss != rule else "") in text
    for cell in fitted.score.cells:
        assert f"{cell.predicted:.4f}" in text
        assert f"{100 * cell.error:+.2f}%" in text
    stored = json.loads((root / "forecast.json").read_text(encoding="utf-8"))
    assert stored["sha256"] in text
    assert stored["time"] in text


def test_what_to_train_next_stands_first_with_intervals(finished, page):
    fitted, text = finished[1], visible(page)
    largest = max(row.budget for row in read_rows(finished[0]))
    assert [one.flops for one in fitted.recommended] == pytest.approx([10 * largest, 100 * largest])
    for one in fitted.recommended:
        for answer, number in ((one.n, cells.count), (one.d, cells.count), (one.loss, cells.four)):
            shown = f"{number(answer.value)} ({number(answer.low)} to {number(answer.high)})"
            assert text.index(shown) < text.index("IsoFLOP profiles")
    assert re.search(r"\d{4}-\d\d-\d\d", text).start() < text.index("What to train next")
    assert f"<h1>{STUDY.name}" in page


def test_numbers_have_one_notation_and_columns_plain_names(page):
    text = visible(re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL))
    assert re.findall(r"(?<![\w.])\d(?:\.\d+)?e[+-]?\d{1,3}(?!\w)", text) == []
    heads = re.findall("<th>(.*?)</th>", page)
    assert not {"established", "draws lost", "sizes above 2σ"} & set(heads)
    assert not any("_" in head for head in heads)


def test_a_figure_without_anything_to_name_is_drawn_without_a_warning(finished, tmp_path, monkeypatch):
    fitted, refused = finished[1], Refusal("missing", "no counts")
    first, *rest = fitted.conventions
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        laws.conventions(tmp_path / "conventions", [dataclasses.replace(first, isoflop_a=refused, parametric_a=refused), *rest[:1]])
        bare = dataclasses.replace(fitted.isoflop, budgets=(), n_line=None, d_line=None)
        laws.allocation(tmp_path / "allocation", None, bare, None)


def test_a_figure_without_anything_to_show_is_left_out(finished):
    root, fitted, *_ = finished
    rows, why = read_rows(root), Refusal("edge", "no minimum")
    budgets = tuple(dataclasses.replace(b, n_star=why, d_star=why) for b in fitted.isoflop.budgets)
    isoflop = dataclasses.replace(fitted.isoflop, budgets=budgets, n_line=None, d_line=None)
    bare = dataclasses.replace(fitted, isoflop=isoflop, recommended=())
    assert set(pictures.figures(rows, fitted)) - set(pictures.figures(rows, bare)) == {"allocation"}
    without = [dataclasses.replace(row, curve=()) for row in rows]
    assert set(pictures.figures(rows, fitted)) - set(pictures.figures(without, fitted)) == {"loss_curves"}


def test_published_slopes_go_through_the_middle_of_the_minima(finished, tmp_path):
    isoflop = finished[1].isoflop
    with kept() as figures:
        laws.allocation(tmp_path / "allocation", None, isoflop, None)
    for axes, line in zip(figures[0].axes, (isoflop.n_line, isoflop.d_line), strict=True):
        middle = np.log(line.sampled).mean()
        slopes = [one for one in axes.get_lines() if str(one.get_label()).startswith("slope of")]
        assert len(slopes) == len(laws.PUBLISHED)
        for one in slopes:
            at = np.interp(middle, *np.log(one.get_data()))
            assert at == pytest.approx(np.interp(middle, np.log(line.flops), np.log(line.value)), abs=1e-6)


def test_the_share_of_verbatim_lines_is_shown_at_every_length(page):
    shares = small_study.DATA["components"][0]["info"]["verbatim_shares"]
    for length, share in shares.items():
        assert f"<td>{length}</td>\n<td>{share:.2%}</td>".replace("\n", "") in page.replace("\n", "")


def test_the_checklist_says_what_the_runs_were(page):
    text = visible(page)
    assert "d_model 8 to 64" in text
    assert "num_layers 2" in text
    assert "checked by brackets" in text
    assert "seen twice" in text


def test_a_study_that_refuses_everything_has_a_report_that_says_why(finished, tmp_path):
    root = shutil.copytree(finished[0], tmp_path / "s")
    names = ("noise", "envelope", "isoflop", "parametric", "score", "isoflop_without_gaps", "shape_classes")
    why = {name: Refusal("missing", f"the reason of {name}!") for name in names}
    sigma = dict.fromkeys(finished[1].sigma, why["noise"])
    bare = dataclasses.replace(finished[1], **why, sigma=sigma, checks=(), brackets=(), conventions=(), recommended=())
    files.write_text(root / "fit.json", analysis.to_json(bare))
    text = visible(report.write(root).read_text(encoding="utf-8"))
    for refusal in why.values():
        assert text.count(refusal.reason) == 1
