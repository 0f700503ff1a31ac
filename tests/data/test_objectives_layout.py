"""Laws of the rows, for every objective under every architecture."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_cases import EOS, VOCABULARY, chunks, config, draws, ids, label, packed_rows, pairs_of, prepared, stream, variants

from lm.data.objectives import config as C
from lm.data.objectives import layout
from lm.data.objectives.draws import Draws
from lm.data.objectives.examples import Examples, PackedRows, Room
from lm.data.objectives.ragged import Ragged
from lm.data.objectives.shape import row_shape
from lm.data.packing import Plan
from lm.errors import UserError
from lm.rows import RowShape
from lm.types import Batch

CASES = list(variants())
PAIRED = [case for case in CASES if case[1] != "encoder" and not isinstance(case[0], (C.NextToken, C.FillInTheMiddle))]
ALWAYS = {"tokens", "targets", "weights", "segments", "positions"}
PAD = 0


@pytest.mark.parametrize(("case", "packing"), list(zip(CASES, itertools.cycle(["concatenate", "best_fit"]))), ids=str)
def test_every_row_has_the_promised_shape(case, packing):
    shape = row_shape(config(case[0], packing=packing), case[1])
    predicted = shape.length if shape.predicted is None else shape.predicted
    sizes = {"targets": predicted, "weights": predicted, "predict": predicted}
    sizes |= dict.fromkeys(("sequence_positions", "labels", "label_weights"), shape.sequences)
    sizes |= dict.fromkeys(("encoder_tokens", "encoder_segments", "encoder_positions"), shape.encoder_length)
    batch = stream(case, packing=packing)[1]
    for field in dataclasses.fields(Batch):
        values = getattr(batch, field.name)
        assert (values is not None) == (field.name in ALWAYS | set(shape.fields)), field.name
        if values is not None:
            assert values.shape == (4, sizes.get(field.name, shape.length)), field.name
            assert values.dtype == (np.float32 if "weights" in field.name else np.int32), field.name
            assert values.flags.c_contiguous
            assert values.min() >= 0
    for name in ("tokens", "targets", "encoder_tokens"):
        if getattr(batch, name) is not None:
            assert getattr(batch, name).max() < VOCABULARY
    assert shape.text == 64
    assert batch.weights.sum() > 0


def rows_and_their_pairs(objective, architecture):
    data = prepared(config(objective))
    packed, special = packed_rows(data, [0, 7, 3, 5]), dataclasses.replace(ids(objective), tokenizer=data.tokenizer)
    batch = objective.row_maker(64, architecture, special)(packed)
    return batch, objective.examples(packed, special).fitted(objective.room(64))


@pytest.mark.parametrize("case", PAIRED, ids=label)
def test_rows_are_the_pairs_shifted_right_inside_each_segment(case):
    batch, pairs = rows_and_their_pairs(*case)
    seen = np.zeros(4, int)
    for i, row in enumerate(pairs.rows):
        inputs, targets = pairs.inputs[i], pairs.targets[i]
        seen[row] += 1
        at = batch.segments[row] == seen[row]
        places = np.flatnonzero(at)
        np.testing.assert_array_equal(batch.positions[row][at], np.arange(at.sum()))
        if batch.encoder_tokens is not None:
            np.testing.assert_array_equal(batch.targets[row][at], targets)
            np.testing.assert_array_equal(batch.tokens[row][at], [EOS, *targets[:-1]])
            source = batch.encoder_segments[row] == seen[row]
            np.testing.assert_array_equal(batch.encoder_tokens[row][source], inputs)
            np.testing.assert_array_equal(batch.encoder_positions[row][source], np.arange(len(inputs)))
            continue
        whole = np.concatenate([inputs, targets])
        np.testing.assert_array_equal(batch.tokens[row][at], [EOS, *whole[:-1]])
        if batch.predict is None:
            np.testing.assert_array_equal(batch.targets[row][at], whole)
            continue
        own = (batch.weights[row] > 0) & np.isin(batch.predict[row], places)
        np.testing.assert_array_equal(batch.targets[row][own], targets)
        np.testing.assert_array_equal(batch.predict[row][own], places[len(inputs) :])
        if batch.prefix is not None:
            np.testing.assert_array_equal(batch.prefix[row][at], np.arange(len(whole)) <= len(inputs))
    expected = len(pairs.targets.values) + (len(pairs.inputs.values) if case[0].loss_on_inputs else 0)
    assert batch.weights.sum() == expected
    assert (batch.tokens[batch.segments == 0] == PAD).all()


@pytest.mark.parametrize("case", [case for case in PAIRED if case[1] == "prefix_lm"], ids=label)
def test_no_target_of_a_prefix_lm_lies_among_the_tokens_that_all_queries_see(case):
    """A target at place p is the token at p + 1 of its segment: that one is never visible, and no later target is either."""
    batch = stream(case)[2]
    for row in range(4):
        real = batch.weights[row] > 0
        after = batch.predict[row][real] + 1
        inside = after < batch.segments.shape[1]
        after, source = after[inside], batch.predict[row][real][inside]
        same = batch.segments[row, after] == batch.segments[row, source]
        np.testing.assert_array_equal(batch.tokens[row, after[same]], batch.targets[row][real][inside][same])
        assert (batch.prefix[row, after[same]] == 0).all()


def test_all_architectures_see_the_same_pairs():
    """Also where the tail is cut off: the room is the pair's, not the architecture's."""
    architectures = ("decoder", "prefix_lm", "encoder_decoder")
    for objective in (C.Denoising(0.4, examples_per_row=4), C.MixtureOfDenoisers(), C.PrefixLM(examples_per_row=2), C.Pairs()):
        batches = {architecture: stream((objective, architecture))[3] for architecture in architectures}
        targets = {name: batch.targets[batch.weights > 0] for name, batch in batches.items()}
        np.testing.assert_array_equal(targets["decoder"], targets["prefix_lm"])
        np.testing.assert_array_equal(targets["decoder"], targets["encoder_decoder"])
        prefix, both = batches["prefix_lm"], batches["encoder_decoder"]
        read = prefix.tokens[(prefix.prefix == 1) & (prefix.positions > 0)]
        np.testing.assert_array_equal(read, both.encoder_tokens[both.encoder_segments > 0])


@pytest.mark.parametrize("objective", [C.SpanCorruption(), C.Denoising(), C.BartNoise(rotation=0.5), C.MixtureOfDenoisers(), C.PrefixLM()])
def test_packed_chunks_are_the_same_examples_as_alone(objective):
    """Every chunk transformed by itself gives what it gives inside a batch of others, and the row holds them one after the other."""
    lengths = [40, 17, 2, 33, 64, 40, 9, 25]
    text, keys = chunks(lengths), draws(8)
    inputs, targets = pairs_of(objective, text, keys)
    for i in range(8):
        alone = pairs_of(objective, Ragged(text[i], text.lengths[i : i + 1]), Draws(keys.keys[i : i + 1]))
        np.testing.assert_array_equal(alone[0].values, inputs[i])
        np.testing.assert_array_equal(alone[1].values, targets[i])
    shape = RowShape(4 * targets.lengths.max(), 4 * inputs.lengths.max())
    packed = layout.encoder_decoder(Examples(inputs, targets, np.repeat([0, 1], 4), 2), shape, EOS, PAD)
    single = layout.encoder_decoder(Examples(inputs, targets, np.arange(8), 8), shape, EOS, PAD)
    for i in range(8):
        for prefix, fields in (("", ("tokens", "targets", "positions")), ("encoder_", ("encoder_tokens", "encoder_positions"))):
            here = getattr(packed, prefix + "segments")[i // 4] == i % 4 + 1
            there = getattr(single, prefix + "segments")[i] == 1
            for name in fields:
                np.testing.assert_array_equal(getattr(packed, name)[i // 4][here], getattr(single, name)[i][there])


def assert_cuts_less_than_one_in_1000(pairs, space):
    kept = pairs.fitted(space)
    assert len(pairs.targets.values) - len(kept.targets.values) < 1e-3 * len(pairs.targets.values)
    assert len(pairs.inputs.values) - len(kept.inputs.values) < 1e-3 * len(pairs.inputs.values)


RANDOM = [C.Denoising(), C.Denoising(0.5, sentinels=300), C.PrefixLM(), C.MixtureOfDenoisers(), C.BartNoise(), C.BartNoise(deletion=0.2)]


@pytest.mark.parametrize("per_row", [1, 4])
@pytest.mark.parametrize("objective", RANDOM, ids=lambda objective: objective.name)
def test_the_default_room_cuts_off_less_than_one_target_in_1000(objective, per_row):
    objective = dataclasses.replace(objective, examples_per_row=per_row)
    n = 4000
    text = chunks([128] * n)
    inputs, targets = pairs_of(objective, text, draws(n), 1000)
    pairs = Examples(inputs, targets, np.arange(n) // per_row, n // per_row)
    space = objective.room(128 * per_row)
    assert_cuts_less_than_one_in_1000(pairs, space)
    assert space.targets <= 1.6 * per_row * targets.lengths.max()  # and it is not simply large


@pytest.mark.parametrize("objective", [C.SpanCorruption(), *RANDOM[:1], *RANDOM[2:]], ids=lambda objective: objective.name)
def test_isolated_documents_fit_where_they_average_64_tokens(objective):
    """Rows of 512 tokens that are cut wherever a document ends, lengths uniform in 8..120."""
    space = dataclasses.replace(objective, documents="isolated").room(512)
    chosen, lengths, rows = np.random.default_rng(0), [], []
    for row in range(600):
        left = 512
        while left > 1:
            lengths.append(min(left, int(chosen.integers(8, 121))))
            rows.append(row)
            left -= lengths[-1]
    inputs, targets = pairs_of(objective, chunks(lengths), draws(len(lengths)), 1000)
    assert_cuts_less_than_one_in_1000(Examples(inputs, targets, np.asarray(rows), 600), space)


def test_t5s_baseline_has_enough_sentinels():
    """512 tokens under i.i.d. noise leave 65 runs on average; 100 sentinels serve."""
    assert row_shape(config(C.Denoising(), length=512), "encoder_decoder").encoder_length <= 513
    text = chunks([512] * 1000)
    inputs, _ = pairs_of(C.Denoising(), text, draws(1000))
    assert inputs.keep(inputs.values >= VOCABULARY - 100).lengths.max() < 99
    with pytest.raises(UserError, match="168 sentinels"):
        row_shape(config(C.Denoising(), length=1024), "encoder_decoder")


@pytest.mark.parametrize("objective", [C.SpanCorruption(examples_per_row=4), C.SpanCorruption(0.5, 8.0)], ids=["packed", "long"])
def test_span_corruption_fills_its_rows(objective):
    text = chunks([141] * 8)
    inputs, targets = pairs_of(objective, text, draws(8))
    per_row = objective.examples_per_row
    space = objective.room(141 * per_row)
    assert (space.inputs, space.targets) == (per_row * inputs.lengths[0], per_row * targets.lengths[0])
    assert space.total == space.inputs + space.targets
    kept = Examples(inputs, targets, np.arange(8) // per_row, 8 // per_row).fitted(space)
    assert (kept.inputs.lengths.sum(), kept.targets.lengths.sum()) == (len(inputs.values), len(targets.values))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=12),
    st.integers(0, 12), st.integers(0, 12), st.integers(0, 20),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_what_exceeds_the_room_is_the_rows_tail(lengths, room_in, room_out, total):
    a, b, rows = (np.asarray(each) for each in zip(*sorted(lengths, key=lambda each: each[2]), strict=True))
    pairs = Examples(chunks(a), chunks(b, 1), rows, 3)
    space = Room(room_in, room_out, total, 0.0)
    fitted = pairs.fitted(space)
    for row in range(3):
        mine = rows == row
        got_in, got_out = fitted.inputs.lengths[mine].sum(), fitted.targets.lengths[mine].sum()
        assert got_in <= room_in
        assert got_out <= room_out
        assert got_in + got_out <= total
        if a[mine].sum() <= room_in and b[mine].sum() <= room_out and a[mine].sum() + b[mine].sum() <= total:
            assert (got_in, got_out) == (a[mine].sum(), b[mine].sum())
    for i in range(len(rows)):
        np.testing.assert_array_equal(fitted.inputs[i], pairs.inputs[i][: fitted.inputs.lengths[i]])
        np.testing.assert_array_equal(fitted.targets[i], pairs.targets[i][: fitted.targets.lengths[i]])
        assert fitted.inputs.lengths[i] or not a[i] or not fitted.targets.lengths[i]  # no target without its inputs


@pytest.mark.parametrize("case", PAIRED, ids=label)
def test_documents_too_short_to_hide_anything_give_rows_of_weight_0(case):
    objective, architecture = case
    tokenizer = prepared(config(objective)).tokenizer
    make = objective.row_maker(8, architecture, dataclasses.replace(ids(objective), tokenizer=tokenizer))
    plan = Plan(8, np.asarray([0, 2, 4]), np.asarray([1, -1, 1, -1]), np.asarray([1, 7, 1, 7], np.int32), True)
    batch = make(PackedRows(np.asarray([1, 1]), plan, np.asarray([0, 1]), np.asarray([5, 6], np.uint64)))
    assert batch.weights.sum() == 0
    assert (batch.segments == 0).all()


def test_impossible_combinations_are_refused_in_one_line():
    wrong = [
        (C.MaskedLM(), "decoder", ["masked", "encoder", "decoder"]),
        (C.NextToken(), "encoder", ["next_token", "data.objective", "masked"]),
        (C.NextToken(), "encoder_decoder", ["next_token", "encoder_decoder", "span_corruption"]),
        (C.PrefixLM(), "encoder", ["prefix", "decoder", "prefix_lm", "encoder_decoder"]),
        (C.FillInTheMiddle(), "prefix_lm", ["fill_in_the_middle", "decoder"]),
        (C.PrefixLM(loss_on_inputs=True), "prefix_lm", ["loss_on_inputs"]),
        (C.Denoising(loss_on_inputs=True), "encoder_decoder", ["loss_on_inputs"]),
        (C.Pairs(), "decoder", ["data.packing=best_fit"]),
        (C.SpanCorruption(examples_per_row=3), "decoder", ["data.sequence_length=64", "3", "examples_per_row"]),
        (C.PrefixLM(examples_per_row=64), "decoder", ["data.sequence_length", "examples_per_row"]),
        (C.SpanCorruption(0.5, 1.0, sentinels=4), "decoder", ["32", "sentinels", "span_corruption"]),
        (C.Denoising(0.0), "decoder", ["noise_density=0.0", "denoising"]),
        (C.MaskedLM(mask_rate=1.0), "encoder", ["mask_rate=1.0", "masked"]),
        (C.MaskedLM(replace_by_random=0.5), "encoder", ["replace_by_mask", "replace_by_random"]),
        (C.FillInTheMiddle(spm=1.5), "decoder", ["spm=1.5", "fill_in_the_middle"]),
        (C.BartNoise(deletion=-0.1), "decoder", ["deletion=-0.1", "bart"]),
        (C.MixtureOfDenoisers(()), "decoder", ["ul2", "denoiser"]),
        (C.MixtureOfDenoisers((C.Denoiser(rate=0.0),)), "decoder", ["ul2", "rate"]),
        (C.SpanCorruption(mean_span=0.0), "decoder", ["mean_span", "span_corruption"]),
        (C.BartNoise(mean_span=0.01), "decoder", ["mean_span", "bart"]),
    ]
    for objective, architecture, names in wrong:
        with pytest.raises(UserError) as error:
            row_shape(dataclasses.replace(config(C.NextToken()), objective=objective), architecture)
        message = str(error.value)
        assert "\n" not in message
        assert [name for name in names if name not in message] == [], message
