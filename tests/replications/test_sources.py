"""The tables that the authors published become those that the replications read. The files here are made, in the published forms."""

import csv
import gzip
import json
import lzma
import os
import pickle

import pytest

from experiments.replications import __main__ as command
from experiments.replications import frames, nanochat, sources
from lm.errors import UserError


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def clone(tmp_path):
    return tmp_path / "clone"


@pytest.fixture
def data(tmp_path):
    return tmp_path / "tables"


def test_a_clone_is_converted_and_then_replicated(clone, data, capsys):
    """nanochat's log, with numbers that have the published slopes."""
    lines = []
    for word, name in sources.NANOCHAT.items():
        (_, a), (_, b) = nanochat.PUBLISHED[name]
        lines += [f"{word}-style (a way of counting)", "FLOPs  Eff Params  Tokens  Ratio  Val BPB", "-----"]
        for printed, c in sources.NANOCHAT_FLOPS.items():
            lines.append(f"{printed}   {round(1e3 * c**a):,}    {round(1e3 * c**b):,}   1.0   0.9")
    write(clone / "dev" / "LOG.md", "\n".join(["1e+18  1  1  1.0  1.0", *lines]))
    assert command.main(["nanochat", "--published", str(clone), "--data", str(data)]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("7 of 7 checks passed\n")
    assert str(data / "nanochat_isoflop") in captured.err
    assert len(rows(data / "nanochat_isoflop" / "optima.csv")) == 12


def test_names_of_runs_become_counts(clone, data):
    """As the notebook spells them: parameters, tokens, unique tokens; runs that have not ended and those on other text are left out."""
    tokens, params = {"100m": 0.1, "7b5": 7.5}, {"14m": 1.41e7, "2b8": 2.81e9, "4b2": 4.2e9}
    maps = f"TOKENS_MAP = {json.dumps(tokens, indent=4)}\nPARAMS_MAP = {json.dumps(params, indent=4)}\n"
    names = ["2b84b4b", "14m7b5100m", "2b884b12bc4opt2", "4b24b84b8", "2b855b1b25c4seed1", "2b855b9bdedup"]
    losses = "".join(f'    "{name}": 3.0,  # a loss\n' for name in names) + '    "2b840b4b": 0,\n'
    first = f"# data\nNAMES_TO_VAL_LOSSES = {{\n{losses}}}\n{maps}"
    second = f'# data\nNAMES_TO_VAL_LOSSES = {{\n    "2b84b4b": 3.0,\n}}\n{maps}'
    cells = [{"cell_type": "markdown", "source": ["x"]}, *({"cell_type": "code", "source": [text]} for text in (first, second, second))]
    write(clone / "utils" / "parametric_fit.ipynb", json.dumps({"cells": cells}))
    sources.convert([clone / "utils" / "parametric_fit.ipynb"], data)
    found = {
        row["run"]: tuple(float(row[name]) for name in ("params", "tokens", "unique_tokens", "epochs"))
        for row in rows(data / "datablations" / "c4_runs.csv")
    }
    assert found == {
        "2b84b4b": (2.81e9, 4e9, 4e9, 1.0),
        "14m7b5100m": (1.41e7, 7.5e9, 1e8, 75.0),
        "2b884b12bc4opt2": (2.81e9, 8.4e10, 1.2e10, 7.0),
        "4b24b84b8": (4.2e9, 4.8e9, 4.8e9, 1.0),
        "2b855b1b25c4seed1": (2.81e9, 5.5e10, 1.25e9, 44.0),
    }
    assert [row["run"] for row in rows(data / "datablations" / "c4_runs_fit182.csv")] == ["2b84b4b"]


def test_the_last_row_of_each_run_is_kept(clone, data):
    text = "hyper_id,step,loss_validation\n0,10,3.0\n0,20,2.5\n0,0,9.0\n1,10,4.0\n"
    write(clone / "data" / "curves.csv.gz", "")
    (clone / "data" / "curves.csv.gz").write_bytes(gzip.compress(text.encode()))
    sources.convert([clone / "data"], data)
    assert [row["loss_validation"] for row in rows(data / "clark_routing" / "final_rows.csv")] == ["2.5", "4.0"]


def test_json_of_points_and_fits_become_tables(clone, data):
    point = dict.fromkeys(sources.GEMSTONES, 1.5)
    write(clone / "wandb_dfs" / "wandb_df_for_fitting_hot_100b+.jsonl", f"{json.dumps(point)}\n{json.dumps(point | {'width': 2})}\n")
    write(clone / "parameters" / "approach_1_linear_regression_params.json", '{"coef": [0.5], "intercept": 1, "approach": 1}')
    fit = {"loss": {"0": 0.002}, "exponents": {"0": [0.25, 0.75]}}
    write(clone / "parameters_delta-3" / "approach_3_parameters_grid_search_0_hot.json", json.dumps(fit))
    sources.convert([clone], data)
    assert [row["width"] for row in rows(data / "gemstones" / "hot_100bplus.csv")] == ["1.5", "2"]
    fits = {row["file"]: (row["slope"], row["huber_sum"], row["exponents"]) for row in rows(data / "gemstones" / "published_fits.csv")}
    assert fits == {
        "parameters/approach_1_linear_regression_params.json": ("0.5", "", ""),
        "parameters_delta-3/approach_3_parameters_grid_search_0_hot.json": ("", "0.002", "0.25 0.75"),
    }


def test_runs_of_a_ladder_get_their_size_and_tokens(clone, data):
    paper = clone / "src" / "scripts" / "paper"
    for run, head, cells in (
        ("1B-1xC", "_step", (100, 200)),
        ("peteish7_eval_anneal", "throughput/total_tokens", (5,)),
        ("peteish7_eval_full", "_step", (7,)),
    ):
        lines = "".join(f"{cell},3.5\n" for cell in cells)
        write(paper / "data" / "ladder-runs" / f"{run}.csv", f"{head},{sources.OLMO_LOSS}\n{lines}")
    write(paper / "figures" / "step1_c4_main.csv", "Task,Pred\nx,1\n")
    sources.convert([clone], data)
    curve, final = rows(data / "olmo_ladder" / "loss_curves.csv"), rows(data / "olmo_ladder" / "final_rows.csv")
    n, batch = sources.OLMO["1B"]
    assert [(row["run"], float(row["tokens"])) for row in curve] == [("1B-1xC", 100 * batch), ("1B-1xC", 200 * batch)]
    assert [(row["size"], float(row["tokens"])) for row in final] == [("1B", 200 * batch), ("7B", 5)]
    assert {float(row["non_embedding_params"]) for row in curve} == {n}


def test_pickled_frames_become_points(clone, data):
    pd = pytest.importorskip("pandas", reason="the published files are pickles of pandas, which is an optional group")
    with pd.option_context("future.infer_string", False):  # names are objects, as in the published files
        _check_frames(pd, clone, data)


def _check_frames(pd, clone, data):
    points = pd.DataFrame({"orig_n": [pd.Series([1.0, 2.0]), float("nan")], "orig_t": [pd.Series([3.0, 4.0])] * 2, "flops": [1e18, 2e18]})
    points["orig_loss"] = [pd.Series([5.0, 6.0])] * 2
    fits = {"basic": {"n_exponent": 0.5}, "bs_median_weighted": {"n_exponent": 0.6}}
    names = ("dataset", "hparams", "warmup", "decay", "param_count", "val")
    frame = pd.DataFrame([{**dict.fromkeys(names, "x"), "data": points, "fit_results": fits}])
    write(clone / "data" / "summary_df.pickle.xz", "")
    (clone / "data" / "summary_df.pickle.xz").write_bytes(lzma.compress(pickle.dumps(frame)))
    sources.convert([clone], data)
    found = [[float(row[name]) for name in ("flops", "n", "tokens", "loss")] for row in rows(data / "porian" / "isoflop_points.csv")]
    assert found == [[1e18, 1, 3, 5], [1e18, 2, 4, 6]]
    assert rows(data / "porian" / "published_fits.csv") == [{"config": "x/x/x/x/x/x", "a": "0.6", "a_basic": "0.5"}]


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [pickle.dumps(_Hostile()), b"cos\nmkdir\n(S'ran'\ntR.", b"\x80\x04\x95", b""])
def test_a_pickle_that_is_no_data_frame_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pickle.xz").write_bytes(lzma.compress(content))
    with pytest.raises(UserError, match=r"x\.pickle\.xz"):
        frames.read(tmp_path / "x.pickle.xz")
    assert not (tmp_path / "ran").exists()


def test_files_that_need_no_change_are_copied(clone, data):
    write(clone / "loss_curve_repo" / "csv_25" / "cosine_72000.csv", "step,lr,loss\n1,2,3\n")
    write(clone / "exp_data.csv", "a\n1\n")
    sources.convert([clone], data)
    assert rows(data / "multi_power_law" / "25M_cosine_72000.csv") == [{"step": "1", "lr": "2", "loss": "3"}]
    assert rows(data / "scaling_with_vocab" / "exp_data.csv") == [{"a": "1"}]


def test_what_is_no_published_table_is_told_in_one_line(clone, data):
    with pytest.raises(UserError, match="no file or folder"):
        sources.convert([clone], data)
    write(clone / "README.md", "")
    with pytest.raises(UserError, match=r"dev/LOG\.md"):
        sources.convert([clone], data)
    write(clone / "utils" / "parametric_fit.ipynb", "{}")
    with pytest.raises(UserError, match="huggingface/datablations"):
        sources.convert([clone], data)
    with pytest.raises(UserError, match="--data"):
        command.main(["--published", str(clone)])
