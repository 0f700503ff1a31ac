"""`python -m experiments`: a whole study through its verbs, with a training function that takes no time."""

import dataclasses
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import small_study

from experiments import commands
from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.model.flops import ledger
from lm.scaling import results
from lm.study import gate
from lm.study.rows import read_rows

HERE = pathlib.Path(__file__).parent
PATH = os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))
VERBS = ("plan", "run", "status", "forecast", "fit", "report")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Commands on a small study whose data are prepared, and what they print."""
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.setattr(commands.data_info, "info", lambda config, data_dir: small_study.DATA)
    return commands.Commands(small_study.small(), tmp_path / "s", tmp_path / "data", None, small_study.TRAIN, io.StringIO())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that went through `all`: its directory, the exit status, and what was printed."""
    root = tmp_path_factory.mktemp("finished") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)
        patch.setattr(commands.data_info, "info", lambda config, data_dir: small_study.DATA)
        out = io.StringIO()
        made = commands.Commands(small_study.small(), root, root.parent / "data", None, small_study.TRAIN, out)
        status = made.do("all")
    return root, status, out.getvalue()


def _copy(finished, study):
    shutil.copytree(finished[0], study.root)
    return study


def test_one_command_does_everything(finished):
    root, _, printed = finished
    rows = read_rows(root)
    assert all(row.completed for row in rows)
    stored = gate.read_forecast(root)
    assert set(stored["runs"]) <= {row.id for row in rows if row.stage == 0}
    for name in ("study.json", "forecast.json", "fit.json", "summary.json", "report.html"):
        assert (root / name).stat().st_size > 0
    assert f"report: {root / 'report.html'}" in printed
    assert "forecast written" in printed


def test_the_second_call_changes_nothing(finished, study):
    _copy(finished, study)
    before = {path: path.stat().st_mtime_ns for path in study.root.rglob("*") if path.is_file()}
    assert study.do("all") == finished[1]
    assert {path: path.stat().st_mtime_ns for path in study.root.rglob("*") if path.is_file()} == before


def test_fit_prints_its_results_as_json(finished, study, capsys):
    _copy(finished, study)
    status = study.do("fit", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["exponents"]) == {"envelope", "isoflop", "parametric"}
    assert set(printed["sigma"]) == {"2e+11", "5e+11", "1e+12"}
    assert printed["forecast"]["cells"] == 3
    assert status == (1 if printed["failures"] else 0)


def test_a_report_is_of_the_runs_as_they_are(finished, study):
    _copy(finished, study)
    before = [(study.root / name).read_text(encoding="utf-8") for name in ("fit.json", "report.html")]
    path = next(study.root.glob("cells/*/run.json"))
    record = json.loads(path.read_text(encoding="utf-8"))
    record["final"]["nats_per_byte"] *= 1.02
    path.write_text(json.dumps(record), encoding="utf-8")
    assert study.do("report") == 0
    after = [(study.root / name).read_text(encoding="utf-8") for name in ("fit.json", "report.html")]
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_failed_checks_are_one_line_each_and_an_exit_status(finished, study, capsys):
    _copy(finished, study)
    path = study.root / "summary.json"
    made = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(made | {"failures": ["5e+11 FLOPs: no minimum"]}), encoding="utf-8")
    assert study.do("fit") == 1
    assert "check failed: 5e+11 FLOPs: no minimum\n" in capsys.readouterr().err


def test_verbs_say_what_must_come_before_them(study):
    with pytest.raises(UserError, match="holds no study"):
        study.do("status")
    study.do("plan")
    study.do("status")
    assert "0/19 cells finished" in study.out.getvalue()
    with pytest.raises(UserError, match="16 cells of the first stage are not finished"):
        study.do("forecast")
    with pytest.raises(UserError, match="no run of the study has completed"):
        study.do("fit")


def test_too_few_completed_cells_end_the_study(study, monkeypatch):
    monkeypatch.setenv("FAKE_DIVERGE", "32")
    with pytest.raises(UserError, match=r"1. of 16 cells completed, and the study asks for 90%"):
        study.do("run")
    assert gate.read_forecast(study.root) is None
    study.do("status")
    assert "excluded cell" in study.out.getvalue()


def test_a_refused_plan_writes_nothing(study, capsys):
    hard = dataclasses.replace(study, study=small_study.small(limits=dataclasses.replace(study.study.limits, min_steps=100_000)))
    with pytest.raises(UserError, match="19 refusals; nothing was written"):
        hard.do("plan")
    assert capsys.readouterr().err.count("refused: cell") == 19
    assert not study.root.exists()


def test_an_edited_study_is_refused(finished, study):
    _copy(finished, study)
    edited = dataclasses.replace(study, study=small_study.small(bracket_factors=(0.25, 4.0)))
    with pytest.raises(UserError, match=r"bracket_factors: .*--dir"):
        edited.do("all")


@pytest.fixture
def trio(study):
    """The same for a comparison of three variants."""
    return dataclasses.replace(study, study=small_study.comparison())


def test_a_comparison_goes_through_the_same_commands(trio):
    assert trio.do("all") == 0
    printed = trio.out.getvalue()
    assert "[9/9] denoising, " in printed
    assert "nats/target" in printed
    assert "encoder_decoder − decoder" in printed
    made = results.from_json((trio.root / "comparison.json").read_text(encoding="utf-8"))
    assert {(pair.a, pair.b): pair.better for pair in made.pairs}["prefix_lm", "decoder"] == "prefix_lm"
    before = {path: path.stat().st_mtime_ns for path in trio.root.rglob("*") if path.is_file()}
    assert trio.do("all") == 0  # the second time nothing is written
    assert {path: path.stat().st_mtime_ns for path in trio.root.rglob("*") if path.is_file()} == before
    trio.do("status")
    assert "denoising: prefix_lm  3/3 completed" in trio.out.getvalue()
    assert "forecast" not in trio.out.getvalue()


@pytest.mark.parametrize("verb", ["fit", "forecast"])
def test_a_comparison_has_no_laws(trio, verb):
    with pytest.raises(UserError, match=f"trio is a comparison and has no {verb}; it has all, plan, run, status, report"):
        trio.do(verb)
    assert not trio.root.exists()


def test_a_comparison_that_lost_too_many_runs_says_so(trio, monkeypatch):
    monkeypatch.setenv("FAKE_DIVERGE", "32")
    with pytest.raises(UserError, match="0 of 9 cells completed"):
        trio.do("all")
    with pytest.raises(UserError, match="no run of group denoising has completed"):
        trio.do("report")


def test_unknown_studies_are_named():
    assert {"chinchilla", "chinchilla_bpe", "t5_architectures"} <= set(commands.names())
    with pytest.raises(UserError, match="did you mean chinchilla"):
        commands.load("chinchila")
    with pytest.raises(UserError, match=r"no file nowhere/study\.py"):
        commands.load("nowhere/study.py")


def test_a_study_of_the_users_own_is_read_from_its_file(tmp_path):
    path = tmp_path / "study.py"
    path.write_text("import small_study\nget_study = small_study.small\n", encoding="utf-8")
    assert commands.load(str(path)) == small_study.small()
    path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="must return a"):
        commands.load(str(path))


@pytest.mark.parametrize("name", commands.names())
def test_the_studies_here_can_be_planned(name):
    from lm.study import plan

    study = commands.load(name)
    ids = getattr(study.base.data.tokenizer, "vocab_size", study.base.model.vocab_size)
    data = small_study.DATA | {"tokens_per_epoch": 90_000_000, "tokenizer": {"vocab_size": ids}}
    made = plan.make(study, data)
    assert made.refusals == []
    assert not any(p.marks for p in made.planned)
    assert hash(study) == hash(commands.load(name))


@pytest.mark.parametrize("arguments", [["--help"], ["chinchila"], ["chinchilla", "plot"], ["chinchilla", "status", "--json"]])
def test_the_command_line_answers_without_jax(arguments):
    command = [sys.executable, "-X", "importtime", "-m", "experiments", *arguments]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == (arguments == ["--help"])
    assert "| jax\n" not in done.stderr
    assert all(verb in done.stdout for verb in VERBS) == (arguments == ["--help"])


@pytest.mark.parametrize("path", ["t5_architectures", "experiments/t5_architectures/large.py"])
def test_five_architectures_have_the_parameters_of_table_2(path):
    study = commands.load(path)
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
