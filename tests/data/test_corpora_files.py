"""Files of every kind, folders and patterns give the same texts; what cannot be held is said before it is read."""

import bz2
import csv
import dataclasses
import gzip
import json
import lzma
import os
import pathlib
import random

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from lm.data import corpora, pipeline
from lm.data.config import Component, DataConfig
from lm.data.corpora import readers, text_files
from lm.data.info import index_path
from lm.data.objectives.pairs import Pairs, PairTokenizer
from lm.data.tokenizer import Bytes
from lm.errors import UserError
from lm.evals import named_text

TEXTS = ["one é", 'with "quotes", commas\nand two lines', "third\ttab", "漢字"]


def _zstd(data: bytes) -> bytes:
    made = [pyarrow.compress(part, "zstd", asbytes=True) for part in (data[:20], data[20:])]  # two frames, as parallel tools write
    return b"".join(made)


PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": _zstd}


def _jsonl(field="text"):
    return "".join(json.dumps({"id": 1, field: text}) + "\n" for text in TEXTS).encode()


@pytest.mark.parametrize("suffix", PACKED)
def test_json_of_every_compression(tmp_path, suffix):
    for name, data in {"a.jsonl": _jsonl(), "a.NDJSON": b"\xef\xbb\xbf" + _jsonl().replace(b"\n", b"\r\n"), "a.json": _jsonl()}.items():
        (tmp_path / (name + suffix)).write_bytes(PACKED[suffix](data))
        assert list(readers.read(str(tmp_path / (name + suffix)))) == TEXTS
    whole = tmp_path / ("list.json" + suffix)
    whole.write_bytes(PACKED[suffix](json.dumps([{"content": text} for text in TEXTS], indent=1).encode()))
    assert list(readers.read(str(whole), "content")) == TEXTS
    text = tmp_path / ("a.txt" + suffix)
    text.write_bytes(PACKED[suffix]("\ufeffone\r\ntwo\n\nthree".encode()))
    assert list(readers.read(str(text))) == ["one\r\ntwo\n\nthree"]
    assert list(readers.read(str(text), lines=True)) == ["one", "two", "three"]


def test_tables(tmp_path):
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["id", "body"], *([i, text] for i, text in enumerate(TEXTS))])
    assert list(readers.read(str(tmp_path / "a.csv"), "body")) == TEXTS
    plain = pyarrow.array(TEXTS)
    for name, column in {"s": plain, "large": plain.cast(pyarrow.large_string()), "dictionary": plain.dictionary_encode()}.items():
        table = pyarrow.table({"n": list(range(4)), "body": column})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
        assert list(readers.read(str(tmp_path / f"{name}.parquet"), "body")) == TEXTS
        for writer in (pyarrow.ipc.new_file, pyarrow.ipc.new_stream):
            with writer(str(tmp_path / f"{name}.arrow"), table.schema) as file:
                file.write_table(table)
            assert list(readers.read(str(tmp_path / f"{name}.arrow"), "body")) == TEXTS
        with pytest.raises(UserError, match=r"n, body.*field=body"):
            list(readers.read(str(tmp_path / f"{name}.arrow")))


def test_a_damaged_column_is_not_read_from_anywhere_in_memory(tmp_path):
    """Arrow's files have no checksums: offsets and encoding of text are what can be looked at."""
    batch = pyarrow.record_batch({"other": ["c", "d"], "text": ["aaa", "bbb"]})
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), batch.schema) as file:
        file.write_batch(batch)
    whole, offsets = (tmp_path / "a.arrow").read_bytes(), np.asarray([0, 3, 6], np.int32).tobytes()
    path = str(tmp_path / "b.arrow")
    for old, new in ((offsets, [0, 3, 1 << 30]), (offsets, [0, 5, 2]), (offsets, [-9, 3, 6]), (b"aaabbb", b"aaa\xff\xfe\xfd")):
        assert whole.count(old) == 1
        (tmp_path / "b.arrow").write_bytes(whole.replace(old, new if isinstance(new, bytes) else np.asarray(new, np.int32).tobytes()))
        with pytest.raises(UserError, match=r"b\.arrow.*batch 0"):
            list(readers.read(path))
        assert list(readers.read(path, "other")) == ["c", "d"]


def test_a_column_of_another_type_is_named_with_it(tmp_path):
    for name, column in (("null", pyarrow.nulls(2)), ("int64", pyarrow.array([1, 2]))):
        pyarrow.parquet.write_table(pyarrow.table({"text": column, "body": ["a", "b"]}), tmp_path / f"{name}.parquet")
        with pytest.raises(UserError, match=f"'text' is of type {name}.*field=body"):
            list(readers.read(str(tmp_path / f"{name}.parquet")))


def test_null_is_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": "a"}\n')
    pyarrow.parquet.write_table(pyarrow.table({"text": [None, "a"]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert list(readers.read(str(tmp_path / name))) == ["", "a"]


def test_lines_of_a_tsv_are_pairs(tmp_path):
    rng = random.Random(0)
    pairs = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(60)]
    text = "".join(f"{word}\t{word.upper()}\r\n" for word in pairs)
    (tmp_path / "pairs.tsv").write_text(text, newline="")
    (tmp_path / "pairs.txt").write_text(text, newline="")
    expected = [f"{word}\t{word.upper()}" for word in pairs]
    assert list(readers.read(str(tmp_path / "pairs.tsv"))) == expected
    assert list(readers.read(str(tmp_path / "pairs.txt"), lines=True)) == expected
    (tmp_path / "table.tsv").write_text("id\tbody\n1\tx\n2\ty\n")
    assert list(readers.read(str(tmp_path / "table.tsv"), "body")) == ["x", "y"]
    made = corpora.prepare(Component("text_files", (str(tmp_path / "pairs.tsv"),)), str(tmp_path / "data"), lambda _: None)
    assert sorted([*made.split("train"), *made.split("validation")]) == sorted(expected)
    by_lines = Component("text_files", (str(tmp_path / "pairs.txt"),), lines=True)
    assert corpora.prepare(by_lines, str(tmp_path / "data"), lambda _: None).fingerprint == made.fingerprint


def test_a_text_file_of_many_pairs_is_refused_and_a_table_as_a_target_is_not(tmp_path):
    table = "make a table\tname\tage\nAnn\t3\nBob\t4"
    code = "write f\tdef f():\n\treturn 1"  # whose lines begin with tabs
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"text": f"{i} {each}"}) + "\n" for i in range(30) for each in (table, code)))
    with open(tmp_path / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows([["text"], *([f"{i} {each}"] for i in range(30) for each in (table, code))])
    for name in ("pairs.jsonl", "pairs.csv"):
        config = DataConfig(components=(Component("text_files", (str(tmp_path / name),)),), objective=Pairs(), packing="best_fit")
        data = pipeline.prepare(config, str(tmp_path / "data"), lambda _: None)
        assert sum(map(len, (data.train, data.validation))) == 60

    rng = random.Random(0)
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{rng.random()}\t{rng.random()}\n" for _ in range(40)))
    files = Component("text_files", (str(tmp_path / "one.txt"), str(tmp_path / "two.txt")))
    with pytest.raises(UserError, match=r"40 lines.*lines=true"):  # as one document all but the first would be one target
        pipeline.prepare(dataclasses.replace(config, components=(files,)), str(tmp_path / "data"), lambda _: None)
    with pytest.raises(UserError, match=r"40 lines.*lines=true"):
        PairTokenizer(Bytes(), "\t").require_documents(named_text.read(files).documents)


def test_copies_of_one_text_and_an_outlier_are_refused(tmp_path):
    rng = random.Random(0)
    lines = [str(rng.random()) for _ in range(50)]
    texts = ["\n".join([*lines[:i], "changed", *lines[i + 1 :]]) for i in range(30)] + ["an outlier"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with pytest.raises(UserError, match=r"30 documents, \d+\.\d% .*0:a\.jsonl:0"):
        corpora.prepare(Component("text_files", (str(tmp_path / "a.jsonl"),)), str(tmp_path / "data"), lambda _: None)


def _folder(tmp_path) -> pathlib.Path:
    rng = random.Random(0)
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for i in range(6):
        content = "\n".join(f"{rng.randrange(10**12)} and {rng.randrange(10**12)}" for _ in range(10))
        (folder / ("deep" if i % 2 else "") / f"{i}.txt").write_text(content)
    (folder / "code.py").write_text("print(1)\nprint(2)\n")
    (folder / "empty.txt").write_text("")
    (folder / ".hidden" / "x.txt").write_text("no")
    return folder


def test_folders_and_patterns(tmp_path):
    folder, lines = _folder(tmp_path), []
    whole = Component("text_files", (str(folder),))
    made = corpora.prepare(whole, str(tmp_path / "data"), lines.append)
    assert sum(made.info["documents"].values()) == 6
    assert (made.info["files"], made.info["dropped"]["empty file"]) == (7, 1)
    assert any(".py 1" in line for line in lines)
    pattern = Component("text_files", (str(folder / "**" / "[0-9].txt"), str(folder / "0.txt")))  # named twice, read once
    assert corpora.prepare(pattern, str(tmp_path / "data"), lambda _: None).fingerprint == made.fingerprint
    assert len(readers.expand([str(folder / "*.py")], pytest.fail)) == 1

    (folder / "late.txt").write_text("this came later")
    with pytest.raises(UserError, match=r"late\.txt"):
        corpora.prepare(whole, str(tmp_path / "data"))
    for path in folder.rglob("*.txt"):
        path.unlink()
    assert corpora.prepare(whole, str(tmp_path / "data")).fingerprint == made.fingerprint  # what is gone is no longer needed
    for paths, message in (
        ((str(folder),), r"\.py 1.*\*\*/\*\.py"),
        ((str(folder / "*.txt"),), r"\*\.txt"),
        (("none",), r"\bnone\b"),
    ):
        with pytest.raises(UserError, match=message):
            corpora.prepare(Component("text_files", paths), str(tmp_path / "other"), lambda _: None)


def test_a_file_that_cannot_be_read_is_no_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("text")

    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(text_files, "_sha256", refuse)
    with pytest.raises(UserError, match=r"cannot read .*a\.txt: Permission denied"):
        corpora.prepare(Component("text_files", (str(path),)), str(tmp_path / "data"), lambda _: None)


def test_more_text_than_a_corpus_holds_is_refused_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LARGEST", 200_000)
    monkeypatch.setattr(readers, "SAMPLE", 20_000)
    monkeypatch.setattr(text_files, "stamp", lambda paths: pytest.fail("read before it was refused"))
    rng = random.Random(0)
    rows = [{"text": f"{rng.random()} " * 5, "other": "x" * 300} for _ in range(2000)]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    text, held = sum(len(row["text"]) for row in rows), tmp_path / "data"
    (tmp_path / "a.jsonl").write_bytes(data)
    assert readers.estimated_bytes([str(tmp_path / "a.jsonl")] * 3) == pytest.approx(3 * text, rel=0.01)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(data))
    assert readers.estimated_bytes([str(tmp_path / "b.txt.gz")]) == pytest.approx(len(data), rel=0.3)
    component = Component("text_files", (str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt.gz")), streamed=False)
    with pytest.raises(UserError, match=r"0\.0002 GB.*streamed"):
        corpora.prepare(component, str(held), lambda _: None)
    assert not [file for file in held.rglob("*") if file.is_file() and file.suffix != ".lock"]
    text_files.require_room([str(tmp_path / "a.jsonl")])  # 700 kB of which 200 are text


def test_what_is_read_is_part_of_the_corpus_name(tmp_path):
    plain = Component("text_files", (str(tmp_path),))
    others = [Component("text_files", (str(tmp_path),), field="body"), Component("text_files", (str(tmp_path),), lines=True)]
    keys = [text_files.key(each.paths, each.field, each.lines) for each in (plain, *others)]
    indices = [index_path(DataConfig(components=(each,)), "data") for each in (plain, *others)]
    assert len(set(keys)) == len(set(indices)) == 3
    assert keys[0] == text_files.key((os.path.relpath(tmp_path),))
    for fields in ({"field": "body"}, {"lines": True}):
        with pytest.raises(UserError, match="text_files"):
            corpora.prepare(Component("python_sources", **fields), str(tmp_path))


def test_a_folder_of_the_library_datasets_is_read_without_its_metadata(tmp_path):
    table, folder = pyarrow.table({"text": TEXTS}), tmp_path / "saved"
    (folder / "train").mkdir(parents=True)
    with pyarrow.ipc.new_stream(str(folder / "train" / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)
    for name in ("dataset_dict.json", "train/dataset_info.json", "train/state.json"):
        (folder / name).write_text(json.dumps({"splits": ["train"]}, indent=1))
    (path,) = readers.expand([str(folder)], lambda line: None)
    assert list(readers.read(path)) == TEXTS
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "state.json").write_text(json.dumps({"text": "a"}))  # beside no table it is text
    assert len(readers.expand([str(tmp_path / "plain")], pytest.fail)) == 1
    with pytest.raises(UserError, match=r"dataset_dict\.json is one JSON object"):
        list(readers.read(str(folder / "dataset_dict.json")))


def test_what_breaks_off_or_nests_too_deeply_is_named(tmp_path):
    table = pyarrow.table({"text": ["word " * 200] * 50})
    for name, writer in {"stream": pyarrow.ipc.new_stream, "file": pyarrow.ipc.new_file}.items():
        with writer(str(tmp_path / f"{name}.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=10)
        data = (tmp_path / f"{name}.arrow").read_bytes()
        (tmp_path / f"{name}.arrow").write_bytes(data[: len(data) // 2])
        with pytest.raises(UserError, match=rf"{name}\.arrow" + (".*batch 2" if name == "stream" else "")):
            list(readers.read(str(tmp_path / f"{name}.arrow")))
    (tmp_path / "deep.jsonl").write_text('{"text": "a"}\n{"text": ' + "[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"deep\.jsonl line 2"):
        list(readers.read(str(tmp_path / "deep.jsonl")))


def test_the_text_of_a_parquet_file_is_counted_uncompressed(tmp_path):
    texts, path = [f"{i} " + "the same words " * 100 for i in range(200)], tmp_path / "a.parquet"
    table = pyarrow.table({"n": list(range(200)), "body": texts})
    pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=50)
    size = sum(len(text) for text in texts)
    assert path.stat().st_size < size / 5
    assert readers.estimated_bytes([str(path)], "body") == pytest.approx(size, rel=0.05)


def test_a_small_validation_split_is_warned_of(tmp_path):
    rng = random.Random(0)
    texts = ["\n".join(str(rng.random()) for _ in range(200)), "a short one"]
    for name, given in {"few": texts, "many": [f"{rng.random()} {rng.random()}" for _ in range(200)]}.items():
        lines: list[str] = []
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in given))
        made = text_files.collect([str(path)], lines.append)
        share = made.info["bytes"]["validation"] / sum(made.info["bytes"].values())
        assert any(f"{share:.2%}" in line for line in lines) == (name == "few")


def test_advice_names_the_component(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(_jsonl("body"))
    second = Component("text_files", (str(tmp_path / "a.jsonl"),))
    with pytest.raises(UserError, match=r"config\.data\.components\.1\.field=body"):
        pipeline.prepare(DataConfig(components=(Component("word_chain"), second)), str(tmp_path / "data"), lambda _: None)
    with pytest.raises(UserError, match=r"config\.data\.components\.0\.field=body"):
        pipeline.prepare(DataConfig(components=(second,)), str(tmp_path / "data"), lambda _: None)
