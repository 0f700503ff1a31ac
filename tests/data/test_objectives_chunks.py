"""Laws of the transforms of chunks: nothing of the text is lost, lengths are exact, noise has the stated distribution."""

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_cases import EOS, VOCABULARY, chunks, draws, ids, pairs_of

from lm.data.objectives import bart, denoising
from lm.data.objectives import config as C
from lm.data.objectives.base import SpecialIds
from lm.data.objectives.denoising import span_counts
from lm.data.objectives.ragged import Ragged, group_before, join
from lm.data.tokenizer import Bytes

LENGTHS = st.lists(st.integers(2, 70), min_size=1, max_size=12)


def is_sentinel(tokens, objective):
    return (tokens < VOCABULARY) & (tokens >= VOCABULARY - objective.sentinels)


def runs_after_sentinels(targets, objective):
    """{sentinel: the tokens that follow it}."""
    found, last = {}, None
    for token in targets.tolist():
        if is_sentinel(np.asarray(token), objective):
            assert token not in found
            last, found[token] = token, []
        else:
            found[last].append(token)
    return found


def filled_in(inputs, targets, objective):
    """The document: every sentinel of the inputs replaced by what follows it in the targets."""
    assert inputs[-1] == EOS
    assert targets[-1] == EOS
    runs = runs_after_sentinels(targets[:-1], objective)
    return np.concatenate([runs.get(token, [token]) for token in inputs[:-1].tolist()]), runs


@given(LENGTHS, st.integers(0, 99), st.sampled_from([(0.15, 3.0), (0.5, 3.0), (0.3, 1.0), (0.15, 64.0)]))
@settings(max_examples=60, deadline=None)
def test_filling_in_what_span_corruption_took_out_gives_the_document(lengths, seed, noise):
    objective = C.SpanCorruption(*noise)
    text = chunks(lengths, seed)
    inputs, targets = pairs_of(objective, text, draws(len(lengths), seed))
    for i, n in enumerate(lengths):
        document, runs = filled_in(inputs[i], targets[i], objective)
        np.testing.assert_array_equal(document, text[i])
        dropped, parts = (int(each) for each in span_counts(n, *noise))
        assert list(runs) == [VOCABULARY - 1 - j for j in range(parts)]  # descending from the top, in order
        assert all(runs.values())
        assert sum(map(len, runs.values())) == dropped
        assert not is_sentinel(inputs[i][0], objective)  # the first span is text
        at = np.flatnonzero(is_sentinel(inputs[i], objective))
        assert (np.diff(at) > 1).all()  # spans never touch


@pytest.mark.parametrize(
    ("raw", "inputs", "targets", "noise", "parts"),
    [(568, 512, 114, 85, 28), (284, 256, 58, 43, 14), (141, 128, 29, 21, 7), (70, 64, 14, 10, 3)],
)
def test_t5s_lengths(raw, inputs, targets, noise, parts):
    objective = C.SpanCorruption()
    assert objective.lengths(raw + 1)[0].most > inputs  # no longer text fits in T5's inputs
    assert span_counts(raw, 0.15, 3.0) == (noise, parts)
    streams = pairs_of(C.SpanCorruption(), chunks([raw] * 3), draws(3))
    assert [stream.lengths.tolist() for stream in streams] == [[inputs] * 3, [targets] * 3]


def test_ties_round_as_in_t5s_float32():
    """0.15 is above 3/20 in float32: 190 tokens have 28.500001 noise tokens there and 28.5, which rounds to 28, in float64."""
    assert [int(span_counts(n, 0.15, 3.0)[0]) for n in (10, 30, 50, 70, 190, 350)] == [2, 4, 8, 10, 29, 53]
    assert [int(span_counts(n, 0.15, 3.0)[0]) for n in (2, 3, 4)] == [1, 1, 1]  # never none


def test_spans_are_uniform_partitions():
    """8 tokens with 4 of noise in 2 spans: 3 x 3 ways, all equally likely."""
    n = 18_000
    text = chunks([8] * n)
    noise = denoising.span_noise(text, np.full(n, 4), np.full(n, 2), draws(n)).reshape(n, 8)
    seen = collections.Counter(map(bytes, noise))
    assert len(seen) == 9
    assert not noise[:, 0].any()
    chi_square = sum((count - n / 9) ** 2 / (n / 9) for count in seen.values())
    assert chi_square < 26.1  # 8 degrees of freedom: p = 0.001


@given(LENGTHS, st.integers(0, 99), st.sampled_from([0.15, 0.5, 0.9]))
@settings(max_examples=60, deadline=None)
def test_iid_denoising_is_inverted_and_ends_in_a_final_sentinel(lengths, seed, density):
    objective = C.Denoising(density)
    text = chunks(lengths, seed)
    inputs, targets = pairs_of(objective, text, draws(len(lengths), seed))
    for i in range(len(lengths)):
        document, runs = filled_in(inputs[i], targets[i], objective)
        np.testing.assert_array_equal(document, text[i])
        *taken, final = runs.items()
        assert final == (VOCABULARY - 1 - len(taken), [])
        assert all(run for _, run in taken)
        assert (np.diff(np.flatnonzero(is_sentinel(inputs[i], objective))) > 1).all()  # a run has one sentinel


def test_t5s_example_of_denoising():
    """Thank you <X> me to your party <Y> week. -> <X> for inviting <Y> last <Z>"""
    objective, words = C.Denoising(), ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    text = Ragged(np.arange(10, 10 + len(words)), np.asarray([len(words)]))
    noise = np.isin(words, ["for", "inviting", "last"])
    inputs, targets = denoising.around(noise, *denoising.runs(noise, text), text, ids(objective))
    names = {**dict(enumerate(words, 10)), VOCABULARY - 1: "<X>", VOCABULARY - 2: "<Y>"}
    assert " ".join(names[i] for i in inputs.values) == "Thank you <X> me to your party <Y> week"
    assert " ".join(names[i] for i in targets.values) == "<X> for inviting <Y> last"


def test_iid_denoising_drops_15_percent_independently():
    objective, n = C.Denoising(), 200_000
    text = chunks([200] * (n // 200))
    inputs, targets = pairs_of(objective, text, draws(len(text)))
    dropped = (targets.values < VOCABULARY - 100).sum() - len(text)  # without the ends
    assert abs(dropped / n - 0.15) < 4 * np.sqrt(0.15 * 0.85 / n)
    runs = is_sentinel(inputs.values, objective).sum()
    expected = len(text) * (0.15 + 199 * 0.15 * 0.85)  # a run opens at a dropped token after one that stays
    assert abs(runs - expected) < 4 * np.sqrt(expected)


def test_runs_beyond_the_last_sentinel_stay():
    objective = C.Denoising(0.4, sentinels=4)
    text = chunks([200] * 20)
    inputs, targets = pairs_of(objective, text, draws(20))
    for i in range(20):
        document, runs = filled_in(inputs[i], targets[i], objective)
        np.testing.assert_array_equal(document, text[i])
        assert list(runs) == [VOCABULARY - 1 - j for j in range(4)]


@given(LENGTHS, st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_prefix_and_its_rest_are_the_chunk(lengths, seed):
    text = chunks(lengths, seed)
    inputs, targets = pairs_of(C.PrefixLM(), text, draws(len(lengths), seed))
    assert (inputs.lengths >= 1).all()
    assert (targets.lengths >= 1).all()
    np.testing.assert_array_equal(join(inputs, targets).values, text.values)


def test_prefixes_are_uniform():
    inputs, _ = pairs_of(C.PrefixLM(), chunks([5] * 8000), draws(8000))
    counts = np.bincount(inputs.lengths, minlength=6)[1:]
    assert counts.sum() == 8000
    assert ((counts[:4] - 2000) ** 2 / 2000).sum() < 16.3  # chi-square, 3 degrees of freedom, p = 0.001
    assert counts[4] == 0


def test_ul2_mixes_its_denoisers_evenly_and_names_the_mode():
    objective, n = C.MixtureOfDenoisers(), 7000
    text, keys = chunks([60] * n), draws(n)
    inputs, targets = pairs_of(objective, text, keys)
    which = objective.choose(keys)
    counts = np.bincount(which, minlength=7)
    assert ((counts - n / 7) ** 2 / (n / 7)).sum() < 22.5  # 6 degrees of freedom, p = 0.001
    modes = VOCABULARY - 1 - objective.sentinels - np.asarray([C.MODES.index(each.mode) for each in objective.denoisers])
    np.testing.assert_array_equal(inputs.values[inputs.starts], modes[which])
    lengths = np.asarray([objective.denoiser_lengths(60, each) for each in objective.denoisers])[which]
    np.testing.assert_array_equal(np.stack([inputs.lengths, targets.lengths], axis=1), lengths)
    for i in range(200):
        if objective.denoisers[which[i]].mode == "S":
            np.testing.assert_array_equal(np.concatenate([inputs[i][1:-1], targets[i][:-1]]), text[i])
            assert len(targets[i]) == 16  # the last quarter, and its end
        else:
            np.testing.assert_array_equal(filled_in(inputs[i][1:], targets[i], objective)[0], text[i])


def test_ul2s_rates_are_relative():
    objective = C.MixtureOfDenoisers(tuple(dataclasses.replace(each, rate=3.0 if each.mode == "S" else 0.5) for each in C.SEVEN_DENOISERS))
    which = objective.choose(draws(6000))
    assert abs((which == 2).mean() - 0.5) < 4 * np.sqrt(0.25 / 6000)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_pieces_of_a_permuted_document_put_back_give_the_document(lengths, seed, spm):
    objective = C.FillInTheMiddle(spm=spm, documents_per_row=100)
    pre, suf, mid = VOCABULARY - 1, VOCABULARY - 2, VOCABULARY - 3
    pieces = chunks(lengths, seed)
    whole = np.random.default_rng(seed).random(len(pieces)) < 0.5
    pieces.values[(pieces.starts + pieces.lengths - 1)[whole]] = EOS
    out = objective.permuted(pieces, draws(len(pieces), seed), ids(objective), np.zeros(len(pieces), np.int64))
    for i in range(len(pieces)):
        tokens = out[i].tolist()
        if pre not in tokens:
            np.testing.assert_array_equal(tokens, pieces[i])
            continue
        assert (tokens[0], tokens[-1]) == (pre, EOS)
        s, m = tokens.index(suf), tokens.index(mid)
        first, suffix, last = tokens[1:s], tokens[s + 1 : m], tokens[m + 1 : -1]
        assert not (first and spm == 1.0)
        np.testing.assert_array_equal(first + last + suffix, pieces[i][pieces[i] != EOS])


def test_half_of_the_documents_are_permuted_half_of_them_suffix_first():
    objective, n = C.FillInTheMiddle(documents_per_row=1), 8000
    pieces = chunks([30] * n)
    out = objective.permuted(pieces, draws(n), ids(objective), np.arange(n))
    first, second = out.values[out.starts], out.values[out.starts + 1]
    moved = first == VOCABULARY - 1
    assert abs(moved.mean() - 0.5) < 4 * np.sqrt(0.25 / n)
    # A document without a prefix opens with both signs in either order; that is so where the lower of two cuts in 0..30 is 0.
    alike = 1 - (30 / 31) ** 2
    assert abs((second[moved] == VOCABULARY - 2).mean() - (0.5 + 0.5 * alike)) < 4 * np.sqrt(0.25 / moved.sum())


def test_a_row_permutes_no_more_documents_than_it_has_room_for():
    objective = C.FillInTheMiddle(rate=1.0, documents_per_row=2)
    out = objective.permuted(chunks([10] * 12), draws(12), ids(objective), np.repeat([0, 1, 5], 4))
    assert (out.lengths - 10).tolist() == [4, 4, 0, 0] * 3


def test_infilling_masks_30_percent_in_poisson_spans():
    n, length = 400, 500
    text, keys = chunks([length] * n), draws(n)
    lengths, real = bart.poisson_spans(np.full(n, 150), 3.0, keys)
    assert (lengths.sum(axis=1) == 150).all()
    last = np.cumsum(real[:, ::-1], axis=1)[:, ::-1] == 1  # cut to the share: not Poisson
    full = lengths[real & ~last]
    for k, expected in enumerate(np.diff(bart.poisson_cdf(3.0), prepend=0.0)[:7]):
        # A span that is long enough to cross the share is the last: the others are slightly short. 0.01 covers it.
        assert abs((full == k).mean() - expected) < 4 * np.sqrt(expected / len(full)) + 0.01
    out = bart.infill(text, 0.3, 3.0, keys, mask_id=2)
    masks = out.keep(out.values == 2).lengths
    np.testing.assert_array_equal(masks, real.sum(axis=1))
    np.testing.assert_array_equal(out.lengths, 350 + masks)
    for i in range(20):
        stay = out[i][out[i] != 2]
        at = iter(text[i].tolist())
        assert all(token in at for token in stay.tolist())  # a subsequence of the text
        gaps = np.flatnonzero(out[i] == 2) / len(out[i])
        assert gaps.min() < 0.2
        assert gaps.max() > 0.8


def test_a_span_of_length_0_inserts_a_mask():
    text = chunks([40] * 50)
    out = bart.infill(text, 0.05, 0.01, draws(50), mask_id=2)  # 2 tokens, by spans of mean length 0.01: nearly all insert
    assert (out.keep(out.values == 2).lengths > 2).all()


def sentences(tokens, ends):
    cuts = [i + 1 for i, token in enumerate(tokens) if ends[token]]
    return sorted(tuple(part.tolist()) for part in np.split(tokens, cuts) if len(part))


def test_sentences_are_permuted_whole():
    objective = C.BartNoise(infilling=0.0)
    closing = bart.closing_tokens(ids(objective), objective.sentence_ends)
    text = chunks([60] * 40)
    text.values[np.random.default_rng(0).random(len(text.values)) < 0.15] = ord(".") + 3
    text.values[text.starts + text.lengths - 1] = EOS
    inputs, targets = pairs_of(objective, text, draws(40))
    changed = 0
    for i in range(40):
        np.testing.assert_array_equal(targets[i], np.append(text[i], EOS))
        assert sentences(inputs[i][:-1], closing) == sentences(text[i], closing)
        changed += (inputs[i] != targets[i]).any()
    assert changed > 35
    assert closing.nonzero()[0].tolist() == [EOS, ord(".") + 3]


def test_deletion_and_rotation():
    text = chunks([100] * 300)
    deleted, _ = pairs_of(C.BartNoise(infilling=0.0, deletion=0.2, permute_sentences=False), text, draws(300))
    share = 1 - (deleted.lengths - 1).sum() / 30_000
    assert abs(share - 0.2) < 4 * np.sqrt(0.16 / 30_000)
    turned, _ = pairs_of(C.BartNoise(infilling=0.0, rotation=0.5, permute_sentences=False), text, draws(300))
    by = []
    for i in range(300):
        tokens = turned[i][:-1]
        by.append(next(k for k in range(100) if (np.roll(tokens, k) == text[i]).all()))
    assert abs(np.mean([k > 0 for k in by]) - 0.495) < 4 * np.sqrt(0.25 / 300)
    nothing, _ = pairs_of(C.BartNoise(infilling=0.0, permute_sentences=False), text, draws(300))
    np.testing.assert_array_equal(nothing.keep(nothing.values != EOS).values, text.values)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_ragged_sums_within_groups(counts, groups):
    group = np.sort(np.random.default_rng(len(counts)).integers(0, groups, len(counts)))
    expected = [sum(counts[j] for j in range(i) if group[j] == group[i]) for i in range(len(counts))]
    assert group_before(np.asarray(counts), group).tolist() == expected


def test_what_separates_the_parts_of_a_pair_is_in_no_row():
    """A tokenizer without padding has no id for it below its own vocabulary, and a model needs none: an imported GPT-2 trains on pairs."""

    class Unpadded(Bytes):
        pad_id = Bytes.eos_id

    tokenizer = C.Pairs().tokenizer(Unpadded())
    assert tokenizer.separator_id == Bytes.vocab_size == C.Pairs().vocabulary(tokenizer)
    documents = [np.append(part, EOS) for part in tokenizer.encode_batch(["ab\tc", "d\te"])]
    text = Ragged(np.concatenate(documents), np.asarray([len(part) for part in documents]))
    inputs, targets = C.Pairs().pairs(text, draws(2), SpecialIds(tokenizer, C.Pairs(), Bytes.vocab_size), np.arange(2))
    a, b, c, d, e = (ord(letter) + 3 for letter in "abcde")
    assert (inputs.values.tolist(), targets.values.tolist()) == ([a, b, EOS, d, EOS], [c, EOS, e, EOS])
