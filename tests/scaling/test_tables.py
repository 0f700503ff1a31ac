"""Tables as people have them: every form of one table gives the same runs, or one line that names the row and what to do."""

import gzip
import json
import math

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling.runs import Columns, Selection, from_frame, read_table

N, D, LOSS = [17362377.0, 29689247.0, 50767899.0], [9599300065.0, 5613704742.0, 3282914400.0], [3.59113, 3.45439, 3.36567]
ROWS = list(zip(N, D, LOSS, strict=True))
PLAIN = "N,D,loss\n" + "".join(f"{n:.0f},{d:.0f},{loss}\n" for n, d, loss in ROWS)
COMMAS = "".join(f"{n:.0f};{d:.0f};{str(loss).replace('.', ',')}\n" for n, d, loss in ROWS)
TEXTS = {
    "plain.csv": PLAIN,
    "tabs.tsv": PLAIN.replace(",", "\t"),
    "semicolons.csv": PLAIN.replace(",", ";"),
    "decimal_commas.csv": "N;D;loss\n" + COMMAS,
    "sep_line.csv": "sep=;\nN;D;loss\n" + COMMAS,
    "comments.csv": "# from the cluster\n" + PLAIN + "# the end\n\n",
    "spaces.csv": PLAIN.replace(",", " , ").replace("N ", " N "),
    "empty_trailing_cells.csv": PLAIN.replace("\n", ",\n"),
    "names.csv": PLAIN.replace("N,D,loss", "model/n_params,Train Tokens,eval/loss"),
    "cases.csv": PLAIN.replace("N,D,loss", "Params,TOKENS,Val Loss"),
    "units.csv": "N,D,loss\n" + "".join(f"{n / 1e6:.6f}M,{d / 1e9:.9f} B,{loss}\n" for n, d, loss in ROWS),
    "units_in_header.csv": "Params (M),Tokens (B),Loss\n" + "".join(f"{n / 1e6:.6f},{d / 1e9:.9f},{loss}\n" for n, d, loss in ROWS),
    "thousands.csv": "N,D,loss\n" + "".join(f'"{n:,.0f}","{d:,.0f}",{loss}\n' for n, d, loss in ROWS),
    "tokens_from_compute.csv": "N,C,loss\n" + "".join(f"{n!r},{6 * n * d!r},{loss}\n" for n, d, loss in ROWS),
    "params_from_compute.csv": "C,D,loss\n" + "".join(f"{6 * n * d!r},{d!r},{loss}\n" for n, d, loss in ROWS),
    "tracker.csv": '"Name","State","Notes","n_params","tokens","eval/loss"\n"a","crashed","-","1e9","2e9",""\n'
    + "".join(f'"r","finished","-","{n:.0f}","{d:.0f}","{loss}"\n' for n, d, loss in ROWS),
    "lines.jsonl": "".join(json.dumps({"N": n, "D": d, "loss": loss}) + "\n" for n, d, loss in ROWS),
    "list.json": json.dumps([{"N": n, "D": d, "loss": loss} for n, d, loss in ROWS]),
    "columns.json": json.dumps({"N": N, "D": D, "loss": LOSS}),
    "frame.json": json.dumps({name: dict(enumerate(cells)) for name, cells in (("N", N), ("D", D), ("loss", LOSS))}),
}


def written(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def same(runs):
    np.testing.assert_allclose(runs.n, N, rtol=1e-7)
    np.testing.assert_allclose(runs.d, D, rtol=1e-7)
    np.testing.assert_allclose(runs.loss, LOSS, rtol=1e-12)
    np.testing.assert_allclose(runs.c, 6 * runs.n * runs.d, rtol=1e-12)


@pytest.mark.parametrize("header", ["loss (bits)", "val_loss [bits/byte]", "loss in bits", "eval loss (bpb)"])
def test_losses_in_bits_are_read_in_nats(tmp_path, header):
    rows = "".join(f"{n:.0f},{d:.0f},{loss / math.log(2)!r}\n" for n, d, loss in ROWS)
    made = read_table(written(tmp_path, "bits.csv", f"N,D,{header}\n{rows}"), Columns(loss=header))
    np.testing.assert_allclose(made.loss, LOSS, rtol=1e-12)
    (read,) = [one for one in made.read if one.name == "loss"]
    assert "ln 2" in read.how


def test_a_perplexity_is_no_loss(tmp_path):
    path = written(tmp_path, "table.csv", PLAIN.replace("N,D,loss", "N,D,loss (perplexity)"))
    with pytest.raises(UserError, match="perplexity"):
        read_table(path)


@pytest.mark.parametrize("name", TEXTS)
def test_every_form_of_a_table_gives_the_same_runs(tmp_path, name):
    made = read_table(written(tmp_path, name, TEXTS[name]))
    same(made)
    assert {one.name for one in made.read} >= {"N", "D", "loss", "C"}
    assert made.read[0].low <= made.n.min() <= made.n.max() <= made.read[0].high * (1 + 1e-12)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings_and_compression(tmp_path, encoding):
    same(read_table(written(tmp_path, "runs.csv", PLAIN, encoding)))
    same(read_table(written(tmp_path, "runs.csv.gz", gzip.compress(PLAIN.encode(encoding)))))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("runs.csv", "N,D,loss,budget\n1e8,2e9,3,59113,1e18\n", ("row 2", "5 cells", "header has 4", "decimal comma")),
        ("runs.csv", "# a\n\nN,D,loss\n1e8,2e9,3.1\n\n1e8,2e9,x\n", ("row 6", "'x'")),
        ("runs.csv", 'N,D,loss\n"1,234",2e9,3\n', ("row 2", "N", "'1,234'")),
        ("runs.csv", 'N,D,loss\n"1,5",2e9,3\n"1,234.5",2e9,3\n', ("'N'", "1,5", "1,234.5")),
        ("runs.csv", "N;D;loss\n1;2;3,5\n1;3;3.25\n", ("'loss'", "3,5", "3.25")),
        ("runs.csv", "N,D,D,loss\n1,2,3,4\n", ("more than one column 'D'",)),
        ("runs.csv", "N,,loss\n1,2,3\n", ("column 2",)),
        ("runs.csv", "params,n_params,D,loss\n1,2,3,4\n", ("'params'", "'n_params'", "--params=COLUMN")),
        ("runs.csv", "size,D,loss\n1,2,3\n", ("size, D, loss", "--params=COLUMN")),
        ("runs.csv", "N,D,loss\n", ("no rows",)),
        ("runs.csv", "N,D,loss\n1e8,2e9,3.1\n2e8,2e9,\n", ("row 3", "loss is empty", "--where 'loss>0'")),
        ("runs.jsonl", '{"N": 1}\n{"N": \n', ("line 2",)),
        ("runs.json", '{"N": 1}', ("list of objects",)),
        ("runs.png", "x", (".png", ".csv")),
        ("runs.parquet", b"PAR1 is not enough", (".parquet",)),
        ("runs.xlsx", b"PK is not enough", (".xlsx",)),
        ("runs.csv.gz", b"\x1f\x8b\x08\x00", ("gzip",)),
    ],
)
def test_a_bad_table_gets_one_line_that_names_the_place(tmp_path, name, content, said):
    with pytest.raises(UserError) as caught:
        read_table(written(tmp_path, name, content))
    message = str(caught.value)
    assert "\n" not in message
    for words in (str(tmp_path), *said):
        assert words in message


def test_parquet_and_excel(tmp_path):
    import openpyxl
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.table({"N": N, "D": D, "loss": LOSS, "corpus": pyarrow.array(["c4"] * 3).dictionary_encode()}), tmp_path / "runs.parquet"
    )
    book = openpyxl.Workbook()
    for row in (("Params (M)", "D", "loss"), *((n / 1e6, d, loss) for n, d, loss in ROWS)):
        book.active.append(row)
    book.save(tmp_path / "runs.xlsx")
    for name in ("runs.parquet", "runs.xlsx"):
        same(read_table(tmp_path / name))
    assert read_table(tmp_path / "runs.parquet").other["corpus"] == ("c4",) * 3


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        read_table(tmp_path)


def test_rows_are_chosen_by_conditions():
    frame = {"N": N, "D": D, "loss": LOSS, "corpus": ["c4", "c4", "pile"], "lr": [1e-3, None, 3e-3]}
    assert len(from_frame(frame, select=Selection(where=("corpus==c4",)))) == 2
    assert len(from_frame(frame, select=Selection(where=("corpus != c4",)))) == 1
    assert from_frame(frame, select=Selection(where=("N>2e7", "loss<=3.4"))).n.tolist() == N[2:]
    kept = from_frame(frame, select=Selection(where=("lr>0",)))
    assert len(kept) == 2
    assert "lr>0" in kept.notes[0]
    for condition, said in (("corpus>c4", "corpus"), ("lr", "--where"), ("nothing>1", "'nothing'"), ("N>1e12", "no row")):
        with pytest.raises(UserError, match=said):
            from_frame(frame, select=Selection(where=(condition,)))


def test_repeats_are_all_named_or_left_out_and_the_best_of_a_sweep_is_kept():
    frame = {"N": [1e8, 1e8, 2e8, 2e8, 2e8], "D": [2e9] * 5, "loss": [3.0, 3.0, 2.9, 2.9, 2.8]}
    with pytest.raises(UserError) as caught:
        from_frame(frame)
    assert "2 rows" in str(caught.value)
    assert "0 and 1, 2 and 3" in str(caught.value)
    assert from_frame(frame, select=Selection(drop_duplicates=True)).loss.tolist() == [3.0, 2.9, 2.8]
    assert from_frame(frame, select=Selection(drop_duplicates=True, best=True)).loss.tolist() == [3.0, 2.8]


def test_columns_of_logarithms():
    frame = {"log N": np.log10(N), "D": np.log(D), "loss": LOSS}
    same(from_frame(frame, Columns(params="log N", log10=("log N",), ln=("D",))))
