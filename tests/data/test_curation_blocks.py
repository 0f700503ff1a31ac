"""The steps as blocks of datatrove give what the command gives: the same texts, and the same ledger."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from lm.data.corpora import readers
from lm.data.curation import c4, fineweb, gopher, plan, recipes, run
from lm.data.curation.document import Document
from lm.data.curation.ledger import Account
from lm.data.curation.words import words
from lm.errors import UserError

pytest.importorskip("datatrove")

STEPS, SETTINGS = "url,gopher_quality,c4_quality,pii", ("gopher_quality.least_words=16", "c4_quality.least_sentences=2")
# The executor forks, which a process that has loaded jax must not.
PIPELINE = f"""
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from lm.data.curation import blocks, recipes
root = sys.argv[1]
steps = blocks.blocks(recipes.read({STEPS!r}, {SETTINGS!r}), root + "/ledgers")
pipeline = [JsonlReader(root + "/in"), *steps, JsonlWriter(root + "/theirs", compression=None)]
LocalPipelineExecutor(pipeline, tasks=2, workers=1, logging_dir=root + "/log").run()
"""


def test_one_pipeline_both_ways(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        texts = [f"That is what {n} of them have with it.\n{'More of it. ' * (n % 4)}\nMail a{n}@b.example or not." for n in range(30)]
        rows = [{"text": text, "url": f"https://x.example/{number}"} for text in texts]
        (tmp_path / "in" / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run([sys.executable, "-c", PIPELINE, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    files = tuple(sorted(map(str, (tmp_path / "in").iterdir())))
    ledger = run.curate(plan.Plan(files, str(tmp_path / "ours"), STEPS, SETTINGS, keep=("url",)), log=list, processes=1)

    def digests(folder):
        return sorted(hashlib.sha256(text.encode()).digest() for path in folder.iterdir() for text in readers.read(str(path)))

    assert digests(tmp_path / "theirs") == digests(tmp_path / "ours" / "text")
    assert 0 < ledger["kept"]["documents"] < 60
    from lm.data.curation import blocks

    for mine, theirs in zip(ledger["steps"], blocks.accounts(str(tmp_path / "ledgers"), recipes.read(STEPS)), strict=True):
        assert {**mine, "samples": {}} == {**theirs.to_json(), "samples": {}}


def texts_of_numpy():
    found = {getattr(thing, "__doc__", None) for module in (np, np.linalg) for thing in vars(module).values()}
    whole = sorted(each for each in found if isinstance(each, str) and each.strip())[::2]
    return whole + [each[:700] + each[:200] for each in whole] + [each.replace("{", "(").replace("    ", "") for each in whole]


def test_verdicts_are_those_of_datatrove_given_its_words(monkeypatch):
    """The words and sentences are ours, since its tokenizers are libraries of their own; the rules are compared on docstrings of numpy."""
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import c4_filters, fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter

    for module in (c4_filters, fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
        monkeypatch.setattr(module, "split_into_words", lambda text, language: words(text), raising=False)
        monkeypatch.setattr(module, "split_into_sentences", lambda text, language: list(c4.sentences(text)), raising=False)
    for ours, theirs in (
        (gopher.GopherQuality(), gopher_quality_filter.GopherQualityFilter()),
        (gopher.GopherRepetition(), gopher_repetition_filter.GopherRepetitionFilter()),
        (c4.C4(), c4_filters.C4QualityFilter()),
        (c4.C4(terminal=False), c4_filters.C4QualityFilter(filter_no_terminal_punct=False)),
        (fineweb.FineWeb(), fineweb_quality_filter.FineWebQualityFilter(stop_chars=(".", "?", "!", '"', "'"))),
    ):
        kept = 0
        for text in (texts := texts_of_numpy()):
            mine, document = ours.apply(Document(text), Account("")), Theirs(text=text, id="")
            passes = theirs.filter(document) is True
            assert (mine.text if isinstance(mine, Document) else None) == (document.text if passes else None), text
            kept += passes
        assert 0.05 < kept / len(texts) < 0.95


def test_steps_that_compare_documents_are_refused(tmp_path):
    from lm.data.curation import blocks

    with pytest.raises(UserError, match="minhash"):
        blocks.blocks(recipes.read("pii,minhash"), str(tmp_path))
