"""The command: what it prints, what it exits with, and what it says about names and folders that are not there."""

import shlex
from pathlib import Path

import pytest

from experiments.replications import __main__ as command
from experiments.replications import nanochat, papers, published_numbers, sources
from lm.errors import UserError
from lm.scaling.results import Refusal, from_json, to_json

OPTIMA = """convention,flops,flops_actual,params,tokens,ratio,val_bpb
{rows}"""


@pytest.fixture
def folder(tmp_path):
    """nanochat's table with known slopes: N ~ C^a, D ~ C^b at the published exponents, and 3 decades of compute."""
    rows = []
    for convention, ((_, a), (_, b)) in nanochat.PUBLISHED.items():
        for i, c in enumerate((1e18, 2.15e18, 4.64e18, 1e19)):
            rounded = (1e18, 2e18, 5e18, 1e19)[i]
            rows.append(f"{convention},{rounded},{c},{1e-3 * c**a!r},{1e-2 * c**b!r},1,1")
    (tmp_path / "nanochat_isoflop").mkdir()
    (tmp_path / "nanochat_isoflop" / "optima.csv").write_text(OPTIMA.format(rows="\n".join(rows)), encoding="utf-8")
    return tmp_path


def test_prints_a_table_per_paper_and_counts(capsys, folder):
    assert command.main(["nanochat", f"--data={folder}"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("nanochat: nanochat, three ways of counting N (")
    assert out[1].split() == ["published", "ours", "target", "tolerance", "ok"]
    assert out[-1] == "7 of 7 checks passed"
    assert all(len(line) <= 140 for line in out)


def test_a_missed_check_is_named_and_exits_with_1(monkeypatch, capsys, folder):
    monkeypatch.setitem(nanochat.PUBLISHED, "all_params", ((0.5, 0.5), (0.5, 0.501)))
    assert command.main(["nanochat", f"--data={folder}"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in out if line.endswith("MISSED")] == [["all_params:", "a"]]
    assert out[-1] == "6 of 7 checks passed"


def test_json_holds_every_number(capsys, folder):
    assert command.main(["nanochat", f"--data={folder}", "--json"]) == 0
    made = from_json(capsys.readouterr().out)
    assert (made["passed"], made["count"]) == (7, 7)
    (one,) = made["replications"]
    assert isinstance(one, published_numbers.Replication)
    assert one.source == "github.com/karpathy/nanochat"
    assert one.checks[0].ours == pytest.approx(0.536, abs=1e-9)


def test_without_names_what_has_data_runs_and_the_rest_is_named_with_its_source(monkeypatch, capsys, folder):
    monkeypatch.setattr(papers, "PAPERS", {name: papers.PAPERS[name] for name in ("nanochat", "olmo")})
    assert command.main([f"--data={folder}"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("7 of 7 checks passed\n")
    assert captured.err.startswith("left out: olmo needs ")
    assert "olmo_ladder (src/scripts/paper/data/ladder-runs of github.com/allenai/OLMo-ladder" in captured.err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["chinchila"], ("chinchila", "hoffmann", "epoch")),
        (["epoch", "--data=."], ("epoch", "./epoch_chinchilla", "github.com/epoch-research")),
        (["epoch"], ("epoch", "tables/epoch_chinchilla", "--data")),
        (["--data=nowhere"], ("nowhere", "--data", "chinchilla_tables")),
    ],
)
def test_names_and_folders_that_are_not_there_are_named_in_one_line(arguments, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        command.main(arguments)
    message = str(caught.value)
    assert all(name in message for name in names)
    assert "\n" not in message
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", [name for name, paper in papers.PAPERS.items() if paper.folders])
def test_the_commands_that_get_a_table_can_be_pasted(name):
    """What is cloned is what --published names, and the last command is this one with its data."""
    paper = papers.PAPERS[name]
    *clones, again = papers.remedy(paper, paper.folders, None).partition("run: ")[2].split(" && ")
    parsed = command.parse(shlex.split(again)[3:])
    assert [words.split()[:3] for words in clones] == [["git", "clone", "--depth=1"]] * len(clones)
    assert [words.rpartition("/")[2] for words in clones] == [path.name for path in parsed.published]
    assert (parsed.names, parsed.data is not None) == ([name], True)
    assert len(clones) == sum(sources.SOURCES[folder].marker is not None for folder in paper.folders)


def test_a_folder_without_its_file_is_said(tmp_path):
    (tmp_path / "nanochat_isoflop").mkdir()
    with pytest.raises(UserError, match=r"optima\.csv"):
        nanochat.run(tmp_path)


def test_rules_of_a_check():
    refused = Refusal("unidentified", "flat")
    assert published_numbers.within("x", 1.04, 1.0, 0.05).passed
    assert not published_numbers.within("x", 1.06, 1.0, 0.05).passed
    assert published_numbers.at_most("x", 1.0, 1.0).passed
    assert not published_numbers.at_most("x", 1.0 + 1e-12, 1.0).passed
    assert not published_numbers.at_least("x", 0.9, 1.0).passed
    for made in (
        published_numbers.within("x", refused, 1.0, 9.0),
        published_numbers.at_most("x", refused, 1.0),
        published_numbers.within("x", float("nan"), 1.0, 9.0),
    ):
        assert not made.passed
        assert made.ours is None
        assert from_json(to_json(made)) == made


def test_every_paper_names_where_its_data_is_public():
    named = {folder for paper in papers.PAPERS.values() for folder in paper.folders}
    assert named == set(papers.SOURCES) - {"kyo_takano_llm", "ml_scalefit_chinchilla"}  # those of the backtest alone
    for paper in papers.PAPERS.values():
        module = __import__(f"experiments.replications.{paper.name}", fromlist=["run"])
        assert paper.name == module.NAME
        assert callable(module.run)


def test_the_documentation_names_every_paper_and_folder():
    text = (Path(__file__).resolve().parents[2] / "docs" / "replications.md").read_text(encoding="utf-8")
    assert [name for name in papers.PAPERS if f"- **{name}**" not in text] == []
    assert [folder for folder in papers.SOURCES if f"| `{folder}` |" not in text] == []
