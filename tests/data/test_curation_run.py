"""A curation on disk: the same bytes whatever the number of processes and kills, its ledger, its page, and what is wrong with its input."""

import dataclasses
import gzip
import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python import array_record_module

from lm.data import curate, shared_work
from lm.data.corpora import readers
from lm.data.corpora.faults import Faults
from lm.data.curation import apply, clusters, plan, report, run, sources, store
from lm.data.curation.document import Document
from lm.errors import UserError

STEPS = "gopher_quality,exact_documents,pii,exact_paragraphs,minhash,url"
SETTINGS = ["--set=gopher_quality.least_words=6"]


def text(n):
    """One of some texts that differ, repeat others, or resemble them."""
    words = [f"w{chr(97 + (n * k) % 26)}{chr(97 + k)}" for k in range(20)]
    kinds = [
        f"that with {' '.join(words)}\n\nBack to the top of this page\n\n{' '.join(words[::-1])} mail{n}@mail.example",
        "too short <b>&</b>",
        "that is with the same text, the whole of it",
        f"that with {' '.join(words[:15])} and more of what {n}",
    ]
    return kinds[n % 4]


@pytest.fixture
def files(tmp_path):
    for number, ids in enumerate((range(40), range(40, 45), range(45, 80))):
        data = "".join(json.dumps({"text": text(n), "other": n}) + "\n" for n in ids).encode()
        path = tmp_path / f"{number}.jsonl{'.gz' * (number == 1)}"
        path.write_bytes(gzip.compress(data) if number == 1 else data)
    return [str(path) for path in sorted(tmp_path.glob("*.jsonl*"))]


def command(files, out, *more, steps=STEPS):
    return curate.main(
        [*files, f"--out={out}", f"--steps={steps}", "--processes=1", *(SETTINGS if "gopher_quality" in steps else []), *more]
    )


def content(out):
    """All that a curation wrote, by file, without the time of its inputs."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(".lock")}


def test_a_corpus_on_disk_is_that_of_the_steps_in_memory(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store.batches, "__defaults__", (700,))  # bytes: many batches
    out = tmp_path / "out"
    assert command(files, out) == 0
    printed = capsys.readouterr().out
    made = plan.Plan(tuple(files), str(out), STEPS, ("gopher_quality.least_words=6",))
    documents = [Document(each, str(n)) for n, each in enumerate(text for path in files for text in readers.read(path))]
    kept, accounts = apply.apply(documents, made.chosen())
    written = [each for path in sorted((out / "text").iterdir()) for each in readers.read(str(path))]
    assert written == [document.text for document in kept]
    assert 0 < len(kept) < len(documents)
    ledger = json.loads((out / "ledger.json").read_text())
    for step, account in zip(ledger["steps"], accounts, strict=True):
        mine = account.to_json()
        assert {key: step[key] for key in step if key != "samples"} == {key: mine[key] for key in mine if key != "samples"}
        assert set(step["samples"]) == set(mine["samples"]) == {*step["dropped"], *step["changed"]}
    lost = sum(tally["documents"] for step in ledger["steps"] for tally in step["dropped"].values())
    assert ledger["read"]["documents"] - lost == ledger["kept"]["documents"] == len(kept) == sum(ledger["lengths"]["kept"].values())
    assert f"{len(kept):,} documents" in printed
    assert not (out / ".work").exists()
    assert [each["step"] for each in ledger["clusters"]] == ["exact_documents", "exact_paragraphs", "minhash"]
    assert ledger["clusters"][0]["largest"][0]["items"] == 20


class Killed(Exception):
    pass


def test_a_killed_curation_goes_on_and_gives_the_same(files, tmp_path, monkeypatch):
    whole = plan.Plan(tuple(files), str(tmp_path / "whole"), STEPS, ("gopher_quality.least_words=6",), unit=os.path.getsize(files[0]))
    killed = dataclasses.replace(whole, out=str(tmp_path / "killed"))
    run.curate(whole, log=list, processes=1)
    do, write = shared_work._do, report.write
    for stop in (0, 1, 4, 6):  # units that are done before the kill; there are 12
        left = list(range(stop))

        def dies(job, i, left=left):
            if not left:
                raise Killed
            left.pop()
            do(job, i)

        monkeypatch.setattr(shared_work, "_do", dies)
        with pytest.raises(Killed):
            run.curate(killed, log=list, processes=1)
    monkeypatch.setattr(shared_work, "_do", do)
    monkeypatch.setattr(report, "write", lambda *_: {}[0])  # the shards are there, and the ledger is not
    with pytest.raises(KeyError):
        run.curate(killed, log=list, processes=1)
    monkeypatch.setattr(report, "write", write)
    run.curate(killed, log=list, processes=1)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    before = (tmp_path / "killed" / "ledger.json").stat().st_mtime_ns
    run.curate(killed, log=list, processes=1)  # it is there
    assert (tmp_path / "killed" / "ledger.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("after", [1, 2, 4, 6])
def test_another_machine_may_finish_meanwhile(files, tmp_path, monkeypatch, after):
    made = plan.Plan(tuple(files), str(tmp_path / "out"), "exact_documents,minhash,pii")
    do, jobs, found = shared_work.carry_out, [], []

    def slow(*arguments):
        jobs.append(arguments)
        if len(jobs) == after:
            with monkeypatch.context() as patch:
                patch.setattr(shared_work, "carry_out", do)
                found.append(run.curate(made, log=list, processes=1))
        do(*arguments)

    monkeypatch.setattr(shared_work, "carry_out", slow)
    assert run.curate(made, log=list, processes=1) == found[0]
    assert not (tmp_path / "out" / ".work").exists()


def test_two_processes_give_the_same_bytes(files, tmp_path):
    own = tmp_path / "own.py"  # own rules are found by the processes too
    own.write_text("from lm.data.curation.pii import PII\nsteps = (PII(),)\n")
    for processes in (1, 2):
        made = plan.Plan(tuple(files), str(tmp_path / str(processes)), str(own), unit=3_000)
        assert len(made.units()) == 2
        run.curate(made, log=list, processes=processes)
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_shards_are_cut_and_the_fingerprint_is_not(files, tmp_path):
    made = plan.Plan(tuple(files), str(tmp_path / "a"), "pii", unit=os.path.getsize(files[0]))
    one = run.curate(made, log=list, processes=1)
    two = run.curate(dataclasses.replace(made, out=str(tmp_path / "b"), shard=1), log=list, processes=1)
    other = run.curate(dataclasses.replace(made, out=str(tmp_path / "c"), files=tuple(files[::-1])), log=list, processes=1)
    assert [len(each["shards"]) for each in (one, two, other)] == [1, 2, 1]
    assert one["fingerprint"] == two["fingerprint"] == other["fingerprint"]
    assert (
        one["fingerprint"]
        != run.curate(dataclasses.replace(made, out=str(tmp_path / "d"), files=tuple(files[:2])), log=list, processes=1)["fingerprint"]
    )


def test_a_large_file_is_cut_and_small_ones_are_put_together(files, tmp_path):
    made = plan.Plan(tuple(files), str(tmp_path / "a"), "minhash,pii")
    assert len(made.units()) == 1
    cut = dataclasses.replace(made, out=str(tmp_path / "b"), unit=900)
    assert len(cut.units()) > len(files)
    whole, parts = (run.curate(each, log=list, processes=1) for each in (made, cut))
    assert whole["fingerprint"] == parts["fingerprint"]
    assert [whole["kept"], whole["clusters"][0]["sizes"]] == [parts["kept"], parts["clusters"][0]["sizes"]]


def test_fields_are_carried_along(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"body": f"some text {n}", "url": f"https://{'bad' * (n % 2)}.example/{n}", "source": "web", "other": 1} for n in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command([str(path)], tmp_path / "out", "--keep=url,source", "--field=body", "--set=url.domains=bad.example", steps="url,pii")
    kept = list(store.read(str(tmp_path / "out" / "text" / "00000.jsonl.zst")))
    assert [(each.text, each.metadata) for each in kept] == [(row["body"], {"url": row["url"], "source": "web"}) for row in rows[::2]]
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert {sample["url"] for sample in ledger["steps"][0]["samples"]["domain"]} == {row["url"] for row in rows[1::2]}


def test_everything_may_go(files, tmp_path):
    command(files, tmp_path / "out", "--set=gopher_quality.least_words=1000", steps="gopher_quality,minhash,pii")
    assert json.loads((tmp_path / "out" / "ledger.json").read_text())["kept"]["documents"] == 0
    assert list((tmp_path / "out" / "text").iterdir()) == []


def test_the_page_escapes_all_text(tmp_path):
    bad = "<script>alert(1)</script> \u202e &amp; \x1b[31m"
    documents = [{"text": f"{bad} {n} <img src=x onerror=y>", "id": bad} for n in range(3)] + [{"text": bad}] * 2
    path = tmp_path / "<i>.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in documents))
    command([str(path)], tmp_path / "out", "--set=lines.patterns=<img", steps="exact_documents,lines,gopher_quality")
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"<script|<img|<i>|[\u202e\x1b]", page)
    assert "&lt;script&gt;" in page
    assert "\\u202e" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)  # nothing is loaded from elsewhere


def test_lengths_are_those_of_powers_of_two():
    rows = list(report.length_rows({"lengths": {"read": {"3": 2, "5": 4}, "kept": {"5": 1}}}))
    assert [(row["read"], row["kept"], row["of_read"]) for row in rows] == [(2, 0, 50), (0, 0, 0), (4, 1, 100)]


def broken(tmp_path, data):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(data)
    return str(path)


GOOD = b'{"text": "good"}\n' * 20
BAD = [
    (GOOD + b'{"text": 1}\n', r"broken\.jsonl line 21", "document that cannot be read"),
    (GOOD + b"{\n", r"broken\.jsonl line 21", "document that cannot be read"),
    (GOOD + b'{"text": "\xff"}\n', r"broken\.jsonl", "document that is not UTF-8"),
    (GOOD + b'{"text": "' + b"y" * 5_000 + b'"}\n', r"broken\.jsonl", "document too long"),
]


@pytest.mark.parametrize(("data", "place", "reason"), BAD, ids=["number", "json", "utf8", "long"])
def test_bad_documents_end_it_or_are_counted(tmp_path, data, place, reason):
    path = broken(tmp_path, data)
    with pytest.raises(UserError, match=place) as error:
        command([path], tmp_path / "out", "--longest_document=4000", steps="pii")
    assert "data.components" not in str(error.value)
    command([path], tmp_path / "skipped", "--longest_document=4000", "--unusable=skip", steps="pii")
    ledger = json.loads((tmp_path / "skipped" / "ledger.json").read_text())
    assert (ledger["unusable"], ledger["kept"]["documents"]) == ({reason: 1}, 20)


def test_too_many_bad_documents_end_it(tmp_path):
    with pytest.raises(UserError, match=r"2 of 12"):
        command([broken(tmp_path, b'{"text": "good"}\n' * 10 + b"{\n" * 2)], tmp_path / "out", "--unusable=skip", steps="pii")


def test_a_folder_of_other_things_is_left_alone(files, tmp_path):
    command(files, tmp_path / "out", steps="pii")
    with pytest.raises(UserError, match="out"):
        command(files, tmp_path / "out", steps="c4")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="mine"):
        command(files, tmp_path / "mine", steps="pii")
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]


def test_what_has_changed_since_is_named(files, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_finish", lambda *_: 1 / 0)
    (tmp_path / "list.txt").write_text("a.example")
    listed = f"--set=url.lists={tmp_path / 'list.txt'}"
    with pytest.raises(ZeroDivisionError):
        command(files, tmp_path / "listed", listed, steps="url")
    (tmp_path / "list.txt").write_text("other.example")
    with pytest.raises(UserError, match="files that steps read"):
        command(files, tmp_path / "listed", listed, steps="url")
    with pytest.raises(ZeroDivisionError):
        command(files, tmp_path / "out", steps="pii")
    with pytest.raises(UserError, match="steps"):
        command(files, tmp_path / "out", steps="c4")
    os.utime(files[0], ns=(1, 1))
    with pytest.raises(UserError, match="files"):
        command(files, tmp_path / "out", steps="pii")


WRONG = [
    (["--processes=0"], "--processes"),
    (["--steps=contamination"], "contamination.paths"),
    (["--set=minhash.buckets=0"], "buckets"),
    (["--field=body"], "--field"),
    (["--keep=link"], "leave it out of --keep"),
    (["--out=/proc/none"], "--out$"),
]


@pytest.mark.parametrize(("flags", "named"), WRONG, ids=[named for _, named in WRONG])
def test_what_is_wrong_with_the_command_is_said(files, tmp_path, flags, named):
    with pytest.raises(UserError, match=named):
        command(files, tmp_path / "out", *flags, steps="minhash")


def test_a_dry_run_writes_nothing(files, tmp_path, capsys):
    assert command(files, tmp_path / "out", "--dry_run", "--set=minhash.buckets=9", steps="minhash") == 0
    said = capsys.readouterr().out
    for part in ("buckets=9", "3 files", "pass 2"):
        assert part in said
    assert not (tmp_path / "out").exists()


def test_the_ledger_can_be_printed(files, tmp_path, capsys):
    command(files, tmp_path / "out", "--json", steps="pii")
    assert json.loads(capsys.readouterr().out)["kept"]["documents"] == 80


KINDS = [(".txt", None), (".array_record", None), (".tsv", None), *((suffix, "text") for suffix in (".jsonl", ".tsv", ".csv", ".parquet"))]


@pytest.mark.parametrize(("suffix", "field"), KINDS)
def test_the_parts_of_a_file_hold_each_document_once(tmp_path, suffix, field):
    path, texts = str(tmp_path / f"a{suffix}"), [f"document {i} of some words" for i in range(300)]
    if suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=20)
    elif suffix == ".array_record":
        writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
        for each in texts:
            writer.write(each.encode())
        writer.close()
    else:
        lines = [json.dumps({"text": each}) for each in texts] if suffix == ".jsonl" else texts
        head = ["text"] if suffix in (".tsv", ".csv") and field else []
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join([*head, *lines]) + "\n")
    reading = sources.Reading(field, (), True, 1000, skip=False)
    units = sources.units([path], reading.template(), 500)
    found = [document.text for unit in units for document in sources.documents(unit, reading, Faults())]
    assert found == texts
    assert (len(units) > 1) == (suffix != ".csv" and (suffix, field) != (".tsv", "text"))


def test_files_that_change_while_they_are_read_end_it(files, tmp_path, monkeypatch):
    def changed(*arguments):
        with open(files[0], "ab") as file:
            file.write(b" ")
        return through(*arguments)

    through = run._through
    monkeypatch.setattr(run, "_through", changed)
    with pytest.raises(UserError, match=f"{re.escape(str(files[0]))} has changed"):
        command(files, tmp_path / "out", steps="pii")


def test_a_control_character_between_fields_moves_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"url": "http://a" + "\x1fb" * (i == 3), "text": f"text {i}"}) for i in range(30)))
    (unit,) = sources.units([str(path)], "{url}\x1f{text}")
    reading, faults = sources.Reading(None, ("url",), False, 1000, skip=True), Faults(skip=True)
    found = list(sources.documents(unit, reading, faults))
    assert [document.text for document in found] == [f"text {i}" for i in range(30) if i != 3]
    assert all(document.metadata == {"url": "http://a"} for document in found)
    assert faults.counts.total() == 1


def test_keys_may_all_have_one_remainder():
    keys = [np.full(100, 6, np.uint64)]
    assert sum(links.shape[1] for links in clusters._links(keys, 4)) == 99


def test_inputs_that_cannot_serve_are_refused_at_once(files, tmp_path):
    text_file = tmp_path / "a.txt"
    text_file.write_text("words")
    for given, out, named in (([str(text_file)], "out", r"a\.txt.*--keep=url"), (files, "", "--out")):
        with pytest.raises(UserError, match=named):
            command(given, tmp_path / out, "--keep=url", steps="pii")
    assert not (tmp_path / "out").exists()
