"""Documents that are too long or cannot be read are refused by one line, or counted and left out; long lines stay out of memory."""

import json
import tracemalloc

import pytest

from lm.data import corpora
from lm.data.config import Component
from lm.data.corpora import readers, text_files
from lm.data.corpora.faults import Faults
from lm.data.corpora.lines import PIECE
from lm.errors import UserError

GOOD = [f"document {i} of words that no other has: {' '.join(str(i * j) for j in range(9, 40))}" for i in range(20)]
LINES = [json.dumps({"text": text}).encode() for text in GOOD]
BAD = {
    "no JSON": b'{"text": "a',
    "another field": b'{"body": "a"}',
    "no object": b"7",
    "a number": b'{"text": 7}',
    "half a pair": b'{"text": "\\ud800"}',
    "deep": b'{"text": "a", "more": ' + b"[" * 100_000,
    "not UTF-8": b'{"text": "\xff"}',
    "too long": json.dumps({"text": "x" * 3000}).encode(),
    "too long a line": b'{"text": "' + b"x" * 200_000 + b'"}',
}


def component(path, **fields):
    return Component("text_files", (str(path),), longest_document=2000, **fields)


@pytest.mark.parametrize("name", BAD)
def test_a_document_that_cannot_be_used_is_an_error_or_left_out(tmp_path, name):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*LINES[:10], BAD[name], *LINES[10:]]) + b"\n")
    with pytest.raises(UserError) as error:
        list(readers.read(str(path), faults=Faults(2000)))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    faults = Faults(2000, skip=True)
    assert list(readers.read(str(path), faults=faults)) == GOOD
    assert faults.counts.total() == 1


def test_what_was_left_out_is_said_and_recorded(tmp_path):
    path, said = tmp_path / "a.jsonl", []
    path.write_bytes(b"\n".join([*LINES[:10], BAD["too long"], *LINES[10:], BAD["no JSON"]]) + b"\n")
    with pytest.raises(UserError, match=r"line 22 .*unusable=skip|document 11 .*unusable=skip"):
        corpora.prepare(component(path), str(tmp_path / "data"), lambda _: None)
    made = corpora.prepare(component(path, unusable="skip"), str(tmp_path / "data"), said.append)
    assert sorted(text for split in ("train", "validation") for text in made.split(split)) == sorted(GOOD)
    dropped = {reason: count for reason, count in made.info["dropped"].items() if count}
    assert list(dropped.values()) == [1, 1]
    assert all(f"{reason} 1" in said[-1] for reason in dropped)


def test_rows_and_cells_of_tables(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a", "x" * 3000, "b"]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("n,text\n1,a\n2,x,y\n3,b\n")
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a"}, 7, {"text": "b"}, {"text": "x" * 3000}]))
    for name, left_out in (("a.parquet", 1), ("a.csv", 1), ("a.json", 2)):
        faults = Faults(2000, skip=True)
        assert list(readers.read(str(tmp_path / name), faults=faults)) == ["a", "b"]
        assert faults.counts.total() == left_out
        with pytest.raises(UserError, match=r"unusable=skip"):
            list(readers.read(str(tmp_path / name), faults=Faults(2000)))


@pytest.mark.parametrize(
    ("rows", "texts", "lines"),
    [
        ('1,"a\n' + "2,b\n" * 3000, ["b"] * 3000, [2]),  # more than a cell may hold
        ('1,a\n2,"b\n3,c\n', ["a", "c"], [3]),
        ('1,a\n2,"b', ["a"], [3]),
        ('1,"a\n2,"b"\n3,"c, d"\n', ["b", "c, d"], [2]),  # it would be closed by the next quote
        ('1,"a" b\n2,"c\n\nd"\n3,e" f\n4,"say ""x"""\n', ["c\n\nd", 'e" f', 'say "x"'], [2]),
        ('1,"a\n2,b\n3,"c\n4,d\n', ["b", "d"], [2, 4]),
    ],
)
def test_a_quote_that_is_not_closed_swallows_nothing(tmp_path, rows, texts, lines):
    path = tmp_path / "a.csv"
    path.write_text("n,text\n" + rows)
    faults = Faults(2000, skip=True)
    assert list(readers.read(str(path), faults=faults)) == texts
    assert faults.counts.total() == len(lines)
    with pytest.raises(UserError, match=rf"a\.csv line {lines[0]} .*unusable=skip"):
        list(readers.read(str(path), faults=Faults(2000)))


def test_more_than_a_tenth_is_not_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([*LINES, BAD["another field"], BAD["no JSON"], BAD["a number"]]))
    with pytest.raises(UserError, match=r"3 of 23 .*line 21"):
        text_files.collect([str(path)], lambda _: None, faults=Faults(2000, skip=True))


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv"])
def test_a_line_that_is_too_long_is_not_held_in_memory(tmp_path, name):
    (tmp_path / name).write_bytes(b"text\n" + b"x" * 30_000_000 + b"\ntext\n")
    faults = Faults(2000, skip=True)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="line 2") if name == "a.csv" else pytest.raises(StopIteration):
            texts = readers.read(str(tmp_path / name), faults=faults)
            while True:
                next(texts)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert faults.counts["document too long"] == int(name != "a.csv")


@pytest.mark.parametrize("character", ["x", "é", "漢", "🙂"])
def test_text_without_line_ends_is_cut(tmp_path, character):
    for words in (character * 100_000, f"{character * 7} " * 30_000):
        text = f"first line\n{words}\nlast line\n"
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        pieces = list(readers.read(str(tmp_path / "a.txt")))
        assert "".join(pieces) == text
        assert max(len(piece.encode()) for piece in pieces) <= PIECE
        assert len(pieces) <= len(text.encode()) // (PIECE // 2) + 2
        assert " " not in words or all(piece.endswith((" ", "\n")) for piece in pieces)


def test_what_is_left_out_is_part_of_the_name(tmp_path):
    faults = [Faults(), Faults(skip=True), Faults(longest=5)]
    assert len({text_files.key([str(tmp_path)], faults=each) for each in faults}) == 3
    assert text_files.key([str(tmp_path)], faults=Faults()) == text_files.key([str(tmp_path)])
    with pytest.raises(UserError, match="unusable"):
        corpora.check(Component("python_sources", unusable="skip"))
    for longest in (0, 10**19):
        with pytest.raises(UserError, match="longest_document"):
            corpora.check(Component("text_files", ("a",), longest_document=longest))
