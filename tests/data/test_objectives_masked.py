"""Masked language model: shares, fates, the layout of pairs, and labels that can be told from the text."""

import numpy as np
import pytest
from objective_cases import VOCABULARY, chunks, config, draws, ids, packed_rows, prepared

from lm.data.objectives import config as C
from lm.data.objectives.shape import row_shape
from lm.data.own_ids import OwnIds
from lm.data.tokenizer import Bytes

CLS, SEP, MASK = VOCABULARY - 1, VOCABULARY - 2, Bytes.mask_id


def made(lengths, rows, objective, others=None, seed=0):
    text = chunks(lengths)
    rows = np.asarray(rows)
    shape = row_shape(config(objective, length=max(lengths) * objective.examples_per_row), "encoder")
    special, keys = ids(objective), draws(len(lengths), seed)
    return text, objective.batch(text, others or chunks(lengths, 1), rows, rows.max() + 1, keys, special, shape)


def test_15_percent_are_predicted_and_80_10_10_of_them_masked_replaced_kept():
    text = chunks([128] * 1000)
    noisy, chosen = C.MaskedLM().corrupt(text, draws(1000), ids(C.MaskedLM()))
    assert (text.keep(chosen).lengths == 19).all()  # round(0.15 x 128)
    per_place = chosen.reshape(1000, 128).mean(axis=0)
    assert np.abs(per_place - 19 / 128).max() < 5 * np.sqrt(19 / 128 / 1000)
    before, after = text.values[chosen], noisy.values[chosen]
    assert (noisy.values[~chosen] == text.values[~chosen]).all()
    shares = [(after == MASK).mean(), ((after != MASK) & (after != before)).mean(), (after == before).mean()]
    for share, expected in zip(shares, [0.8, 0.1, 0.1], strict=True):  # a random token is the old one, or the mask, once in 259
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / chosen.sum()) + 2 / 259
    random = after[(after != MASK) & (after != before)]
    assert random.min() < 20
    assert random.max() > 240
    assert random.max() < 259


def test_a_pair_is_laid_out_as_bert_does():
    objective = C.MaskedLM(examples_per_row=2)
    text, batch = made([20] * 4, [0, 0, 1, 1], objective)
    for row in range(2):
        for k in range(2):
            at = batch.segments[row] == k + 1
            tokens, types = batch.tokens[row][at], batch.token_types[row][at]
            assert len(tokens) == 23
            np.testing.assert_array_equal(batch.positions[row][at], np.arange(23))
            assert np.flatnonzero(tokens == CLS).tolist() == [0]
            assert batch.tokens[row, batch.sequence_positions[row, k]] == CLS
            assert batch.segments[row, batch.sequence_positions[row, k]] == k + 1
            first, second = np.flatnonzero(tokens == SEP)
            assert second == 22
            np.testing.assert_array_equal(types, np.arange(23) > first)
    assert batch.sequence_positions.shape == batch.labels.shape == (2, 2)
    assert (batch.weights == 1).all()
    restored = batch.tokens.copy()
    np.put_along_axis(restored, batch.predict, batch.targets, axis=1)
    for row in range(2):
        for k in range(2):
            if batch.labels[row, k] == 0:  # B follows A: the targets put back give the text
                tokens = restored[row][batch.segments[row] == k + 1]
                np.testing.assert_array_equal(tokens[(tokens != CLS) & (tokens != SEP)], text[2 * row + k])


def test_the_label_says_whether_the_second_part_is_of_another_row():
    objective = C.MaskedLM()
    others = chunks([30] * 600, 5)
    text, batch = made([30] * 600, np.arange(600), objective, others)
    restored = batch.tokens.copy()
    np.put_along_axis(restored, batch.predict, batch.targets, axis=1)
    for row in range(600):
        first, second = np.flatnonzero(restored[row] == SEP)
        cut = first - 1
        np.testing.assert_array_equal(restored[row][1:first], text[row][:cut])
        source = others if batch.labels[row, 0] else text
        np.testing.assert_array_equal(restored[row][first + 1 : second], source[row][cut:])
    assert abs(batch.labels.mean() - 0.5) < 4 * np.sqrt(0.25 / 600)


def test_both_losses_weigh_the_same_as_in_bert():
    """sum(weights x ce) + sum(label_weights x label_ce) over sum(weights) is mean(ce) + mean(label_ce)."""
    _, batch = made([40] * 6, [0, 0, 0, 1, 1, 1], C.MaskedLM(examples_per_row=3))
    ce, label_ce = np.random.default_rng(0).random(batch.weights.shape), np.random.default_rng(1).random(batch.labels.shape)
    total = ((batch.weights * ce).sum() + (batch.label_weights * label_ce).sum()) / batch.weights.sum()
    np.testing.assert_allclose(total, ce.mean() + label_ce.mean(), rtol=1e-12)


def test_without_pairs_there_is_one_text_and_no_label():
    text, batch = made([25] * 3, [0, 1, 2], C.MaskedLM(next_sentence=False))
    assert batch.labels is batch.sequence_positions is batch.token_types is None
    restored = batch.tokens.copy()
    np.put_along_axis(restored, batch.predict, batch.targets, axis=1)
    for row in range(3):
        np.testing.assert_array_equal(restored[row], [CLS, *text[row], SEP])


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_a_negative_second_part_is_text_of_another_row_of_the_epoch(packing):
    objective = C.MaskedLM(examples_per_row=2)
    data_config = config(objective, length=64, packing=packing)
    packed = packed_rows(prepared(data_config), np.arange(32)[::-1])
    plan, own = packed.plan, packed.rows_B
    index, segments, _ = plan.gather(np.arange(len(plan)))
    text = np.where(segments > 0, packed.flat.take(index).astype(np.int64), -1)  # of all rows of the epoch
    batch, labels = objective.row_maker(64, "encoder", ids(objective))(packed), []
    restored = batch.tokens.copy()
    for row, place, target in zip(*np.nonzero(batch.weights), batch.targets[batch.weights > 0], strict=True):
        restored[row, batch.predict[row, place]] = target
    for row in range(32):
        for segment in range(1, batch.segments[row].max() + 1):
            at = batch.segments[row] == segment
            cut = 32 * (segment - 1) + int((batch.token_types[row][at] == 0).sum()) - 2
            second = restored[row][at & (batch.token_types[row] == 1)][:-1]
            holders = np.flatnonzero((text[:, cut : cut + len(second)] == second).all(axis=1))
            labels.append(batch.labels[row, segment - 1])
            assert (set(holders) - {own[row]}) if labels[-1] else (own[row] in holders)
    assert abs(np.mean(labels) - 0.5) < 4 * np.sqrt(0.25 / len(labels)) + 0.1 * (packing == "best_fit")


def test_a_tokenizer_without_a_mask_gets_one_below_the_other_ids():
    special = ids(C.MaskedLM())
    special.tokenizer.own = OwnIds()
    assert special.mask == VOCABULARY - 3
    assert C.MaskedLM().special_ids(OwnIds()) == 3
    assert C.MaskedLM().special_ids(OwnIds(mask=2)) == 2
