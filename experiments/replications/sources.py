"""The public tables have their addresses here, and are converted from the files that their authors published (imports no jax).

Each source becomes a folder of CSV files under --data. No table is part of this project: some have no licence.
"""

import ast
import csv
import dataclasses
import gzip
import importlib.util
import io
import json
import pathlib
import re
import shutil
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Optional

from experiments.replications import frames
from lm.errors import UserError

Rows = Iterable[dict[str, Any]]
Convert = Callable[[pathlib.Path, pathlib.Path], None]  # (the clone, the folder to write)


@dataclasses.dataclass(frozen=True)
class Source:
    """A public table: `repository` is its address without https://, `marker` a file or folder of it by which a clone is known.

    A source without a marker is typed by hand, as docs/replications.md says.
    """

    folder: str
    repository: str
    marker: Optional[str] = None
    convert: Optional[Convert] = None

    @property
    def where(self) -> str:
        """Says in words where the table is public."""
        return self.repository if self.marker is None else f"{self.marker} of {self.repository}"


def convert(paths: Sequence[pathlib.Path], data: pathlib.Path) -> list[str]:
    """Writes the tables of clones, or of files and folders in them, under `data`; returns a line for each source.

    Raises: UserError for a path that is not there, holds no published table, or holds another one than is known.
    """
    said = []
    for path in paths:
        if not path.exists():
            raise UserError(f"no file or folder {path}: give --published clones of {_repositories()}")
        found = [(source, root) for source in SOURCES.values() if (root := _root(source, path)) is not None]
        if not found:
            markers = ", ".join(source.marker for source in SOURCES.values() if source.marker)
            raise UserError(f"{path} holds none of the published tables, which are {markers}")
        for source, root in found:
            folder = data / source.folder
            folder.mkdir(parents=True, exist_ok=True)
            assert source.convert is not None
            try:
                source.convert(root, folder)
            except (KeyError, IndexError, ValueError, SyntaxError, StopIteration, OSError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"{root}: {source.marker} is not as {source.repository} published it ({reason}): clone it again") from error
            names = sorted(file.name for file in folder.glob("*.csv"))
            said.append(f"wrote {folder}: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else ""))
    return said


def _root(source: Source, path: pathlib.Path) -> Optional[pathlib.Path]:
    """Returns the clone of a source that a path is, or is inside of; None for that of another."""
    if source.marker is None:
        return None
    path = path.resolve()
    roots = (path, *path.parents[: len(pathlib.PurePath(source.marker).parts)])
    return next((root for root in roots if (root / source.marker).exists()), None)


def _repositories() -> str:
    return ", ".join(dict.fromkeys(source.repository for source in SOURCES.values() if source.marker))


def _write(path: pathlib.Path, rows: Rows) -> None:
    """Writes rows of equal keys as CSV."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return list(csv.DictReader(io.StringIO(text.decode("utf-8"), newline="")))


def _copies(pattern: str) -> Convert:
    """Returns a conversion that copies files as they are."""

    def copy(root: pathlib.Path, folder: pathlib.Path) -> None:
        for path in sorted(root.glob(pattern)):
            shutil.copyfile(path, folder / path.name)

    return copy


def _porian(root: pathlib.Path, folder: pathlib.Path) -> None:
    """Porian et al. 2024: their pickled data frames hold a row for each configuration, with its points and its fits."""
    if importlib.util.find_spec("pandas") is None:
        raise UserError("the tables of Porian et al. are pickled data frames: pip install pandas, then give the command again")
    points, fits = [], []
    for path in sorted((root / "data").glob("summary_df*.pickle.xz")):
        for _, row in frames.read(path).iterrows():
            config = "/".join(row[name] for name in ("dataset", "hparams", "warmup", "decay", "param_count", "val"))
            basic, weighted = (row["fit_results"][name]["n_exponent"] for name in ("basic", "bs_median_weighted"))
            fits.append({"config": config, "a": float(weighted), "a_basic": float(basic)})
            for _, budget in row["data"].iterrows():
                columns = [budget[name] for name in ("orig_n", "orig_t", "orig_loss")]
                if not hasattr(columns[0], "__len__"):
                    continue  # a budget without points
                for n, tokens, loss in zip(*columns, strict=True):
                    points.append({"config": config, "flops": budget["flops"], "n": n, "tokens": tokens, "loss": loss})
    _write(folder / "isoflop_points.csv", points)
    _write(folder / "published_fits.csv", fits)


GEMSTONES = ("run_name", "params_active_precise", "width", "depth", "tokens", "step", "num_nodes", "seconds_per_step", "final_loss")


def _gemstones(root: pathlib.Path, folder: pathlib.Path) -> None:
    """McLeish et al. 2025: a file of JSON lines for each choice of points, and one of JSON for each fit."""
    for path in sorted((root / "wandb_dfs").glob("wandb_df_for_fitting_*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        names = [name for name in GEMSTONES if name in rows[0]]
        name = path.stem.removeprefix("wandb_df_for_fitting_").replace("b+", "bplus")
        _write(folder / f"{name}.csv", ({name: row[name] for name in names} for row in rows))
    fits = []
    for path in sorted(root.glob("parameters*/approach_[13]_*.json")):
        fit = json.loads(path.read_text(encoding="utf-8"))
        row = dict.fromkeys(("file", "huber_sum", "exponents", "slope"), "") | {"file": path.relative_to(root).as_posix()}
        if "coef" in fit:
            row["slope"] = fit["coef"][0]
        else:
            row |= {"huber_sum": fit["loss"]["0"], "exponents": " ".join(map(str, fit["exponents"]["0"]))}
        fits.append(row)
    _write(folder / "published_fits.csv", fits)


def _datablations(root: pathlib.Path, folder: pathlib.Path) -> None:
    """Muennighoff et al. 2023: cells of a notebook map names of runs to losses. The first has all, the second those of the paper's fit."""
    notebook = json.loads((root / "utils" / "parametric_fit.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    every, fitted, *_ = (cell for cell in cells if "\nNAMES_TO_VAL_LOSSES = {" in cell)
    _write(folder / "c4_runs.csv", _named_runs(every))
    _write(folder / "c4_runs_fit182.csv", _named_runs(fitted))


_COUNT = r"([1-9]\d*)([bm])(\d*)"


def _named_runs(cell: str) -> Rows:
    """Yields the runs of a notebook's cell; "619m22b1b5" is 619M parameters on 22B tokens, 1.5B of them unique."""
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(cell).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    sizes = assigned["PARAMS_MAP"]
    for name, loss in assigned["NAMES_TO_VAL_LOSSES"].items():
        plain = re.sub(r"seed\d|opt\d?|op2|c4|v2", "", name)
        size = next((key for key in sorted(sizes, key=len) if plain.startswith(key)), None)
        if not loss or name.endswith("dedup") or size is None:
            continue  # a run that has not ended, or on other text
        tokens, unique = _two_counts(plain.removeprefix(size), assigned["TOKENS_MAP"])
        run = {"run": name, "params": sizes[size], "tokens": tokens, "unique_tokens": unique, "epochs": tokens / unique}
        yield run | {"val_loss": loss}


def _two_counts(text: str, known: Container[str]) -> tuple[float, float]:
    """Returns tokens and unique tokens of "22b1b5" (22B, 1.5B).

    Several splits may be possible, as of "7b5100m" (7.5B, 100M). Tokens in whole billions, or as the notebook spells them, come first.
    """
    splits = [(text[:at], text[at:]) for at in range(1, len(text))]
    splits = [(a, b) for a, b in splits if re.fullmatch(_COUNT, a) and (re.fullmatch(r"[1-9]\d*b\d*", b) or b in known)]
    splits.sort(key=lambda pair: not (pair[0].endswith("b") or pair[0] in known))
    return next((_count(a), _count(b)) for a, b in splits if _count(b) <= _count(a))


def _count(text: str) -> float:
    """Returns the number that "1b5" (1.5e9) or "400m" stands for."""
    whole, unit, rest = re.fullmatch(_COUNT, text).groups()  # type: ignore[union-attr]  # checked by the caller
    return round(float(f"{whole}.{rest or 0}") * {"b": 1e9, "m": 1e6}[unit])


OLMO = {  # parameters without embeddings, tokens of a step, by size, as their code has them
    "190M": (190_354_176, 524_288), "370M": (371_262_464, 786_432), "760M": (758_220_288, 1_310_720), "1B": (1_279_395_840, 1_572_864),
    "3B": (3_169_537_280, 3_145_728), "7B": (6_887_575_552, 4_194_304), "13B": (13_202_396_160, 8_388_608),
}  # fmt: skip
OLMO_LOSS = "eval/c4_en-validation/CrossEntropyLoss"


def _olmo(root: pathlib.Path, folder: pathlib.Path) -> None:
    """Bhagia et al. 2024: a file for each run, with a row for each evaluation."""
    paper = root / "src" / "scripts" / "paper"
    curves, final = [], []
    for path in sorted((paper / "data" / "ladder-runs").glob("*.csv")):
        size = {"peteish7": "7B", "peteish13": "13B"}.get(path.stem.partition("_")[0], path.stem.partition("-")[0])
        n, batch = OLMO[size]
        rows = []
        for row in _read(path):
            step = row.get("_step", "")
            tokens = float(row["throughput/total_tokens"]) if not step else int(step) * batch
            rows.append({"run": path.stem, "size": size, "non_embedding_params": n, "step": step, "tokens": tokens})
            rows[-1]["c4_en_ce"] = row[OLMO_LOSS]
        ladder = not path.stem.startswith("peteish")
        curves += rows if ladder else []
        final += rows[-1:] if ladder or path.stem in ("peteish7_eval_anneal", "peteish13_eval_final") else []
    _write(folder / "loss_curves.csv", curves)
    _write(folder / "final_rows.csv", final)
    shutil.copyfile(paper / "figures" / "step1_c4_main.csv", folder / "published_step1_c4_main.csv")


def _multi_power(root: pathlib.Path, folder: pathlib.Path) -> None:
    """Luo et al. 2025: a folder for each size in millions of parameters, with a file for each schedule."""
    for path in sorted(root.glob("loss_curve_repo/csv_*/*.csv")):
        shutil.copyfile(path, folder / f"{path.parent.name.removeprefix('csv_')}M_{path.name}")


def _clark(root: pathlib.Path, folder: pathlib.Path) -> None:
    """Clark et al. 2022: the last row of each run."""
    last: dict[str, dict[str, str]] = {}
    for row in _read(root / "data" / "curves.csv.gz"):
        known = last.get(row["hyper_id"])
        if known is None or int(row["step"]) > int(known["step"]):
            last[row["hyper_id"]] = row
    _write(folder / "final_rows.csv", last.values())


NANOCHAT = {"Kaplan": "transformer+lm_head", "Chinchilla": "all_params", "Transformer-only": "transformer_only"}
NANOCHAT_FLOPS = {"1e+18": 1e18, "2e+18": 2.15e18, "5e+18": 4.64e18, "1e+19": 1e19}  # as printed, and as the sweep's steps make them


def _nanochat(root: pathlib.Path, folder: pathlib.Path) -> None:
    """The log of nanochat: a table of optima under each of three ways of counting N, all at the same four budgets."""
    rows, convention = [], ""
    for line in (root / "dev" / "LOG.md").read_text(encoding="utf-8").splitlines():
        convention = next((name for word, name in NANOCHAT.items() if line.startswith(f"{word}-style (")), convention)
        found = re.fullmatch(r"(\de\+1[89]) +([\d,]+) +([\d,]+) +[\d.]+ +([\d.]+)", line.strip())
        if found and convention:
            printed, params, tokens, bits = found.groups()
            row = {"convention": convention, "flops": printed, "flops_actual": NANOCHAT_FLOPS[printed]}
            rows.append(row | {"params": params.replace(",", ""), "tokens": tokens.replace(",", ""), "val_bpb": bits})
    _write(folder / "optima.csv", rows)


SOURCES = {
    source.folder: source
    for source in (
        Source("chinchilla_tables", "tables 3, A3 and A9 of arXiv 2203.15556, typed as CSV"),
        Source(
            "epoch_chinchilla", "github.com/epoch-research/analyzing-chinchilla", "data/svg_extracted_data.csv",
            _copies("data/svg_extracted_data.csv"),
        ),
        Source("porian", "github.com/formll/resolving-scaling-law-discrepancies", "data/summary_df.pickle.xz", _porian),
        Source("gemstones", "github.com/mcleish7/gemstone-scaling-laws", "wandb_dfs", _gemstones),
        Source("datablations", "github.com/huggingface/datablations", "utils/parametric_fit.ipynb", _datablations),
        Source("olmo_ladder", "github.com/allenai/OLMo-ladder", "src/scripts/paper/data/ladder-runs", _olmo),
        Source("multi_power_law", "github.com/thu-yao-01-luo/MultiPowerLaw", "loss_curve_repo", _multi_power),
        Source("regmix", "github.com/sail-sg/regmix", "data/train_mixture_1m.csv", _copies("data/*.csv")),
        Source("clark_routing", "github.com/google-deepmind/scaling_laws_for_routing", "data/curves.csv.gz", _clark),
        Source("scaling_with_vocab", "github.com/sail-sg/scaling-with-vocab", "exp_data.csv", _copies("exp_data.csv")),
        Source("step_law", "github.com/step-law/steplaw", "data/dense_lr_bs_loss.csv", _copies("data/dense_lr_bs_loss.csv")),
        Source("nanochat_isoflop", "github.com/karpathy/nanochat", "dev/LOG.md", _nanochat),
        # of the backtest alone
        Source("kyo_takano_llm", "github.com/kyo-takano/chinchilla", "examples/llm/df.csv", _copies("examples/llm/df.csv")),
        Source(
            "ml_scalefit_chinchilla", "github.com/Open-Athena/scaling-law-analysis", "data/isoflops/extract/ml_scalefit/isoflops.csv",
            _copies("data/isoflops/extract/ml_scalefit/isoflops.csv"),
        ),
    )
}  # fmt: skip
