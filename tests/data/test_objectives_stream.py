"""The stream under every objective: a pure function of (data, seed, step), whatever the hosts; noise anew in each epoch."""

import dataclasses
import time

import numpy as np
import pytest
from fake_corpus import Corpus, quiet
from objective_cases import EOS, VOCABULARY, config, label, packed_rows, prepared, stream, variants

from lm.data import pipeline
from lm.data.held_out import held_out, held_out_rows
from lm.data.info import info
from lm.data.objectives import config as C
from lm.data.objectives.draws import Draws, row_keys
from lm.data.objectives.shape import row_shape
from lm.data.stream import TrainStream
from lm.errors import UserError
from lm.types import Batch

CASES = [case for case in variants() if case[0] != C.NextToken()]


def arrays(batch):
    return {name: values for name, values in vars(batch).items() if values is not None}


def assert_same(one, two):
    assert arrays(one).keys() == arrays(two).keys()
    for name, values in arrays(one).items():
        np.testing.assert_array_equal(values, arrays(two)[name], err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_batches_do_not_depend_on_hosts_or_on_how_they_are_read(case):
    whole = stream(case)
    last = whole.rows_per_epoch // 4
    for k in (last, 10**6):  # the first spans two epochs, unless they end with a batch
        parts = [arrays(stream(case, rows=np.arange(4).reshape(2, 2)[i])[k]) for i in range(2)]
        assert_same(whole[k], Batch(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}))
    for k, batch in enumerate(whole.iterate(last - 2, last + 1, threads=0), last - 2):
        assert_same(batch, stream(case)[k])


NOISY = [(C.MaskedLM(), "encoder"), (C.SpanCorruption(), "encoder_decoder"), (C.BartNoise(), "decoder")]


@pytest.mark.parametrize("case", NOISY, ids=label)
def test_noise_is_drawn_anew_in_each_epoch_and_is_the_same_for_one_seed_epoch_and_row(tmp_path, case):
    data_config = dataclasses.replace(config(case[0]), packing="best_fit")
    data = pipeline.build(data_config, [Corpus(["x" * 63] * 6)], str(tmp_path), quiet)  # six equal rows: only the noise differs

    def epoch(e, seed=0):
        batches = TrainStream(data, data_config, 1, seed, architecture=case[1])
        return [tuple((name, v.tobytes()) for name, v in arrays(batches[e * 6 + i]).items()) for i in range(6)]

    assert len(set(epoch(0) + epoch(1) + epoch(2) + epoch(0, seed=1))) == 24
    assert epoch(1) == epoch(1)


def test_chunks_are_the_rows_cut_and_each_has_a_key_of_its_own():
    packed = packed_rows(prepared(config(C.SpanCorruption())), np.arange(12)[::-1])
    text, row, numbers = packed.chunks(16, isolated=False, shortest=2)
    assert len(set(numbers.keys.tolist())) == 4 * 12
    np.testing.assert_array_equal(row, np.repeat(np.arange(12), 4))
    np.testing.assert_array_equal(text.values.reshape(12, 64), packed.flat.take(packed.plan.gather(packed.rows_B)[0]))
    pieces, _, _ = packed.chunks(16, isolated=True, shortest=1)
    assert (pieces.keep(pieces.values == EOS).lengths <= 1).all()  # an end of document ends its piece
    ends = pieces.starts + pieces.lengths - 1
    assert (pieces.values == EOS).sum() == (pieces.values[ends] == EOS).sum()
    np.testing.assert_array_equal(pieces.values, text.values)


@pytest.mark.parametrize(
    "case", [(C.SpanCorruption(), "encoder_decoder"), (C.MaskedLM(), "encoder"), (C.BartNoise(), "prefix_lm")], ids=label
)
def test_a_pair_of_128_tokens_takes_well_under_2_milliseconds(tmp_path, case):
    data_config = config(case[0], length=128)
    batches = TrainStream(prepared(data_config, 600), data_config, 64, 0, architecture=case[1])
    batches[0]
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        batches[0]
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 64 * 0.5e-3  # some 40 us a row where measured


def test_draws_depend_on_key_stream_and_index_and_are_uniform():
    keys = row_keys("data", 0, np.repeat([0, 1], 500), np.tile(np.arange(500), 2))
    assert len(set(keys.tolist())) == 1000
    assert not set(keys.tolist()) & set(row_keys("data", 1, np.zeros(500), np.arange(500)).tolist())
    numbers = Draws(keys)
    tables = [numbers.table("one", 100), numbers.table("two", 100)]
    np.testing.assert_array_equal(numbers.each("one"), tables[0][:, 0])
    np.testing.assert_array_equal(numbers.at("one", np.asarray([7, 9]), np.asarray([3, 99])), tables[0][[7, 9], [3, 99]])
    np.testing.assert_array_equal(Draws(keys[5:6]).table("one", 100), tables[0][5:6])
    for table in tables:
        counts = np.histogram(table, 20, (0, 1))[0]
        assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # 19 degrees of freedom, p = 0.001
    for a, b in ((tables[0], tables[1]), (tables[0][:, 1:], tables[0][:, :-1]), (tables[0][1:], tables[0][:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_the_noise_of_a_step_is_held_fixed(tmp_path):
    """The data of a step never changes between versions of this project or of its libraries."""
    data_config = config(C.SpanCorruption(), length=32)
    data = pipeline.build(data_config, [Corpus([str(i) * 30 for i in range(20)])], str(tmp_path), quiet)
    batch = TrainStream(data, data_config, 1, seed=5, architecture="encoder_decoder", vocab_size=VOCABULARY)[3]
    names = {383: "<X>", 382: "<Y>", EOS: "."}
    inputs, targets = (" ".join(names.get(i) or chr(i - 3) for i in tokens[0].tolist()) for tokens in (batch.encoder_tokens, batch.targets))
    assert inputs == "6 1 6 1 6 1 6 1 6 1 6 1 6 1 <X> 6 1 6 1 6 1 6 1 6 1 6 1 6 <Y> ."
    assert targets == "<X> 6 1 <Y> 1 6 1 ."


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_document_token_is_counted_once_whatever_the_objective(case):
    if not isinstance(case[0], C.Pairs):
        assert stream(case).document_tokens(0, 3) == 3 * 4 * 64
    assert row_shape(config(case[0]), case[1]).text == 64


def test_given_pairs_come_back_as_text(tmp_path):
    case = (C.Pairs(), "encoder_decoder")
    data_config = config(case[0])
    lines = [f"question {i}?\tanswer\t{i}" for i in range(60)]
    data = pipeline.build(data_config, [Corpus(lines, ["held\tout"])], str(tmp_path), quiet)
    batches = TrainStream(data, data_config, 1, 0, architecture=case[1])
    seen = []
    for k in range(batches.rows_per_epoch):
        batch = batches[k]
        for segment in range(1, batch.segments.max() + 1):
            source = batch.encoder_tokens[batch.encoder_segments == segment]
            target = batch.targets[batch.segments == segment]
            assert source[-1] == target[-1] == EOS
            seen.append(data.tokenizer.decode(source) + "\t" + data.tokenizer.decode(target))
    assert sorted(seen) == sorted(lines)
    plain = dataclasses.replace(data_config, objective=C.NextToken())
    assert info(data_config, str(tmp_path))["fingerprint"] == data.fingerprint
    assert info(plain, str(tmp_path)) is None  # the same text is other tokens as pairs
    np.testing.assert_array_equal(data.tokenizer.encode("prompt"), data.tokenizer.base.encode("prompt"))
    with pytest.raises(UserError, match=r"separator '\\t'.*'alone'"):
        pipeline.build(data_config, [Corpus(["alone"], ["held\tout"], fingerprint="other")], str(tmp_path), quiet)


@pytest.mark.parametrize("architecture", ["decoder", "prefix_lm", "encoder_decoder"])
def test_held_out_rows_are_fixed_and_of_the_validation_split(architecture):
    data_config = config(C.Denoising(loss_on_inputs=architecture == "decoder"))
    data = prepared(data_config)
    batch = held_out(data, data_config, architecture, VOCABULARY, rows=6, seed=3)
    assert_same(batch, held_out(data, data_config, architecture, VOCABULARY, rows=6, seed=3))
    assert len(batch.tokens) == 6
    other = held_out(data, dataclasses.replace(data_config, objective=C.Denoising()), "encoder_decoder", VOCABULARY, 6, 3)
    np.testing.assert_array_equal(batch.targets[batch.weights > 0], other.targets[other.weights > 0])
    held = np.concatenate([data.validation[i] for i in range(len(data.validation))]).tobytes()
    inputs = other.encoder_tokens[0][: (other.encoder_segments[0] > 0).sum()]
    first = inputs[: np.argmax(inputs >= VOCABULARY - 100)]
    assert first.astype(np.int32).tobytes() in held
    available = held_out_rows(data, data_config)
    assert len(held_out(data, data_config, architecture, VOCABULARY, available).tokens) == available
    with pytest.raises(UserError, match=rf"{available} rows .* {available + 1}"):
        held_out(data, data_config, architecture, VOCABULARY, available + 1)


def test_the_vocabulary_has_room_for_the_objectives_own_ids():
    data_config = config(C.Denoising())
    data = prepared(data_config)
    with pytest.raises(UserError, match=r"259 .* denoising .* 100 .*model\.vocab_size=359"):
        TrainStream(data, data_config, 4, 0, vocab_size=358)
    for vocab_size in (None, 359):
        assert TrainStream(data, data_config, 4, 0, vocab_size=vocab_size)[0].tokens.max() == 358
    plain = dataclasses.replace(data_config, objective=C.NextToken())
    TrainStream(data, plain, 4, 0, vocab_size=259)
    with pytest.raises(UserError, match=r"model\.vocab_size=259"):
        TrainStream(data, plain, 4, 0, vocab_size=258)
