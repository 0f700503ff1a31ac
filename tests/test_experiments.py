"""`python -m experiments`: what its verbs ask for, refuse and make again. Whole studies are in tests/report."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import types

import fake_train
import pytest
import small_study

from experiments import __main__ as command
from experiments import planning, stamp, studies
from lm import report
from lm.analysis import analysis, forecast, runs
from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.model.flops import ledger
from lm.scaling import results
from lm.scaling.tables import formats, selection
from lm.study import directory, gate, leases, plan, records, status, worker
from lm.study import rows as rows_lib

ROOT = pathlib.Path(__file__).parent.parent
VERBS = ("plan", "run", "retry", "status", "forecast", "fit", "report")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The verbs of a small grid."""
    return small_study.commands_on(small_study.small(), tmp_path / "s", monkeypatch)


@pytest.fixture
def trio(study):
    """The verbs of a comparison of three variants."""
    return dataclasses.replace(study, study=small_study.comparison())


@pytest.fixture
def made(monkeypatch):
    """Counts forecasts, fits and pages, none of which is computed."""
    count = {"forecast": 0, "fit": 0, "page": 0}

    def forecast_of(before, after, settings):
        count["forecast"] += 1
        return types.SimpleNamespace(made_from=[row.id for row in before])

    def analyse(rows, *rest):
        count["fit"] += 1
        return types.SimpleNamespace(summary=lambda: {"failures": ["5e+11 FLOPs: no minimum"], "losses": [row.loss for row in rows]})

    def write(root):
        count["page"] += 1
        (root / "figures").mkdir(exist_ok=True)
        (root / "report.html").write_text("page", encoding="utf-8")

    monkeypatch.setattr(forecast, "make", forecast_of)
    monkeypatch.setattr(results, "encode", lambda forecast: {"losses": {}})
    monkeypatch.setattr(results, "decode", lambda stored: stored)
    monkeypatch.setattr(analysis, "analyse", analyse)
    monkeypatch.setattr(analysis, "to_json", lambda fitted: json.dumps(fitted.summary()))
    monkeypatch.setattr(report, "write", write)
    return count


def test_results_are_made_once_and_again_when_a_run_changes(study, made, capsys):
    assert study.do("all", as_json=True) == 1
    captured = capsys.readouterr()
    assert captured.err == "check failed: 5e11 FLOPs: no minimum\n"
    assert json.loads(captured.out)["study"] == "small"
    assert made == {"forecast": 1, "fit": 1, "page": 1}
    study.do("all", as_json=True)
    study.do("forecast")
    assert study.do("report") == 0
    assert made == {"forecast": 1, "fit": 1, "page": 1}
    path = next(study.root.glob("cells/*/run.json"))
    record = json.loads(path.read_text(encoding="utf-8"))
    record["final"]["nats_per_byte"] *= 1.02
    path.write_text(json.dumps(records.sealed(record, 1)), encoding="utf-8")
    assert study.do("fit", as_json=True) == 1
    assert made == {"forecast": 1, "fit": 2, "page": 1}
    study.do("report")
    assert made == {"forecast": 1, "fit": 2, "page": 2}


def test_a_stamp_holds_the_values_and_the_code_that_makes_the_results(tmp_path):
    fit, page = (sorted(stamp.modules(code, ROOT)) for code in ("lm.analysis.analysis", "lm.report.page"))
    for name in ("lm.scaling.fits.solver", "lm.scaling.approaches.isoflop", "lm.analysis.brackets", "lm.study.rows", "lm.analysis"):
        assert name in fit
    assert "lm.report.tables" not in fit
    assert {*fit, "lm.report.tables", "lm.report.figures.laws", "lm.scaling.page.html"} <= set(page)
    changes = {
        ("lm/scaling/fits/solver.py",): {"fit", "page"},
        ("lm/report/tables.py",): {"page"},
        ("lm/report/page.html",): {"page"},
        ("lm/scaling/planning/power.py", "experiments/replications/epoch.py"): set(),
    }
    names = [name for group in changes for name in group]
    for path in {*stamp.modules("lm.report.page", ROOT).values(), *(ROOT / name for name in names)}:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())

    def stamps():
        codes = {"fit": "lm.analysis.analysis", "page": "lm.report.page"}
        return {(name, stamp.inputs(1, code=code, source=tmp_path)) for name, code in codes.items()}

    before = stamps()
    for group, expected in changes.items():
        for name in group:
            with open(tmp_path / name, "a", encoding="utf-8") as file:
                file.write("# more\n")
        after = stamps()
        assert {result for result, _ in after - before} == expected, group
        before = after
    assert stamp.inputs(1, code="lm.scaling.results") != stamp.inputs(2, code="lm.scaling.results")


def test_verbs_say_what_must_come_before_them(study):
    with pytest.raises(UserError, match="plan"):
        study.do("status")
    study.do("plan")
    study.do("status")
    assert "0/19 cells completed" in study.out.getvalue()
    with pytest.raises(UserError, match=r"16 cells .*`run`"):
        study.do("forecast")
    with pytest.raises(UserError, match="`run`"):
        study.do("fit")


def test_status_as_json_holds_every_cell_with_its_state(study, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_DIVERGE", "32")
    study.do("plan")
    assert study.do("status", as_json=True) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["states"] == {"pending": 19}
    with pytest.raises(UserError):
        study.do("run")
    capsys.readouterr()
    study.do("status", as_json=True)
    made = json.loads(capsys.readouterr().out)
    assert [cell["id"] for cell in made["cells"]] == [cell["id"] for cell in planned["cells"]]
    assert sum(made["states"].values()) == made["count"] == 19
    assert {cell["state"] for cell in made["cells"]} == set(made["states"]) >= {"completed", "diverged"}
    for cell in made["cells"]:
        assert (cell["reason"] is None) == (cell["state"] not in ("diverged", "failed"))
        assert (cell["loss"] is None) == (cell["state"] != "completed")
        assert cell["params"] > 0
    assert 0 < made["flops_done"] < made["flops"]


def test_too_few_completed_cells_end_the_study(study, monkeypatch):
    monkeypatch.setenv("FAKE_DIVERGE", "32")
    with pytest.raises(UserError, match=r"1. of 16 cells .*90%"):
        study.do("run")
    assert gate.read_forecast(study.root) is None
    study.do("status")
    assert "diverged cell" in study.out.getvalue()


def test_failed_cells_are_told_and_trained_again(trio, monkeypatch):
    """The cause and the command that trains them again are printed, and no file has to be removed."""
    study = dataclasses.replace(trio, retry="python -m experiments trio retry --dir=there")
    lenient = dataclasses.replace(study.study.limits, min_completed=0.5)
    study = dataclasses.replace(study, study=dataclasses.replace(study.study, limits=lenient))
    study.do("plan")
    cells = directory.open_study(study.root)["cells"]
    folders = [study.root / "cells" / cell["id"] for cell in cells[:3]]
    monkeypatch.setenv("FAKE_RAISE", "32")
    for _ in range(2):  # the first error is tried once more
        lease = leases.claim(study.root, cells[0]["id"])
        worker.run_cell(study.root, directory.open_study(study.root), cells[0], lease, fake_train.train, lambda line: None)
    monkeypatch.delenv("FAKE_RAISE")
    (folders[1] / "run.json").write_text('{"torn', encoding="utf-8")
    (folders[2] / "checkpoints" / "1").mkdir(parents=True)
    assert study.do("run") == 1
    printed = study.out.getvalue()
    for text in ("ValueError: asked to raise", "failures.txt", "run.json cannot be read", "no run.json", study.retry):
        assert text in printed
    study.do("status")
    assert "6/9 cells completed, 3 failed" in study.out.getvalue()
    assert study.do("retry") == 0
    assert status.read_status(study.root).count("completed") == 9
    assert not (folders[2] / "checkpoints" / "1").exists()
    assert study.do("retry") == 0  # nothing to do
    assert "9/9" not in study.out.getvalue().rpartition("no cell has failed")[2]


def test_a_refused_plan_writes_nothing(study, capsys):
    hard = dataclasses.replace(study, study=small_study.small(limits=dataclasses.replace(study.study.limits, min_steps=100_000)))
    with pytest.raises(UserError, match="19 refusals"):
        hard.do("plan")
    assert capsys.readouterr().err.count("refused: cell") == 19
    assert not study.root.exists()


def test_an_edited_study_is_refused(study):
    study.do("plan")
    edited = dataclasses.replace(study, study=small_study.small(bracket_factors=(0.25, 4.0)))
    with pytest.raises(UserError, match=r"bracket_factors.*--dir"):
        edited.do("all")


def test_a_comparison_goes_through_the_same_commands(trio):
    assert trio.do("all") == 0
    printed = trio.out.getvalue()
    assert "[9/9] denoising, " in printed
    assert "nats/target" in printed
    assert "encoder_decoder − decoder" in printed
    found = results.from_json((trio.root / "comparison.json").read_text(encoding="utf-8"))
    assert {(pair.a, pair.b): pair.better for pair in found.pairs}["prefix_lm", "decoder"] == "prefix_lm"
    before = {path: path.stat().st_mtime_ns for path in trio.root.rglob("*") if path.is_file()}
    assert trio.do("all") == 0  # the second time nothing is written
    assert {path: path.stat().st_mtime_ns for path in trio.root.rglob("*") if path.is_file()} == before
    trio.do("status")
    assert re.search(r"denoising: prefix_lm +3 +3\n", trio.out.getvalue())
    assert "forecast" not in trio.out.getvalue()


@pytest.mark.parametrize("verb", ["fit", "forecast"])
def test_a_comparison_has_no_laws(trio, verb):
    with pytest.raises(UserError, match=f"trio is a comparison .*{verb}"):
        trio.do(verb)
    assert not trio.root.exists()


def test_a_comparison_that_lost_too_many_runs_says_so(trio, monkeypatch):
    monkeypatch.setenv("FAKE_DIVERGE", "32")
    with pytest.raises(UserError, match="0 of 9 cells"):
        trio.do("all")
    with pytest.raises(UserError, match="denoising"):
        trio.do("report")


def test_studies_are_found_by_name_or_file(tmp_path):
    assert {"chinchilla", "chinchilla_bpe", "t5_architectures"} <= set(studies.names())
    with pytest.raises(UserError, match="did you mean chinchilla"):
        command.main(["chinchila"])
    with pytest.raises(UserError, match=r"nowhere/study\.py"):
        command.main(["nowhere/study.py"])
    path = tmp_path / "study.py"
    path.write_text("import small_study\nget_study = small_study.small\n", encoding="utf-8")
    assert studies.load(str(path)) == small_study.small()
    path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"get_study\(\)"):
        studies.load(str(path))


@pytest.mark.parametrize("name", studies.names())
def test_the_studies_here_can_be_planned(name):
    study = studies.load(name)
    ids = getattr(study.base.data.tokenizer, "vocab_size", study.base.model.vocab_size)
    data = small_study.DATA | {"tokens_per_epoch": 150_000_000_000, "tokenizer": {"vocab_size": ids}}
    planned = plan.make(study, data)
    assert planned.refusals == []
    assert not any(p.marks for p in planned.planned)
    assert hash(study) == hash(studies.load(name))


def test_the_help_names_every_verb(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in VERBS)


@pytest.mark.parametrize("words", ["plot", "run --json", "fit --detach", "status --from-start", "plan --watts=3", "fit 12ab"])
def test_words_that_do_not_belong_together_are_refused(words):
    with pytest.raises(UserError):
        command.main(["chinchilla", *words.split()])


def test_plan_and_status_import_no_jax(tmp_path):
    code = (
        "import io, pathlib, sys, pytest, small_study\n"
        "with pytest.MonkeyPatch.context() as patch:\n"
        "    study = small_study.commands_on(small_study.small(), pathlib.Path(sys.argv[1]), patch)\n"
        "    study.do('plan'), study.do('status')\n"
        "sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": ""}
    assert subprocess.run((sys.executable, "-c", code, str(tmp_path / "s")), env=environment, timeout=300).returncode == 0


@pytest.mark.parametrize("path", ["t5_architectures", "experiments/t5_architectures/large.py"])
def test_five_architectures_have_the_parameters_of_table_2(path):
    study = studies.load(path)
    counts = {v.name: ledger(v.config.model, row_shape(v.config.data, v.config.model.architecture)) for v in study.variants}
    blocks = {name: count.params["blocks"] for name, count in counts.items()}
    model = study.base.model
    cross = model.num_layers * 4 * model.d_model**2
    assert blocks["prefix LM"] == blocks["language model"] == model.num_layers * (4 * model.d_model**2 + 2 * model.d_model * model.mlp.d_ff)
    assert blocks["encoder-decoder"] == 2 * blocks["language model"] + cross  # table 2 counts 2 P, without cross-attention
    assert blocks["shared"] == blocks["language model"] + cross
    assert 0 < blocks["half the layers"] - blocks["language model"] <= 0.6 * cross
    assert len(study.cells()) == 30
    assert all(study.published.of(v.group, v.name) for v in study.variants)


@pytest.mark.parametrize("name", ["../x", "/x", "..", ""])
def test_a_study_whose_name_is_no_folder_is_refused(tmp_path, name):
    path = tmp_path / "study.py"
    path.write_text(f"import small_study\ndef get_study():\n    return small_study.small(name={name!r})\n", encoding="utf-8")
    with pytest.raises(UserError, match="name"):
        studies.load(str(path))


def test_some_cells_alone_are_trained_cancelled_and_taken_up_again(trio):
    few = dataclasses.replace(trio, how=dataclasses.replace(trio.how, max_cells=2))
    assert few.do("run") == 0
    state = status.read_status(trio.root)
    done = [c.cell for c in state.cells if c.state == "completed"]
    assert len(done) == 2
    assert max(cell["seconds"] for cell in done) <= min(c.cell["seconds"] for c in state.cells if c.state == "pending")
    chosen = next(c.cell["id"] for c in state.cells if c.state == "pending")
    assert trio.do("cancel", cells=[chosen[:8]]) == 0
    assert status.read_status(trio.root).count("cancelled") == 1
    with pytest.raises(UserError, match="zzz"):
        trio.do("cancel", cells=["zzz"])
    only = dataclasses.replace(trio, how=dataclasses.replace(trio.how, only=(chosen[:8],)))
    assert only.do("retry", cells=[chosen]) == 0
    assert {c.cell["id"]: c.state for c in status.read_status(trio.root).cells}[chosen] == "completed"


def test_the_table_of_all_runs_is_what_the_fits_of_the_study_read(study, monkeypatch):
    """Same N, D, C and losses, in the same order; runs that did not complete and brackets are left out by their columns."""
    monkeypatch.setenv("FAKE_RAISE", "24")
    lenient = dataclasses.replace(study.study.limits, min_completed=0.1)
    study = dataclasses.replace(study, study=dataclasses.replace(study.study, limits=lenient))
    study.do("run")
    assert study.do("collect") == 0
    rows = rows_lib.read_rows(study.root)
    settings = study.study.analysis
    expected = runs.runs_of([row for row in rows if row.completed], settings.n, settings.c, settings.planned_c)
    for name in ("runs.csv", "runs.parquet"):
        raw = selection.where(selection.finished(formats.read(str(study.root / name))), "role!=bracket")
        for column, values in (
            ("N", expected.inputs["N"]),
            ("D", expected.inputs["D"]),
            ("C", expected.inputs["C"]),
            ("loss", expected.loss),
        ):
            assert [float(cell) for cell in raw.columns[column]] == pytest.approx(list(values), rel=1e-15)
        assert len(raw) < sum(row.completed for row in rows) < len(rows)


def test_plans_are_of_the_text_as_it_is_and_results_need_none(study, monkeypatch):
    """Text that was changed after it was prepared is refused before anything is planned on it; a fit reads what the runs recorded."""

    def changed(component, data_dir):
        raise UserError("a.txt has changed since its corpus was prepared")

    study.do("run")
    monkeypatch.setattr(planning.corpora, "require_unchanged", changed)
    monkeypatch.setattr(planning.data_info, "info", lambda config, data_dir: small_study.DATA | {"fingerprint": "another"})
    with pytest.raises(UserError, match=r"a\.txt"):
        study.do("plan")
    for verb in ("run", "collect", "status"):
        assert study.do(verb) == 0
    assert study.planning.make("fit").fingerprint == small_study.DATA["fingerprint"]
    other = dataclasses.replace(study, root=study.root.parent / "other")
    with pytest.raises(UserError, match=r"a\.txt"):
        other.do("run")
