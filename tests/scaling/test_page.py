"""The pages of --report: what they say of themselves, their tables, and the files of their figures."""

import dataclasses
import re
import xml.etree.ElementTree

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import runs, table_analysis, table_summary, words
from lm.scaling.allocation import WithError
from lm.scaling.approaches import hull
from lm.scaling.page import document, figures, plan_page, provenance, table_page
from lm.scaling.planning.cells import NextCell, NextCells
from lm.scaling.planning.optimum import IsoLoss, Serving
from lm.scaling.planning.table_plan import TablePlan
from lm.scaling.results import Caution, Estimate, Refusal
from lm.scaling.sensitivity import Variant
from lm.scaling.table_analysis import TableSettings
from tests.drawn import kept, legends_inside, overlaps
from tests.scaling.test_figures_fits import analysis, law_of, table

PNG = b"\x89PNG\r\n\x1a\n"


def estimate(value):
    return Estimate(value, 0.98 * value, 1.02 * value, 0.8, "bootstrap over rows")


VARIANTS = (
    Variant(3, "as chosen", "", 84, estimate(0.5), None, False),
    Variant(3, "objective", "l1", 84, estimate(0.52), 0.02, True),
    Variant(3, "filter", "no row", 0, Refusal("too_few_points", "no rows are left"), None, False),
)


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    """Twelve budgets by seven sizes of a known law, the sizes of the first so few and far that its profile has no minimum."""
    made = table()
    kept = (made.budget != made.budget.min()) | (made.n > np.median(made.n[made.budget == made.budget.min()]))
    path = tmp_path_factory.mktemp("tables") / "runs.csv"
    columns = np.stack([made.n, made.d, made.loss, made.budget], axis=1)[kept]
    np.savetxt(path, columns, delimiter=",", header="Params,tokens,loss,budget", comments="")
    return path


@pytest.fixture(scope="module")
def written(csv, tmp_path_factory):
    """A page with all figures but that of one input, its text and the figures."""
    made = runs.read_table(csv, runs.Columns(budget="budget"))
    at, beyond = law_of(made).allocations
    at = dataclasses.replace(at, with_error=WithError(estimate(9e7), estimate(2e9), estimate(2.4), estimate(22.0)))
    law = dataclasses.replace(
        law_of(made), exponents={"a": estimate(0.5), "b": estimate(0.5)}, parameters={"A": estimate(400.0)}, allocations=(at, beyond),
        exponents_with_error={"a": estimate(0.6), "b": Refusal("missing", "nothing is known of b's error")},
    )  # fmt: skip
    profiles = table_analysis.fit_profiles(made, TableSettings(draws=50))
    whole = dataclasses.replace(
        analysis(law, profiles, hull.fit_hull(made)), cautions=(Caution("units", "C 1e+21 is far"),) * 2, sensitivity=VARIANTS
    )
    command = ["fit", "my runs.csv", "--budget=budget"]
    path = tmp_path_factory.mktemp("pages") / "out" / "laws.html"
    with kept() as drawn:
        found = table_page.write(path, whole, provenance.provenance(made, command), title="Laws & losses")
    return found, path.read_text(encoding="utf-8"), drawn


def test_a_page_says_how_it_was_made(written, csv):
    _, page, _ = written
    assert "<title>Laws &amp; losses</title>" in page
    assert "python -m lm.scaling fit &#39;my runs.csv&#39; --budget=budget" in page
    made = runs.read_table(csv, runs.Columns(budget="budget"))
    assert re.fullmatch("[0-9a-f]{64}", made.sha256)
    for said in (made.sha256, str(csv), *(one.column for one in made.read), "lm 0.", "20"):
        assert said in page
    assert re.search(r"\d{4}-\d\d-\d\d", page)
    assert "https://" not in page


def test_figures_are_files_too(written):
    found, page, _ = written
    folder = found.page.with_name("laws_files")
    names = ["allocation", "sensitivity", "isoflop", "surface", "residuals", "hull"]
    assert re.findall(r'<figure id="(\w+)"', page) == names
    assert list(found.files) == [folder / f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert sorted(folder.iterdir()) == sorted(found.files)
    for file in found.files:
        assert f'href="laws_files/{file.name}"' in page
        if file.suffix == ".svg":
            assert xml.etree.ElementTree.parse(file).getroot().tag.endswith("svg")
        else:
            assert file.read_bytes()[:8] == PNG
            assert int.from_bytes(file.read_bytes()[16:20], "big") > 800  # pixels across


def test_legends_lie_outside_and_no_text_overlaps_another(written):
    *_, drawn = written
    assert len(drawn) == 6
    assert [(overlaps(figure), legends_inside(figure)) for figure in drawn] == [([], [])] * 6


def test_the_level_of_intervals_and_each_reason_stand_once(written):
    _, page, _ = written
    tables = page.split('<p class="caption">')[1:]
    assert len(tables) == 6
    assert all(one.split("</table>")[0].count("80%") <= 1 for one in tables)
    assert sum("80%" in one.split("</table>")[0] for one in tables) == 5  # all but the evidence of the optimum
    assert page.count("C 10²¹ is far") == 1
    assert page.count("no rows are left") == 1
    assert page.count("a parabola and its noise need") == 1  # N*, D* and loss of the first budget
    assert not re.search(r"\de[+]\d", re.sub(r"<[^>]*>", "", page.split("<body>")[1]))


def test_both_kinds_of_intervals_stand_side_by_side(written):
    _, page, _ = written
    rows = [re.findall("<td>(.*?)</td>", row) for row in page.split("<tr>")]
    assert ["3, law", "a", "0.500", "0.490 to 0.510", "0.600 (0.588 to 0.612)"] in rows
    assert ["3, law", "b", "0.500", "0.490 to 0.510", "refused (missing)"] in rows
    assert ["", table_page.OWN.replace("'", "&#39;"), "90.0M (88.2M to 91.8M)", "2.00B (1.96B to 2.04B)"] in [row[:4] for row in rows]
    assert page.count("nothing is known of b&#39;s error") == 1


def test_a_refused_page_is_a_page(tmp_path, csv):
    refused = Refusal("too_few_points", "three rows")
    made = runs.read_table(csv)
    (tmp_path / "report_files").mkdir()
    for name in ("hull.png", "mine.png"):
        (tmp_path / "report_files" / name).write_bytes(b"")
    found = table_page.write(tmp_path, analysis(refused, refused, None), provenance.provenance(made))
    assert found.page == tmp_path / "report.html"
    assert found.files == ()
    assert [one.name for one in (tmp_path / "report_files").iterdir()] == ["mine.png"]
    assert found.page.read_text(encoding="utf-8").count("three rows") == 1


@pytest.mark.parametrize("name", ["laws.pdf", "laws.csv"])
def test_a_page_is_html_or_a_directory(name, tmp_path):
    with pytest.raises(UserError, match="html"):
        document.page_at(tmp_path / name)


@pytest.mark.parametrize(("count", "axes"), [(4, 1), (26, 2)])
def test_many_budgets_have_a_colour_bar(count, axes, tmp_path):
    c = np.repeat(np.geomspace(1e17, 1e21, count), 5)
    n = np.tile(np.geomspace(0.3, 3, 5), count) * np.sqrt(c / 120)
    frame = {"N": n, "D": c / 6 / n, "C": c, "loss": 1.7 + 60 / c**0.12 * (1 + 0.05 * np.log(n / np.sqrt(c / 120)) ** 2)}
    profiles = table_analysis.fit_profiles(runs.from_frame(frame, runs.Columns(budget="C")), TableSettings(draws=20))
    with kept() as drawn:
        figures.profiles(tmp_path / "isoflop", profiles)
    assert len(drawn[0].axes) == axes
    assert (drawn[0].axes[0].get_legend() is None) == (axes == 2)
    assert overlaps(drawn[0]) == []


def test_one_notation():
    counts = {30_900.0: "31k", 1.26e6: "1.3M", 2.4e9: "2.4B", 9.996e11: "1T", 310.0: "310", 0.0067: "0.0067"}
    assert {value: words.si(value) for value in counts} == counts
    assert [words.si(value, 3, zeros=True) for value in (2.4e9, 999.7e6, 12.0, 1.0)] == ["2.40B", "1.00B", "12.0", "1.00"]
    assert [words.scientific(value) for value in (2e11, 1.85e12, 1e12, 3e-7)] == ["2×10¹¹", "1.85×10¹²", "10¹²", "3×10⁻⁷"]
    assert words.typeset("C 1e+21, N 1.23456e9; p 2e-39, run 1e4b, 0.5") == "C 10²¹, N 1.23456×10⁹; p 2×10⁻³⁹, run 1e4b, 0.5"


def fitted_plan(made):
    """A plan without a fit: two optima, one of them without an interval, a model for a loss, a curve and two runs to add at one place."""
    path = tuple(law_of(made).allocations)
    serving = Serving(2.4, 1e12, *(estimate(v) for v in (4e8, 1.6e11, 400.0, 4e20, 8e20, 1.2e21, 2.2)), None)
    curve = IsoLoss(2.4, (1e8, 1e9), (1e12, 3e10), (6e20, 1.8e20))
    run = NextCell(1e8, 4e10, 2.4e19, 0.9)
    more = NextCells(1e21, 1e20, 4.8e19, estimate(3e9), 0.1, 0.8, "given", (run, dataclasses.replace(run, shrinks_to=0.8)), ())
    never = Refusal("extrapolation", "no model within reach has a loss of 1")
    return TablePlan("table", 84, "Chinchilla", "L = E", {"E": 1.8}, "bootstrap", path, (serving, never), (curve,), more, ())


def test_a_plan_is_such_a_page(tmp_path):
    made = table()
    page = tmp_path / "plan.html"
    with kept() as drawn:
        found = plan_page.write(page, fitted_plan(made), made, provenance.provenance(made, ["plan"]))
    assert [(overlaps(figure), legends_inside(figure)) for figure in drawn] == [([], [])] * 2
    assert [file.name for file in found.files] == ["plane.png", "plane.svg", "next_runs.png", "next_runs.svg"]
    text = page.read_text(encoding="utf-8")
    assert text.count("no model within reach has a loss of 1") == 1
    assert "400M (392M to 408M)" in text
    assert "1.2×10²¹ (1.18×10²¹ to 1.22×10²¹)" in text
    assert [row.count("<td>") for row in re.findall("<tr><td>[12]</td>.*</tr>", text)] == [5, 5]
    refused = plan_page.write(page, Refusal("too_few_points", "three rows"), made, provenance.provenance(made))
    assert refused.files == ()
    assert list((tmp_path / "plan_files").iterdir()) == []


def test_power_is_such_a_page(tmp_path, capsys):
    page = tmp_path / "power.html"
    budgets = ["--budgets", "1e17", "1e18", "1e19"]
    with kept() as drawn:
        status = command.main(["power", *budgets, "--sizes=5", "--studies=200", "--sigma=.003", "--title=My design", f"--report={page}"])
    assert status == 0
    assert [(overlaps(figure), legends_inside(figure)) for figure in drawn] == [([], [])]
    assert str(page) in capsys.readouterr().err
    text = page.read_text(encoding="utf-8")
    assert "<title>My design</title>" in text
    assert (tmp_path / "power_files" / "design.png").read_bytes()[:8] == PNG
    rows = re.findall("<tr><td>(10¹⁷|10¹⁸|10¹⁹|10²⁰)</td>", text)
    assert rows == ["10¹⁷", "10¹⁸", "10¹⁹", "10²⁰"]  # three budgets, and ten times the largest


def test_a_title_without_a_page_is_an_error():
    with pytest.raises(UserError, match="--report"):
        command.main(["power", "--budgets", "1e17", "1e18", "--title=x"])


def test_a_parameter_that_is_called_as_an_exponent_is_shown_beside_it():
    law = dataclasses.replace(law_of(table()), parameters={"a": estimate(62.0)}, exponents={"a": estimate(0.5), "b": estimate(0.5)})
    text = table_summary.render(analysis(law, None, None))
    assert "a = 62.0" in text
    assert text.count("= 0.500") == 2
