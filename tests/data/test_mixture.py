import numpy as np
import pytest
from fake_corpus import corpus, quiet
from hypothesis import given
from hypothesis import strategies as st

from lm.data import tokens
from lm.data.config import Component, DataConfig
from lm.data.mixture import Mixture, Source, apportion, require_unique, shares
from lm.data.tokenizer import Bytes
from lm.errors import UserError


def mixture(tmp_path, weights=(1.0,), documents=(60, 50, 40), **config):
    config = DataConfig(components=tuple(Component(weight=weight) for weight in weights), **{"sequence_length": 16, **config})
    corpora = [corpus(count, seed, fingerprint=f"c{seed}") for seed, count in zip(range(len(weights)), documents, strict=False)]
    caches = [tokens.prepare(each, "train", Bytes(), str(tmp_path), quiet) for each in corpora]
    return Mixture([Source(c, each.fingerprint, s) for c, each, s in zip(caches, corpora, shares(config), strict=True)], config)


@given(st.integers(0, 10_000), st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_apportioned_counts_are_exact(total, weights):
    wanted = np.asarray(weights) / sum(weights)
    counts = apportion(total, wanted)
    assert counts.sum() == total
    assert (np.abs(counts - total * wanted) < 1 + 1e-6).all()


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_an_epoch_of_a_mixture_has_exact_counts_and_repeats_nothing(tmp_path, packing):
    mixed = mixture(tmp_path, (3, 2, 1), packing=packing)
    np.testing.assert_array_equal(mixed.counts, apportion(mixed.rows_per_epoch, mixed.counts / mixed.counts.sum()))
    held = mixed.counts * mixed.tokens_per_row
    np.testing.assert_allclose(held / held.sum(), [1 / 2, 1 / 3, 1 / 6], atol=2 / mixed.rows_per_epoch)  # to a row
    assert (mixed.counts <= mixed.rows).all()
    assert (mixed.counts + 2 > mixed.rows).any()  # as long as can be
    slots = np.arange(mixed.rows_per_epoch)
    for epoch in range(3):
        source, _, _ = mixed.locate(np.full_like(slots, epoch), slots)
        np.testing.assert_array_equal(np.bincount(source), mixed.counts)


def test_sources_go_round_at_their_own_pace(tmp_path):
    """Over three epochs of the mixture every row of a source is used n or n + 1 times."""
    mixed = mixture(tmp_path, (3, 2, 1))
    slots = np.tile(np.arange(mixed.rows_per_epoch), 3)
    source, _, row = mixed.locate(np.repeat(np.arange(3), mixed.rows_per_epoch), slots)
    for i in range(3):
        used = np.bincount(row[source == i], minlength=mixed.rows[i])
        assert used.max() - used.min() <= 1
        assert used.sum() == 3 * mixed.counts[i]


def test_budgets_of_unique_tokens_are_nested_and_held(tmp_path):
    before: set[int] = set()
    for budget in (500, 900, 2_000, 5_000):
        mixed = mixture(tmp_path, unique_tokens=budget)
        (chosen,) = mixed.documents
        held = mixed.sources[0].cache.lengths[chosen]
        assert held.sum() >= budget > held[:-1].sum()
        assert before < set(chosen.tolist())
        before = set(chosen.tolist())
    with pytest.raises(UserError, match=r"data\.unique_tokens"):
        mixture(tmp_path, unique_tokens=10**9)


def test_a_budget_is_shared_by_weight(tmp_path):
    mixed = mixture(tmp_path, (3, 1), unique_tokens=4_000)
    held = [source.cache.lengths[chosen].sum() for source, chosen in zip(mixed.sources, mixed.documents, strict=True)]
    longest = max(source.cache.lengths.max() for source in mixed.sources)
    assert 0 <= held[0] - 3_000 < longest
    assert 0 <= held[1] - 1_000 < longest


def test_epochs_and_seeds_order_the_documents_differently(tmp_path):
    mixed = mixture(tmp_path)
    plans = [mixed.plan(0, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({plan.sources.tobytes() for plan in plans}) == 4
    assert len({len(plan) for plan in plans}) == 1
    np.testing.assert_array_equal(mixed.plan(0, 0, 1).sources, plans[1].sources)


def test_what_cannot_be_mixed_is_a_user_error(tmp_path):
    for weights in ((), (1.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(UserError, match=r"data\.components"):
            shares(DataConfig(components=tuple(Component(weight=weight) for weight in weights)))
    with pytest.raises(UserError, match=r"data\.sequence_length"):
        mixture(tmp_path, sequence_length=100_000)
    with pytest.raises(UserError, match="weight"):
        mixture(tmp_path, (1.0, 1e-6))


def test_tokens_beyond_the_corpus_need_leave():
    require_unique(DataConfig(), 100, 100)
    require_unique(DataConfig(allow_epochs=True), 101, 100)
    with pytest.raises(UserError, match=r"101 .*100.*data\.allow_epochs"):
        require_unique(DataConfig(), 101, 100)
