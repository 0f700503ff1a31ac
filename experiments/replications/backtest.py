"""`python -m experiments.replications.backtest --data=DIR` backtests forecasts on every public table that holds N, D and loss.

Tables with the same runs, or by the same authors, are a family and count as one. The constants of `lm.scaling.intervals.discrepancy` were
chosen on these tables.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import Optional

import numpy as np

from experiments.replications import tables
from lm.errors import AGAIN, Parser, UserError, counted, nearest, run_cli
from lm.scaling.results import to_json
from lm.scaling.runs import Columns, Runs, from_frame

VOCABULARIES = (4096, 16384, 32768, 96256)
UNIGRAM = 7.5  # nats, about the entropy of unigrams: Tao et al. print losses relative to it, which are negative


def chinchilla(data: pathlib.Path) -> list[Runs]:
    """Reads the runs of Hoffmann et al. 2022 as three people digitised them."""
    from experiments.replications import epoch

    isoflops = tables.read(data / "ml_scalefit_chinchilla" / "isoflops.csv")
    other = tables.read(data / "kyo_takano_llm" / "df.csv")
    return [
        epoch.filtered(epoch.table(data)),
        _table("ml_scalefit_chinchilla", isoflops["params"], isoflops["tokens"], isoflops["loss"], budget=isoflops["budget"]),
        _table("kyo_takano_llm", other["N"], other["D"], other["loss"]),
    ]


def gems(data: pathlib.Path) -> list[Runs]:
    """Reads McLeish et al. 2025, whose rows are points of curves."""
    found = []
    for name in ("hot", "cool_end", "lr_ablation_hot", "hot_100bplus"):
        column = tables.read(data / "gemstones" / f"{name}.csv")
        source = f"gemstones {name}"
        found.append(_table(source, column["params_active_precise"], column["tokens"], column["final_loss"], run=column["run_name"]))
    return found


def porian(data: pathlib.Path) -> list[Runs]:
    """Reads the fifteen configurations of Porian et al. 2024."""
    column = tables.read(data / "porian" / "isoflop_points.csv")
    found = []
    for config in sorted(set(column["config"].tolist())):
        rows = column["config"] == config
        n, d, loss, flops = (column[name][rows] for name in ("n", "tokens", "loss", "flops"))
        found.append(_table(f"porian {config}", n, d, loss, budget=flops))
    return found


def datablations(data: pathlib.Path) -> list[Runs]:
    """Reads the runs of Muennighoff et al. 2023 that see each token once."""
    column = tables.read(data / "datablations" / "c4_runs.csv")
    once = column["epochs"] < 1.001
    return [_table("datablations", column["params"][once], column["tokens"][once], column["val_loss"][once])]


def olmo(data: pathlib.Path) -> list[Runs]:
    """Reads the last losses of Bhagia et al. 2024 on C4, 190M to 13B."""
    column = tables.read(data / "olmo_ladder" / "final_rows.csv")
    return [_table("olmo_ladder", column["non_embedding_params"], column["tokens"], column["c4_en_ce"])]


def vocabularies(data: pathlib.Path) -> list[Runs]:
    """Reads curves of Tao et al. 2024 at four vocabularies; D are characters, N is without the vocabulary."""
    column = tables.read(data / "scaling_with_vocab" / "exp_data.csv")
    found = []
    for size in VOCABULARIES:
        rows = column["vocab_size"] == size
        n, d, loss = (column[name][rows] for name in ("Non_vocab_parameters", "num_characters", "Lossu"))
        found.append(_table(f"scaling_with_vocab {size}", n, d, loss + UNIGRAM, run=n))
    return found


FAMILIES: dict[str, tuple[str, Callable[[pathlib.Path], list[Runs]]]] = {  # name: folder, reader
    "chinchilla": ("epoch_chinchilla", chinchilla),
    "gemstones": ("gemstones", gems),
    "porian": ("porian", porian),
    "datablations": ("datablations", datablations),
    "olmo": ("olmo_ladder", olmo),
    "vocabularies": ("scaling_with_vocab", vocabularies),
}


def _table(
    source: str, n: np.ndarray, d: np.ndarray, loss: np.ndarray, budget: Optional[np.ndarray] = None, run: Optional[np.ndarray] = None
) -> Runs:
    frame = {"N": n, "D": d, "loss": loss} | ({} if budget is None else {"budget": budget}) | ({} if run is None else {"run": run})
    columns = Columns(budget=None if budget is None else "budget", run=None if run is None else "run")
    return from_frame(frame, columns, source=source)


def main(argv: Optional[list[str]] = None) -> int:
    parser = Parser(prog="python -m experiments.replications.backtest", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="FAMILY", help=f"families of tables (default: all): {', '.join(FAMILIES)}")
    parser.add_argument(
        "--data", type=pathlib.Path, required=True, metavar="DIR", help="folder of the public tables (docs/replications.md)"
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/backtest.md")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in FAMILIES]:
        raise UserError(f"unknown family {unknown[0]!r}: {nearest(unknown[0], FAMILIES)}")
    from lm.scaling.backtest import backtest, text

    found, families = [], {}
    for name in args.names or FAMILIES:
        folder, read = FAMILIES[name]
        if not (args.data / folder).is_dir():
            print(f"left out: {name} needs {args.data / folder} (docs/replications.md)", file=sys.stderr)
            continue
        for runs in read(args.data):
            families[runs.source] = name
            found.append(backtest.backtest_table(runs))
            print(f"{runs.source}: {counted(len(runs), 'row')}", file=sys.stderr, flush=True)
    if not found:
        raise UserError(f"no tables under {args.data}: docs/replications.md says where each is public")
    made = backtest.combined(found, families)
    print(to_json(made).rstrip() if args.json else text.markdown(made) if args.markdown else text.render(made))
    return 0


if __name__ == "__main__":
    run_cli(main, AGAIN)
