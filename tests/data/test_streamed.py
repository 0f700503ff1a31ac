"""Text of any size: the same corpus whatever the units, the processes and the moment of a kill, with little of it in memory."""

import gzip
import itertools
import json
import os
import random
import time
import tracemalloc

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from fake_corpus import Corpus, quiet
from work_units import square

from lm import claims, machine
from lm.data import __main__ as command
from lm.data import corpora, pipeline, shared_work, tokens
from lm.data.config import Component, DataConfig
from lm.data.corpora import lines, readers, repeats, streamed, text_files, text_shards, verbatim
from lm.data.corpora.documents import LONG_LINE, Document, verbatim_shares
from lm.data.corpora.faults import Faults
from lm.data.corpora.fields import Fields
from lm.data.info import index_path
from lm.data.objectives.pairs import PairTokenizer
from lm.data.stream import TrainStream
from lm.data.tokenizer import Bytes
from lm.errors import UserError

SPLITS = ("train", "validation")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Units of some kB, so that small files have many; one process."""
    for module in (streamed, text_shards):
        monkeypatch.setattr(module, "LEAST", 4_000)
    monkeypatch.setattr(tokens, "LARGE", 0)
    monkeypatch.setenv(shared_work.WORKERS, "1")
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def _texts(count, seed=0):
    chosen = random.Random(seed)
    return [f"{i} " + " ".join(chosen.choices(["alpha", "bêta", "漢字", "\nd"], k=chosen.randint(1, 40))) for i in range(count)]


def _write(folder, texts):
    """Writes texts to files of several kinds; returns the component that names their folder."""
    folder.mkdir(exist_ok=True)
    of = [texts[i::4] for i in range(4)]
    objects = "".join(json.dumps({"text": text}) + "\n" for text in of[0])
    (folder / "a.jsonl").write_text(objects)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in of[1]).encode()))
    pyarrow.parquet.write_table(pyarrow.table({"text": of[2], "id": range(len(of[2]))}), folder / "c.parquet", row_group_size=7)
    (folder / "d.json").write_text(json.dumps([{"text": text} for text in of[3]]))
    return Component("text_files", paths=(str(folder),), streamed=True)


def _prepared(component, data_dir):
    return corpora.prepare(component, str(data_dir), quiet)


def _all(corpus):
    return [list(corpus.split(split)) for split in SPLITS]


def test_a_corpus_is_the_same_whatever_the_units_and_the_processes(tmp_path, monkeypatch):
    texts = _texts(400)
    component = _write(tmp_path / "in", texts + texts[:90])
    first = _prepared(component, tmp_path / "one")
    train, validation = _all(first)
    assert sorted(train + validation) == sorted(texts)  # each text once, whole
    assert first.info["dropped"] == {"exact duplicate": 90}
    assert 0 < len(validation) < 20  # of 400 with a share of .01
    assert len(text_shards.TextShards(first.directory, "train")._shards) > 5
    monkeypatch.setattr(streamed, "LEAST", 1_700)
    monkeypatch.setenv(shared_work.WORKERS, "2")
    second = _prepared(component, tmp_path / "two")
    assert second.fingerprint == first.fingerprint
    assert _all(second) == [train, validation]
    assert {first.split("train").name(i).split(":")[1] for i in range(len(train))} == {"a.jsonl", "b.jsonl.gz", "c.parquet", "d.json"}
    config = DataConfig(components=(component,), sequence_length=16)
    made = [pipeline.prepare(config, str(tmp_path / name), quiet) for name in ("one", "two")]
    assert made[0].fingerprint == made[1].fingerprint
    np.testing.assert_array_equal(made[0].mixture.sources[0].cache.flat[:], made[1].mixture.sources[0].cache.flat[:])


def test_the_split_follows_the_stated_share_or_files(tmp_path):
    texts = _texts(2_000)
    component = _write(tmp_path / "in", texts)
    shared = _prepared(Component("text_files", paths=component.paths, validation_share=0.2), tmp_path / "data")
    assert abs(shared.info["documents"]["validation"] / 2_000 - 0.2) < 4 * (0.2 * 0.8 / 2_000) ** 0.5
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps({"text": text}) + "\n" for text in [texts[5], "another", "another"]))
    apart = _prepared(Component("text_files", paths=component.paths, validation_paths=(str(held),)), tmp_path / "data")
    train, validation = _all(apart)
    assert (validation, len(train), texts[5] in train) == ([texts[5], "another"], 1_999, False)  # never in both
    assert len({each.fingerprint for each in (shared, apart)}) == 2
    for changes in ({"streamed": False}, {"validation_share": 0.1}, {"validation_paths": (str(held),), "corpus": "python_sources"}):
        wrong = {"corpus": "text_files", "paths": component.paths, "validation_paths": (str(held),), **changes}
        with pytest.raises(UserError, match="validation_"):
            _prepared(Component(**wrong), tmp_path / "data")


def test_size_decides_and_what_is_there_stays(tmp_path, monkeypatch):
    texts = _texts(400)
    asked = _write(tmp_path / "in", texts)
    component = Component("text_files", paths=asked.paths)
    in_memory = _prepared(component, tmp_path / "a")
    assert "clusters" in in_memory.info
    monkeypatch.setattr(text_files, "LARGEST", 10_000)
    assert _prepared(component, tmp_path / "a").fingerprint == in_memory.fingerprint
    large = _prepared(component, tmp_path / "b")
    assert large.fingerprint == _prepared(asked, tmp_path / "c").fingerprint != in_memory.fingerprint
    with pytest.raises(UserError, match="streamed=false"):
        _prepared(Component("text_files", paths=asked.paths, streamed=False), tmp_path / "b")
    monkeypatch.undo()
    assert _prepared(component, tmp_path / "b").fingerprint == large.fingerprint
    assert corpora.require_unchanged(component, str(tmp_path / "b"))
    (tmp_path / "in" / "e.txt").write_text("more")
    with pytest.raises(UserError, match=r"e\.txt"):
        _prepared(component, tmp_path / "b")


def test_settings_of_other_corpora_leave_the_names_of_data_sets_as_they_were():
    config = DataConfig(components=(Component("text_files", paths=("a.jsonl",), field="body"), Component(weight=2.0)))
    assert os.path.basename(index_path(DataConfig(), "d")) == "48e17e094e04f31f.json"
    assert os.path.basename(index_path(config, "d")) == "8f58f33e0e2e0e42.json"


@pytest.mark.parametrize("end", ["\n", ""])
def test_parts_hold_each_line_once_wherever_they_are_cut(tmp_path, end):
    written = ["é one", "", "two", "  ", "x" * 9, "漢字" * 3, "last"]
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + ("\n".join(written) + end).encode())
    size = path.stat().st_size
    for first in range(0, size + 1, 3):
        for second in range(first, size + 1, 5):
            parts = [(0, first), (first, second), (second, size)]
            found = [text for part in parts for text in readers.read(str(path), lines=True, part=part)]
            assert found == [line for line in written if line.strip()]
            found = [text for part in parts for text in readers.read(str(path), part=part)]
            assert "".join(found) == "\n".join(written) + end


def test_pieces_of_a_part_are_those_of_the_file_with_little_in_memory(tmp_path, monkeypatch):
    chosen = random.Random(1)
    text = "".join("".join(chosen.choices("ab é漢\u2028\x0c", k=chosen.choice([3, 90, 700]))) + "\n" for _ in range(3_000))
    path = tmp_path / "a.txt"
    path.write_text(text, newline="")
    assert list(readers.read(str(path), part=(0, None))) == list(readers.read(str(path)))
    path.write_bytes(b"x" * 100 + "漢".encode() * 1_000_000)  # one line
    monkeypatch.setattr(lines, "CHUNK", 10_000)
    tracemalloc.start()
    assert sum(len(piece.encode()) for piece in readers.read(str(path), part=(0, None))) == 3_000_100
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_line_beyond_all_bounds_is_left_out_with_little_in_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "one"}\n{"text": "')
        for _ in range(30):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "\xff"}\n{"texts": 1}\n{"text": "two"}\n')
    faults = Faults(100_000, skip=True)
    tracemalloc.start()
    assert list(readers.read(str(path), faults=faults, part=(0, path.stat().st_size))) == ["one", "two"]
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert sorted(faults.counts.values()) == [1, 1, 1]
    with pytest.raises(UserError, match=f"{path} line 2"):
        list(readers.read(str(path), part=(0, None)))


def test_verbatim_lines_are_those_of_the_way_in_memory(tmp_path):
    chosen = random.Random(2)
    known = [" " * chosen.randint(0, 3) + "".join(chosen.choices("ab é", k=chosen.choice([10, 25, 45, 90]))) for _ in range(400)]
    sides = [["\n".join(chosen.choices(known[first:], k=6)) for _ in range(300)] for first in (0, 150)]
    expected = verbatim_shares(*([Document(str(i), text) for i, text in enumerate(side)] for side in sides))

    def arrays(side, share):
        for part in (side[:100], side[100:]):
            found = verbatim.Lines(share)
            for text in part:
                found.add(0, text)
            yield found.array()

    for share, tolerance in ((1.0, 1e-12), (0.4, 0.15)):
        facts = verbatim.facts(arrays(sides[1], share), arrays(sides[0], share), share)
        assert facts["verbatim_shares"] == pytest.approx({str(least): each for least, (each, _) in expected.items()}, abs=tolerance)
        assert facts["verbatim_lines"] == pytest.approx(share * expected[LONG_LINE][1], rel=tolerance * 2)
    assert 0.3 < expected[LONG_LINE][0] < 1  # of which there is something to measure
    component = _write(tmp_path / "in", [f"{i} alone\n" + "what all documents have, in a line of forty" for i in range(300)])
    assert _prepared(component, tmp_path / "data").info["verbatim_share"] == 1.0


def test_repeats_are_found_in_any_number_of_rounds(tmp_path):
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2**64, (40, 2), np.uint64)
    each = [known[rng.integers(0, 40, size)] for size in (30, 0, 50, 1)]
    paths = [str(tmp_path / f"{i}.npy") for i in range(4)]
    for path, hashes in zip(paths, each, strict=True):
        np.save(path, hashes)
    seen, expected = set(), []
    for number, hashed in enumerate(map(tuple, np.concatenate(each).tolist())):
        expected += [number] * (hashed in seen)
        seen.add(hashed)
    for at_once in (1, 7, 1_000):
        assert repeats.find(paths, np.asarray([0, 30, 30, 80, 81]), at_once).tolist() == expected


def test_fields_make_a_text():
    assert Fields().names == ("text",)
    assert Fields("body").text(["a"]) == "a"
    template = Fields("{title}\n{body} ({title})")
    assert template.names == ("title", "body")
    assert template.text(["T", None]) == "T\n (T)"
    assert template.text([None, ""]) == ""


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_template_joins_fields_of_every_kind_of_file(tmp_path, suffix):
    path = str(tmp_path / ("a" + suffix))
    table = pyarrow.table({"title": ["A", "B"], "n": [1, 2], "body": ["one", "two"]})
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif suffix == ".csv":
        with open(path, "w") as file:
            file.write("title,n,body\nA,1,one\nB,2,two\n")
    else:
        with open(path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    assert list(readers.read(path, "{title}: {body}")) == ["A: one", "B: two"]
    with pytest.raises(UserError, match="'author'"):
        list(readers.read(path, "{title} {author}"))


@pytest.mark.parametrize("what", ["kill", "error", "full"])
def test_work_that_is_ended_goes_on_where_it_was(tmp_path, what):
    broken = tmp_path / "broken"
    broken.write_text(what)
    job = shared_work.Job(str(tmp_path / "job"), square, (str(broken),), range(8), [1] * 8)
    os.makedirs(job.directory)
    with pytest.raises(UserError, match={"kill": "signal 9", "error": "unit 3", "full": "No space"}[what]):
        shared_work.carry_out(job, "test", quiet, workers=1 if what == "full" else 2)
    done = {i: os.stat(job.folder(i)).st_ino for i in job.done()}
    assert 3 not in done
    broken.unlink()
    shared_work.carry_out(job, "test", quiet, workers=1)
    assert [int((job.folder(i) / "text").read_text()) for i in range(8)] == [i**2 for i in range(8)]
    assert {i: os.stat(job.folder(i)).st_ino for i in done} == done
    assert sorted(os.listdir(tmp_path / "job.work" / "units")) == [f"{i:06d}" for i in range(8)]  # nothing is left behind


def test_processes_that_share_a_directory_join_its_work_once(tmp_path):
    jobs = [shared_work.Job(str(tmp_path / "job"), square, ("",), range(6), [1] * 6) for _ in range(2)]
    os.makedirs(jobs[0].directory)
    each = [shared_work.work(job) for job in jobs]
    for _ in itertools.zip_longest(*each):  # turn about
        pass
    assert jobs[0].done() == set(range(6))
    shared_work.join(jobs[0], lambda folder: os.link(jobs[0].folder(5) / "text", os.path.join(folder, "text")))
    shared_work.join(jobs[1], lambda folder: pytest.fail("joined twice"))
    shared_work.carry_out(jobs[1], "test", quiet)  # over: nothing is done again
    assert (tmp_path / "job" / "text").read_text() == "25"
    assert os.listdir(tmp_path) == ["job"]


def test_the_command_prepares_the_text_of_a_configuration(tmp_path, capsys):
    component = _write(tmp_path / "in", _texts(100))
    of = "--config.data.components.0."
    arguments = ["--config=configs/decoder.py:tiny", f"--config.data_dir={tmp_path / 'data'}", of + "corpus=text_files"]
    assert command.main([*arguments, of + f"paths={component.paths[0]}", of + "validation_share=0.2"]) == 0
    said = capsys.readouterr().out.splitlines()
    data = pipeline.prepare(
        DataConfig(components=(Component("text_files", component.paths, validation_share=0.2),)), str(tmp_path / "data"), quiet
    )
    assert f"fingerprint {data.fingerprint}" in said[-1]


def test_a_claim_is_one_process_s_until_it_is_given_back_stale_or_its_process_is_gone(tmp_path):
    folder = tmp_path / "claims"
    first = claims.take(folder, tmp_path)
    assert first is not None
    assert claims.take(folder, tmp_path) is None
    past = time.time() - claims.STALE_SECONDS - 60
    os.utime(folder / "000001", (past, past))
    second = claims.take(folder, tmp_path)
    assert second is not None
    second.give_back()
    assert claims.take(folder, tmp_path) is not None
    (folder / "000003").write_text(json.dumps(machine.process() | {"born": "0"}))
    assert claims.take(folder, tmp_path) is not None


def test_files_that_change_while_their_corpus_is_prepared_are_named(tmp_path):
    component = _write(tmp_path / "in", _texts(300))
    target = streamed.directory(component, str(tmp_path / "data"))
    units = streamed._plan(component, target, quiet)
    job = shared_work.Job(str(target), streamed.write_unit, (streamed._settings(component),), units, [1] * len(units))
    shared_work._do(job, 0)
    path = tmp_path / "in" / "a.jsonl"
    os.utime(path, (1, 1))
    assert streamed._plan(component, target, quiet) != units  # touched: the rest is read as it is now
    content = path.read_text()
    path.write_text(content.replace("alpha", "gamma"))
    with pytest.raises(UserError, match=r"a\.jsonl has changed"):
        _prepared(component, tmp_path / "data")
    with open(path, "a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=r"a\.jsonl changed while"):
        streamed._require_same(units[0][0])
    path.unlink()
    with pytest.raises(UserError, match=r"a\.jsonl has gone"):
        _prepared(component, tmp_path / "data")
    with pytest.raises(UserError, match=r"cannot read .*a\.jsonl"):
        streamed.write_unit(job.arguments[0], units[0], str(tmp_path))
    path.write_text(content)
    (tmp_path / "in" / "z.txt").write_text("another")
    with pytest.raises(UserError, match=r"z\.txt has come"):
        _prepared(component, tmp_path / "data")
    (tmp_path / "in" / "z.txt").unlink()
    assert _prepared(component, tmp_path / "data").fingerprint == _prepared(component, tmp_path / "other").fingerprint
    assert os.listdir(target.parent) == [target.name]  # and no work


@pytest.mark.parametrize("damage", ["gz", "parquet", "utf8", "list", "empty", "room", "few"])
def test_bad_input_is_named_and_what_is_done_stays(tmp_path, monkeypatch, damage):
    component = _write(tmp_path / "in", _texts(300))
    named = {
        "gz": "b.jsonl.gz",
        "parquet": "c.parquet",
        "utf8": "a.jsonl",
        "list": "d.json",
        "empty": "in",
        "room": "GB free",
        "few": "share",
    }
    folder = tmp_path / "in"
    if damage in ("gz", "parquet"):
        path = folder / named[damage]
        path.write_bytes(path.read_bytes()[:-40] if damage == "gz" else b"PAR1" + path.read_bytes()[4:200])
    elif damage == "utf8":
        (folder / "a.jsonl").write_bytes((folder / "a.jsonl").read_bytes() + b'{"text": "\xff"}\n')
    elif damage == "list":
        monkeypatch.setattr(streamed, "LARGEST_LIST", 100)
    elif damage == "empty":
        for path in folder.iterdir():
            path.unlink()
    elif damage == "room":
        monkeypatch.setattr(streamed.shutil, "disk_usage", lambda path: _Free)
    else:
        component = Component("text_files", paths=component.paths, validation_share=1e-9)
    with pytest.raises(UserError, match=named[damage]):
        _prepared(component, tmp_path / "data")
    if damage == "utf8":
        skipping = _prepared(Component("text_files", paths=component.paths, streamed=True, unusable="skip"), tmp_path / "data")
        assert skipping.info["dropped"] == {"document that is not UTF-8": 1}


class _Free:
    free = 10


def _cut(corpus):
    """Gives a corpus in memory the parts of one on disk."""
    for split in SPLITS:
        documents = corpus.split(split)
        bounds = [0, 1, *range(4, len(documents), 9), len(documents)] if len(documents) > 1 else [0, 1]
        documents.cut = lambda bounds=bounds: [(a, b, 1) for a, b in itertools.pairwise(bounds)]
    return corpus


def test_tokens_in_shards_are_those_of_one_file(tmp_path):
    texts = _texts(50)
    flat = tokens.prepare(Corpus(texts), "train", Bytes(), str(tmp_path / "flat"), quiet)
    cut = tokens.prepare(_cut(Corpus(texts)), "train", Bytes(), str(tmp_path / "cut"), quiet)
    assert cut.fingerprint == flat.fingerprint
    assert len(cut.flat) == len(flat.flat)
    np.testing.assert_array_equal(cut.starts, flat.starts)
    np.testing.assert_array_equal(cut.byte_counts, flat.byte_counts)
    np.testing.assert_array_equal(cut.flat[:], flat.flat[:])
    np.testing.assert_array_equal(cut.flat[40:900], flat.flat[40:900])
    index = np.random.default_rng(0).integers(0, len(flat.flat), (7, 30))
    np.testing.assert_array_equal(cut.flat.take(index), flat.flat.take(index))
    assert cut.flat.take(np.empty((0, 3), np.int64)).shape == (0, 3)
    assert cut.round_trip == flat.round_trip
    config = DataConfig(sequence_length=32, allow_epochs=True)
    batches = [
        TrainStream(pipeline.build(config, [corpus], str(tmp_path / name), quiet), config, 8, 0)[5]
        for name, corpus in (("flat", Corpus(texts)), ("cut", _cut(Corpus(texts))))
    ]
    np.testing.assert_array_equal(batches[0].tokens, batches[1].tokens)
    shard = sorted((tmp_path / "cut" / "tokens" / cut.fingerprint).glob("*.tokens"))[2]
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(UserError, match=cut.fingerprint):
        tokens.open_cache(cut.directory)


def test_pairs_are_required_of_every_part(tmp_path):
    texts = ["a\tb", "c\td", "no separator", "e\tf", "g\th"]
    tokenizer = PairTokenizer(Bytes(), "\t")
    with pytest.raises(UserError, match="separator"):
        tokens.prepare(_cut(Corpus(texts)), "train", tokenizer, str(tmp_path), quiet)


def test_ids_beyond_two_to_the_31_lie_where_they_should(tmp_path):
    """Of sparse files: 2.4e9 ids of two bytes in two shards, in a cache as it is written, and rows that end at its end."""
    cache, shards = tmp_path / "cache", [1_500_000_001, 900_000_000]
    cache.mkdir()
    for i, count in enumerate(shards):
        with open(cache / f"{i:06d}.tokens", "wb") as file:
            file.truncate(2 * count)
            file.seek(2 * (count - 8))
            file.write(np.arange(8, dtype=np.uint16).tobytes())
    total = sum(shards)
    np.save(cache / "starts.npy", np.asarray([1, 1_500_000_000, total - 8, total]))
    np.save(cache / "bytes.npy", np.asarray([5, 5, 5]))
    counts = {"documents": 3, "tokens": total - 1, "bytes": 15}
    names = ["000000.tokens", "000001.tokens", "starts.npy", "bytes.npy"]
    tokens._finish(str(cache), "f", Bytes(), counts, {"lost": 0, "bytes": 1}, dict.fromkeys(names, 0))
    opened = tokens.open_cache(str(cache), verify=False)
    assert opened.num_tokens == total - 1 > 2**31
    assert opened[2].tolist() == list(range(8))
    assert opened.flat.take(np.asarray([[total - 1, shards[0] - 1], [shards[0], total - 8]])).tolist() == [[7, 7], [0, 0]]
    assert opened.flat[shards[0] - 2 : shards[0] + 2].tolist() == [6, 7, 0, 0]
    from lm.data.packing import concatenate

    plan = concatenate(opened.starts[:-1], opened.lengths, 1 << 30)
    assert len(plan) == 2
    plan = concatenate(opened.starts[2:-1], opened.lengths[2:], 4)
    assert opened.flat.take(plan.gather(np.asarray([1]))[0]).tolist() == [[4, 5, 6, 7]]


def _record(text, kind="conversion", content="text/plain"):
    data = text.encode()
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Type: {content}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data + b"\r\n\r\n"


def test_records_of_web_archives(tmp_path):
    texts = ["one é\n\nWARC/1.0\n", "漢字" * 10, "last"]
    whole = _record("software: x", "warcinfo", "application/warc-fields") + b"".join(map(_record, texts))
    path = tmp_path / "CC-MAIN-1.warc.wet.gz"
    path.write_bytes(b"".join(gzip.compress(part) for part in (whole[:100], whole[100:])))  # a member for each record, as they are written
    assert list(readers.read(str(path))) == list(readers.read(str(path), part=(0, None))) == texts
    plain = tmp_path / "a.wet"
    for cut in range(1, len(whole) - 4, 7):
        plain.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.wet record at byte"):
            list(readers.read(str(plain)))
    faults = Faults(20, skip=True)
    plain.write_bytes(whole + _record("x").replace(b"\r\nx\r\n", b"\r\n\xff\r\n"))
    assert list(readers.read(str(plain), faults=faults)) == ["one é\n\nWARC/1.0\n", "last"]
    assert faults.counts == {"document too long": 1, "document that is not UTF-8": 1}
    (tmp_path / "a.warc").write_bytes(_record("HTTP/1.1 200 OK", "response", "application/http"))
    with pytest.raises(UserError, match=r"a\.warc holds 1 pages"):
        list(readers.read(str(tmp_path / "a.warc")))


def test_records_of_array_record(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    texts, path = _texts(150), tmp_path / "a.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for text in texts:
        writer.write(text.encode())
    writer.close()
    assert list(readers.read(str(path))) == texts
    assert [text for part in ((0, 70), (70, 71), (71, 150)) for text in readers.read(str(path), part=part)] == texts
    made = _prepared(Component("text_files", paths=(str(tmp_path),), streamed=True, validation_share=0.1), tmp_path / "data")
    assert sorted(itertools.chain(*_all(made))) == sorted(texts)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.array_record"):
        list(readers.read(str(path)))
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match="tfds:NAME"):
        list(readers.read(str(path)))


def test_text_at_an_address_is_that_of_the_same_files_here(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    here = _write(tmp_path / "in", _texts(200))
    (tmp_path / "in" / "e.txt").write_text("a text\n" * 900)
    store, top = fsspec.filesystem("memory"), f"memory://{tmp_path.name}"
    for path in (tmp_path / "in").iterdir():
        store.pipe(f"{top}/{path.name}", path.read_bytes())
    expected = _prepared(here, tmp_path / "data")
    for paths in ((top,), tuple(f"{top}/{name}" for name in ("[abc].*", "d.json", "e.txt"))):
        component = Component("text_files", paths=paths)
        made = _prepared(component, tmp_path / "data")
        assert (made.fingerprint, _all(made)) == (expected.fingerprint, _all(expected))
        assert corpora.require_unchanged(component, str(tmp_path / "data"))
    for path, named in ((f"{top}/none.jsonl", "does not exist"), ("memory://none/*.txt", "no file matches"), ("nosuch://a", "nosuch://a")):
        with pytest.raises(UserError, match=named):
            _prepared(Component("text_files", paths=(path,)), tmp_path / "data")
    with pytest.raises(UserError, match="streamed=false"):
        _prepared(Component("text_files", paths=("memory://a",), streamed=False), tmp_path / "data")
    component = Component("text_files", paths=(f"{top}/a.jsonl",))
    units = streamed._plan(component, streamed.directory(component, str(tmp_path / "data")), quiet)
    store.pipe(f"{top}/a.jsonl", b"another")
    with pytest.raises(UserError, match=r"a\.jsonl changed"):
        streamed._require_same(units[0][0])
