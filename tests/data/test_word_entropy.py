"""The entropy of a word chain, and the oracle that knows it."""

import dataclasses

import numpy as np
import pytest

from lm.data.config import WordChain
from lm.data.corpora.word_chain import Language, WordChainSource
from lm.data.corpora.word_entropy import Entropy, Oracle, stationary

SMALL = WordChain(words=300, words_per_document=26)


@pytest.fixture(scope="module")
def oracle():
    return Oracle(SMALL)


def transitions(language):
    """P(w' | w) as it is defined, [W, W]."""
    size, share = language.chain.words, language.chain.successor
    table = np.broadcast_to((1 - share) * language.probability, (size, size)).copy()
    table[np.arange(size), language.succ(np.arange(size))] += share
    return table


def residual(oracle, documents):
    """Nats per byte of documents, less their expectation, in standard errors of a ratio of means."""
    language = oracle.language
    nats = np.asarray([oracle.document(words) for words in documents])
    size = np.asarray([(language.letters(words) + 1).sum() for words in documents])
    ratio = nats.sum() / size.sum()
    error = np.std(nats - ratio * size) / size.mean() / len(size) ** 0.5
    return (ratio - oracle.entropy.documents) / error


def test_the_stationary_distribution_is_that_of_the_transitions(oracle):
    pi, table = stationary(oracle.language), transitions(oracle.language)
    assert pi.sum() == pytest.approx(1, abs=1e-14)
    assert np.allclose(pi @ table, pi, atol=1e-15)


def test_the_rate_is_that_of_the_transitions(oracle):
    table, pi = transitions(oracle.language), stationary(oracle.language)
    nats = pi @ -(table * np.log(table)).sum(axis=1)
    size = pi @ (oracle.language.letters(np.arange(300)) + 1)
    assert oracle.entropy.rate == pytest.approx(nats / size, rel=1e-12)


def test_without_successors_words_are_independent():
    made = Oracle(dataclasses.replace(SMALL, successor=0.0)).entropy
    p = Language(SMALL).probability
    assert made.per_word == pytest.approx(-(p * np.log(p)).sum(), rel=1e-12)
    assert made.first_word == pytest.approx(made.per_word, rel=1e-12)


def test_the_rate_at_65536_words():
    """One number for ever; other permutations of the words have other ones (seeds spread by 1.3%, about the same mean)."""
    chain = WordChain(words=65_536)
    assert Oracle(chain).entropy.rate == pytest.approx(0.455588, abs=1e-6)
    rates = [Oracle(dataclasses.replace(chain, seed=seed)).entropy.rate for seed in range(1, 5)]
    assert np.mean(rates) == pytest.approx(0.4575, abs=0.006)
    assert np.std(rates) == pytest.approx(0.006, abs=0.004)


def test_chains_side_by_side_have_the_same_rate(oracle):
    assert Oracle(dataclasses.replace(SMALL, lag=4)).entropy.rate == oracle.entropy.rate


def test_documents_cost_their_first_words_and_their_ends():
    made = Entropy(SMALL, per_word=2.0, first_word=4.0, word_bytes=5.0)
    place = -np.log(1 / 26) - 25 * np.log(25 / 26)
    assert made.documents == pytest.approx((4 + 25 * 2 + place) / (26 * 5), rel=1e-12)
    single = dataclasses.replace(SMALL, words_per_document=1.0)
    assert dataclasses.replace(made, chain=single).documents == pytest.approx(4 / 5)
    long = dataclasses.replace(SMALL, words_per_document=1e7, lag=3)
    assert dataclasses.replace(made, chain=long).documents == pytest.approx(made.rate, rel=1e-4)


@pytest.mark.parametrize("lag", [1, 3])
def test_the_oracle_agrees_with_the_closed_form(lag):
    """Documents of about 128 bytes: the first word of each chain costs what it costs without a predecessor."""
    oracle = Oracle(WordChain(words=2_000, lag=lag, words_per_document=26))
    documents = WordChainSource(oracle.chain).chains(range(500))
    assert abs(residual(oracle, documents)) < 3


def test_a_document_costs_the_sum_of_its_words_and_of_its_bytes(oracle):
    for chain in (SMALL, dataclasses.replace(SMALL, lag=2, successor=0.0), dataclasses.replace(SMALL, words=20_000, lag=5)):
        oracle = Oracle(chain)
        for words in WordChainSource(chain).chains(range(8)):
            nats = oracle.bytes(words)
            assert len(nats) == len(oracle.language.text(words)) + 1
            assert nats.min() >= -1e-9
            assert nats.sum() == pytest.approx(oracle.document(words), rel=1e-9)


def test_the_bytes_of_a_word_are_marginals_over_words(oracle):
    """The definition gives the same: the mass of all words that begin with a prefix, summed word by word."""
    language, table = oracle.language, transitions(oracle.language)
    spelled = language.text(np.arange(300)).split(" ")[:-1]
    words = WordChainSource(SMALL).words(3)
    text, nats, expected = language.text(words), oracle.bytes(words), []
    for t, word in enumerate(words):
        prior = stationary(language) if t == 0 else table[words[t - 1]]
        before = 1.0 if t == 0 else 1 / (25 / 26)
        for read in range(1, len(spelled[word]) + 2):
            prefix = (spelled[word] + " ")[:read]
            mass = sum(p for p, other in zip(prior, spelled, strict=True) if (other + " ").startswith(prefix))
            expected.append(np.log(before / mass))
            before = mass
    assert np.allclose(nats, [*expected, np.log(26)], atol=1e-9)
    assert len(text) == len(expected)


def test_the_document_is_the_words_with_their_transitions(oracle):
    table, words = transitions(oracle.language), WordChainSource(SMALL).words(5)
    chain = -np.log(stationary(oracle.language)[words[0]]) - np.log(table[words[:-1], words[1:]]).sum()
    ends = -(len(words) - 1) * np.log(25 / 26) - np.log(1 / 26)
    assert oracle.document(words) == pytest.approx(chain + ends, rel=1e-12)
