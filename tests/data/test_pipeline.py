import copy
import dataclasses
import functools
import json
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_corpus import Corpus, corpus, quiet

from lm.data import packing, pipeline
from lm.data.config import Component, DataConfig, SentencePieceTokenizer
from lm.data.info import index_path, info, is_known
from lm.data.mixture import Mixture
from lm.data.objectives.next_token import inputs_of
from lm.data.stream import TrainStream
from lm.errors import UserError
from lm.types import Batch

FIELDS = ["tokens", "targets", "weights", "segments", "positions"]  # of next-token prediction
CONFIG = DataConfig(sequence_length=16, allow_epochs=True)
MIXED = dataclasses.replace(CONFIG, components=(Component(weight=2.0), Component(corpus="text_files")))


DIRECTORY = tempfile.TemporaryDirectory()  # of all tests here: text is made into tokens once


@functools.cache
def prepared(config=CONFIG, directory=DIRECTORY.name):
    corpora = [corpus(60, seed, fingerprint=f"c{seed}") for seed in range(len(config.components))]
    return pipeline.build(config, corpora, directory, quiet)


def stream(config=CONFIG, batch_size=4, seed=0, **process):
    return TrainStream(prepared(config), config, batch_size, seed, **process)


def assert_same(one, two):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


def variants():
    best_fit = {"packing": "best_fit"}
    return [CONFIG, dataclasses.replace(CONFIG, **best_fit), MIXED, dataclasses.replace(MIXED, **best_fit)]


NAMES = ["one", "one best fit", "mixture", "mixture best fit"]


@pytest.mark.parametrize("config", variants(), ids=NAMES)
def test_a_batch_is_the_same_for_any_number_of_processes(config):
    whole = stream(config, batch_size=8)
    for k in (0, 3, whole.rows_per_epoch // 8, 10**6):  # the third spans two epochs
        for count in (1, 2, 4):
            parts = [stream(config, batch_size=8, rows=np.arange(8).reshape(count, -1)[i])[k] for i in range(count)]
            assert all(part.tokens.shape == (8 // count, 16) for part in parts)
            assert_same(whole[k], Batch(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS}))


@pytest.mark.parametrize(("config", "threads"), list(zip(variants(), [0, 1, 3, 1], strict=True)), ids=NAMES)
def test_iterating_gives_what_indexing_gives(config, threads):
    batches = stream(config)
    start, stop = 5, batches.rows_per_epoch // 2  # into the second epoch
    taken = list(stream(config).iterate(start, stop, threads=threads))
    assert len(taken) == stop - start > 256  # more than one of the blocks that are read ahead
    for k in [*range(start, stop, 7), *range(start + 250, start + 260), stop - 1]:
        assert_same(taken[k - start], batches[k])
    assert list(batches.iterate(7, 7)) == []


def test_batches_are_int32_and_float32_in_c_order():
    batch = stream()[3]
    for name in FIELDS:
        array = getattr(batch, name)
        assert (array.dtype, array.shape) == (np.float32 if name == "weights" else np.int32, (4, 16))
        assert array.flags.c_contiguous
    assert all(getattr(batch, field.name) is None for field in dataclasses.fields(Batch) if field.name not in FIELDS)


@pytest.mark.parametrize("packed", ["concatenate", "best_fit"])
def test_an_epoch_predicts_every_token_once_from_the_token_before(packed):
    config = dataclasses.replace(CONFIG, packing=packed)
    data = prepared(config)
    batches = TrainStream(data, config, 1, seed=3)
    eos, seen = data.tokenizer.eos_id, []
    for batch in batches.iterate(0, batches.rows_per_epoch, threads=0):
        for segment in range(1, batch.segments.max() + 1):
            at = batch.segments[0] == segment
            np.testing.assert_array_equal(batch.positions[0][at], np.arange(at.sum()))
            tokens, targets = batch.tokens[0][at], batch.targets[0][at]
            np.testing.assert_array_equal(tokens[1:], targets[:-1])
            assert eos not in targets[:-1]  # a document ends its segment: no target across documents
            seen.append((tokens[0], targets))
        assert ((batch.segments > 0) == (batch.weights == 1)).all()
        assert (batch.tokens[batch.segments == 0] == data.tokenizer.pad_id).all()
    pieces = [bytes(targets.astype(np.uint16)) for _, targets in seen]
    held = b"".join(pieces)
    missing = sum(data.train.lengths) * 2 - len(held)
    assert missing == 0 if packed == "best_fit" else 0 <= missing < 2 * 16
    assert sum(first == eos for first, _ in seen) <= len(data.train)
    if packed == "best_fit":
        assert sum(first == eos for first, _ in seen) == len(data.train)
        documents = [bytes(data.train[i].astype(np.uint16)) for i in range(len(data.train))]
        assert sorted(held[i : i + 2] for i in range(0, len(held), 2)) == sorted(
            document[i : i + 2] for document in documents for i in range(0, len(document), 2)
        )
    assert batches.document_tokens(0, batches.rows_per_epoch) == len(held) // 2
    assert batches.document_tokens(0, 0) == 0


def test_a_whole_document_is_read_as_in_training():
    data = prepared(dataclasses.replace(CONFIG, sequence_length=1024, packing="best_fit"))
    config = dataclasses.replace(CONFIG, sequence_length=1024, packing="best_fit")
    batches = TrainStream(data, config, 1, seed=0)
    documents = {data.train[i].tobytes(): data.train[i] for i in range(len(data.train))}
    batch = batches[0]
    for segment in range(1, batch.segments.max() + 1):
        at = batch.segments[0] == segment
        document = documents[batch.targets[0][at].tobytes()]
        np.testing.assert_array_equal(batch.tokens[0][at], inputs_of(document, data.tokenizer.eos_id))


@pytest.mark.parametrize("packed", ["concatenate", "best_fit"])
def test_a_start_token_stands_where_documents_begin_and_nowhere_else(packed):
    """Imported models may begin with another token than the end of document; targets never hold it."""
    config = dataclasses.replace(CONFIG, packing=packed)
    usual = prepared(config)
    other = copy.copy(usual.tokenizer)
    other.start_id = 2
    before, after = (TrainStream(data, config, 32, seed=3)[0] for data in (usual, dataclasses.replace(usual, tokenizer=other)))
    np.testing.assert_array_equal(after.targets, before.targets)
    begins = (before.tokens == usual.tokenizer.eos_id) & (before.segments > 0)
    assert begins.any()
    np.testing.assert_array_equal(after.tokens, np.where(begins, 2, before.tokens))


def test_epochs_hold_the_same_tokens_in_another_order():
    config = dataclasses.replace(CONFIG, sequence_length=4, packing="best_fit")
    batches = stream(config, batch_size=1)
    rows = batches.rows_per_epoch

    def epoch(e):
        return [batch.targets[batch.weights > 0].tobytes() for batch in batches.iterate(e * rows, (e + 1) * rows, threads=0)]

    first, second = epoch(0), epoch(1)
    assert first != second
    tokens = [sorted(np.concatenate([np.frombuffer(row, np.int32) for row in each]).tolist()) for each in (first, second)]
    assert tokens[0] == tokens[1]


def test_seeds_differ_and_seed_and_epoch_do_not_add():
    rows = stream().rows_per_epoch
    epochs = {
        (seed, epoch): b"".join(stream(batch_size=1, seed=seed)[epoch * rows + i].targets.tobytes() for i in range(5))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(epochs.values())) == 9


def test_batch_one_million_costs_what_batch_0_costs(tmp_path, monkeypatch):
    """Counted in work: plans made and rows gathered; and in time, once both epochs' plans are there."""
    batches = TrainStream(prepared(CONFIG, str(tmp_path)), CONFIG, 8, seed=0)  # no plan of it is on disk
    work = {"plans": 0, "rows": 0}
    plan_of, gather = Mixture.plan, packing.Plan.gather

    def counted_plan(self, *args):
        work["plans"] += 1
        return plan_of(self, *args)

    def counted_gather(self, rows):
        work["rows"] += len(rows)
        return gather(self, rows)

    monkeypatch.setattr(Mixture, "plan", counted_plan)
    monkeypatch.setattr(packing.Plan, "gather", counted_gather)
    costs = []
    for k in (0, 10**6):
        work.update(plans=0, rows=0)
        batches[k]
        costs.append(dict(work))
    rows = batches.rows_per_epoch
    epochs = len({g // rows for g in range(8 * 10**6, 8 * 10**6 + 8)})
    assert costs == [{"plans": 1, "rows": 8}, {"plans": epochs, "rows": 8}]

    def seconds(k):
        fresh = []
        for _ in range(30):
            begin = time.perf_counter()
            batches[k]
            fresh.append(time.perf_counter() - begin)
        return min(fresh)

    near, far = seconds(0), seconds(10**6 if epochs == 1 else 10**6 + 1)
    assert far < 4 * near + 1e-4  # a batch that spans two epochs gathers twice


def test_a_mixture_draws_its_exact_counts(tmp_path):
    corpora = [Corpus([name * length for length in range(5, 60)], [name], fingerprint=name) for name in "ab"]
    data = pipeline.build(MIXED, corpora, str(tmp_path), quiet)
    batches = TrainStream(data, MIXED, 1, seed=0)
    rows = batches.rows_per_epoch
    for epoch in range(2):
        drawn = [data.tokenizer.decode(batch.targets[0])[0] for batch in batches.iterate(epoch * rows, (epoch + 1) * rows, threads=0)]
        assert [drawn.count(name) for name in "ab"] == data.mixture.counts.tolist()
        assert abs(drawn.count("a") - 2 * drawn.count("b")) <= 2


def test_steps_beyond_the_corpus_are_refused_before_the_first():
    config = dataclasses.replace(CONFIG, allow_epochs=False)
    batches = stream(config)
    steps = batches.rows_per_epoch // 4
    batches.require(steps)
    assert len(list(batches.iterate(0, steps))) == steps
    for attempt in (lambda: batches.require(steps + 1), lambda: batches.iterate(0, steps + 1), lambda: batches[steps]):
        with pytest.raises(UserError, match="allow_epochs"):
            attempt()
    with pytest.raises(IndexError):
        batches[-1]
    with pytest.raises(UserError, match="batch_size=0"):
        stream(batch_size=0)


def test_the_second_preparation_is_the_first(tmp_path):
    lines: list[str] = []
    config = dataclasses.replace(CONFIG, tokenizer=SentencePieceTokenizer(vocab_size=310))
    text = Corpus(corpus(80).split("train"), corpus().split("validation"))
    first = pipeline.build(config, [text], str(tmp_path), lines.append)
    said, files = len(lines), sorted(tmp_path.rglob("*"))
    second = pipeline.build(config, [text], str(tmp_path), lines.append)
    assert (len(lines), sorted(tmp_path.rglob("*"))) == (said, files)
    assert (first.fingerprint, first.info) == (second.fingerprint, second.info)
    other = pipeline.build(CONFIG, [text], str(tmp_path), quiet)
    assert other.fingerprint != first.fingerprint
    changed = pipeline.build(CONFIG, [Corpus(["x" * 99], fingerprint="changed")], str(tmp_path), quiet)
    assert changed.fingerprint != other.fingerprint


def test_info_for_plans_is_the_data_set_s_own(tmp_path):
    assert info(MIXED, str(tmp_path)) is None
    for config in variants():
        data = prepared(config, str(tmp_path))
        assert info(config, str(tmp_path)) == data.info
        assert data.info["rows_per_epoch"] == TrainStream(data, config, 4, 0).rows_per_epoch
    text = [corpus(60, seed) for seed in range(2)]
    assert data.info["bytes"]["train"] == sum(len(d.encode()) for each in text for d in each.split("train"))
    assert data.info["tokens"]["train"] == data.info["bytes"]["train"] + 120
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert info(MIXED, str(moved)) is not None


def test_counts_of_earlier_versions_are_made_again(tmp_path):
    """Training would prepare other text or count other special ids than a plan that took them."""
    made = prepared(MIXED, str(tmp_path)).info
    path = Path(index_path(MIXED, str(tmp_path)))
    index = json.loads(path.read_text())
    old = json.loads(path.read_text())
    old["components"][1]["info"]["version"] = "1.0.0"
    for changed in (old, {key: value for key, value in index.items() if key != "recipe"}):
        path.write_text(json.dumps(changed))
        assert info(MIXED, str(tmp_path)) is None
        assert is_known(MIXED, str(tmp_path))
        prepared.__wrapped__(MIXED, str(tmp_path))
        assert info(MIXED, str(tmp_path)) == made


def test_bytes_per_token_follow_the_shares(tmp_path):
    """Documents of one byte have two tokens, those of three bytes four; the shares of the tokens are 2 to 1."""
    corpora = [Corpus([text] * 40, ["validation"], fingerprint=text) for text in ("a", "bcd")]
    data = pipeline.build(dataclasses.replace(MIXED, sequence_length=4), corpora, str(tmp_path), quiet)
    assert data.bytes_per_token == pytest.approx(2 / 3 * 1 / 2 + 1 / 3 * 3 / 4)
    assert prepared().bytes_per_token == prepared().info["bytes"]["train"] / prepared().info["tokens"]["train"]


def test_validation_documents_are_whole_shuffled_and_mixed_by_share(tmp_path):
    corpora = [Corpus(["train"] * 9, [f"{name}{i} " * 5 for i in range(60)], fingerprint=name) for name in "ab"]
    data = pipeline.build(MIXED, corpora, str(tmp_path), quiet)
    texts = [data.tokenizer.decode(data.validation[i]) for i in range(len(data.validation))]
    assert sorted(texts) == sorted(text for each in corpora for text in each.split("validation"))
    assert [len(text) for text in texts] == data.validation.byte_counts.tolist()
    assert [len(data.validation[i]) for i in range(len(texts))] == data.validation.lengths.tolist()
    assert all(data.validation[i][-1] == data.tokenizer.eos_id for i in range(len(texts)))
    first = [text[0] for text in texts[:30]]
    assert 18 <= first.count("a") <= 22
    alone = [text for text in texts if text.startswith("a")]
    assert alone != sorted(alone, key=corpora[0].split("validation").index)


def test_prefetching_keeps_no_thread_after_it_is_left():
    import threading

    before = threading.active_count()
    iterator = stream().iterate(0, 5000)
    next(iterator)
    iterator.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_batch_is_held_fixed(tmp_path):
    """The data of a step never changes between versions of this project or of its libraries."""
    data = pipeline.build(CONFIG, [Corpus([str(i) * 30 for i in range(20)])], str(tmp_path), quiet)
    targets = TrainStream(data, CONFIG, 2, seed=5)[3].targets
    assert [data.tokenizer.decode(row) for row in targets] == ["444444444444499", "010101010101616"]


def test_ids_beyond_the_vocabulary_are_refused_where_rows_are_built():
    """The token cache is whole when it is opened; here it changes afterwards, as a file under a running process can.

    Where the component leaves out what is unusable, the weights of their rows are NaN, and the step is a bad one.
    """
    data = prepared()
    (source,) = data.mixture.sources
    flat: Any = source.cache.flat[0 : len(source.cache.flat)]
    damaged = dataclasses.replace(source, cache=dataclasses.replace(source.cache, flat=flat))
    changed = dataclasses.replace(data, mixture=Mixture([damaged], CONFIG))
    batches = TrainStream(changed, CONFIG, 4, 0)
    skip = dataclasses.replace(CONFIG, components=(dataclasses.replace(CONFIG.components[0], unusable="skip"),))
    skipping, rows = TrainStream(changed, skip, 4, 0), 0
    at = len(flat) // 2
    flat[at] = 60_000
    found = 0
    for k in range(batches.rows_per_epoch // 4):
        batch, sound = skipping[k], stream()[k]
        wrong = ((batch.tokens == 60_000) | (batch.targets == 60_000)).any(axis=1)
        np.testing.assert_array_equal(batch.weights, np.where(wrong[:, None], np.nan, sound.weights))
        rows += wrong.sum()
        try:
            assert_same(batches[k], sound)
        except UserError as error:
            step, wrong = map(int, re.search(r"batch (\d+) has \w+ with the id (\d+)", str(error)).groups())
            assert (step, wrong) == (k, 60_000)
            found += 1
    assert 1 <= found <= rows <= 2  # as a target, and as the input of the next one, which may be in another row
