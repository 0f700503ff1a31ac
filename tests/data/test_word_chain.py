"""The word chain: words that can be told apart, random access, and the frequencies and transitions that its definition states."""

import dataclasses
import itertools

import numpy as np
import pytest

from lm import config as config_lib
from lm.data import corpora, info, pipeline
from lm.data.config import Component, DataConfig, WordChain
from lm.data.corpora.word_chain import BLOCK, Language, WordChainSource
from lm.data.splitmix import Permutation, streams, uniform
from lm.errors import UserError

SMALL = WordChain(words=3_000, words_per_document=40, train_documents=300, validation_documents=20)


def counts_of(words, size):
    return np.bincount(words, minlength=size)


@pytest.fixture(scope="module")
def sample():
    """The words of 4,000 documents of SMALL."""
    source = WordChainSource(SMALL)
    return source.language, source.chains(range(4_000))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1_000, 26**3])
def test_a_permutation_is_one_and_has_its_inverse(size):
    numbers = np.arange(size)
    for key in (0, 2**64 - 1):
        permuted = Permutation(size, key)(numbers)
        assert np.array_equal(np.sort(permuted), numbers)
        assert np.array_equal(Permutation(size, key).inverse(permuted), numbers)
    if size >= 64:
        assert (Permutation(size, 1)(numbers) != Permutation(size, 2)(numbers)).mean() > 0.9


def test_permuted_numbers_are_spread_evenly_and_forget_their_order():
    size = 1 << 16
    permuted = Permutation(size, 7)(np.arange(size))
    assert abs(np.corrcoef(np.arange(size), permuted)[0, 1]) < 4 / size**0.5
    assert abs(np.corrcoef(permuted[1:], permuted[:-1])[0, 1]) < 4 / size**0.5
    cells = np.bincount(permuted[: size // 4] // (size // 64), minlength=64)
    expected = size // 4 / 64
    assert ((cells - expected) ** 2 / expected).sum() < 63 + 4 * 126**0.5  # chi-square with 63 degrees of freedom


def test_uniform_numbers_have_their_moments_and_streams_differ():
    drawn = uniform(streams(3, np.arange(2))[:, None], np.arange(100_000))
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    assert np.allclose(drawn.mean(axis=1), 0.5, atol=4 / (12 * 100_000) ** 0.5)
    assert np.allclose(drawn.var(axis=1), 1 / 12, atol=4 * (1 / 180 / 100_000) ** 0.5)
    assert abs(np.corrcoef(drawn)[0, 1]) < 4 / 100_000**0.5


@pytest.mark.parametrize("words", [2, 3_000, 40_000])
def test_every_word_has_a_spelling_of_its_own_and_of_its_length(words):
    language = Language(dataclasses.replace(SMALL, words=words))
    numbers = np.arange(words)
    spelled = language.text(numbers).split(" ")[:-1]
    assert len(set(spelled)) == len(spelled) == words
    ranks = numbers.tolist()
    assert [len(word) for word in spelled] == [2 + max(m for m in range(9) if 12**m <= rank + 1) for rank in ranks]
    assert all(set(word) <= set("abcdefghijklmnopqrstuvwxyz") for word in spelled)


def test_words_can_be_read_off_the_text(sample):
    language, documents = sample
    word_of = {word: i for i, word in enumerate(language.text(np.arange(SMALL.words)).split())}
    for words in documents[:20]:
        text = language.text(words)
        assert [word_of[word] for word in text.split(" ")[:-1]] == words.tolist()
        assert text.endswith(" ")
        assert "  " not in text


@pytest.mark.parametrize("lag", [1, 3])
def test_a_document_is_the_same_whatever_is_read_with_it(lag):
    chain = dataclasses.replace(SMALL, lag=lag)
    source, split = WordChainSource(chain), corpora.prepare(Component("word_chain", chain=chain), "").split("train")
    sequence = [split[i] for i in range(BLOCK + 3)]
    assert [split[i] for i in (BLOCK + 2, 0, 5)] == [sequence[BLOCK + 2], sequence[0], sequence[5]]
    first = chain.validation_documents
    assert [source[first + i] for i in (5, 0, BLOCK)] == [sequence[5], sequence[0], sequence[BLOCK]]
    assert source.texts([10**15, first]) == [source[10**15], sequence[0]]
    assert WordChainSource(chain)[first] == sequence[0]
    assert WordChainSource(dataclasses.replace(chain, seed=1))[first] != sequence[0]
    assert source.language.text(source.words(first)) == sequence[0]
    with pytest.raises(IndexError):
        source[-1]
    with pytest.raises(IndexError):
        split[len(split)]


def test_fresh_words_follow_zipfs_law():
    language, draws = Language(SMALL), 200_000
    counts = counts_of(language.fresh(uniform(streams(0, np.asarray([1])), np.arange(draws))), SMALL.words)
    p = np.arange(1, SMALL.words + 1) ** -1.5
    expected = draws * p / p.sum()
    assert np.allclose(expected, draws * language.probability)
    enough = expected > 10
    error = ((counts - expected) ** 2 / expected)[enough].sum()
    assert abs(error - enough.sum()) < 4 * (2 * enough.sum()) ** 0.5


def test_words_follow_each_other_as_stated(sample):
    """After a word, its successor comes with l + (1 - l) p, and among other words p holds."""
    language, documents = sample
    before, after = (np.concatenate([words[at] for words in documents]) for at in (slice(None, -1), slice(1, None)))
    followed = after == language.succ(before)
    p = language.probability[language.succ(before)]
    expected = 0.5 + 0.5 * p
    assert abs(followed.sum() - expected.sum()) < 4 * (expected * (1 - expected)).sum() ** 0.5
    others = after[~followed & (before == before[0])]
    weight = np.where(np.arange(SMALL.words) == language.succ(before[:1]), 0, language.probability)
    top = (weight / weight.sum())[:20]
    counts = counts_of(others, SMALL.words)[:20]
    assert (np.abs(counts - len(others) * top) < 4.5 * np.sqrt(len(others) * top) + 1).all()


def test_chains_side_by_side_do_not_touch():
    chain = dataclasses.replace(SMALL, lag=3, words_per_document=300)
    source = WordChainSource(chain)
    documents = source.chains(range(100))

    def share(gap):
        hits = [source.language.succ(words[:-gap]) == words[gap:] for words in documents if len(words) > gap]
        return np.concatenate(hits).mean()

    assert abs(share(3) - 0.5) < 0.03
    for gap in (1, 2, 4):
        assert share(gap) < 0.05


def test_a_document_has_a_geometric_number_of_words(sample):
    _, documents = sample
    lengths = np.asarray([len(words) for words in documents])
    assert abs(lengths.mean() - 40) < 4 * 40 / len(lengths) ** 0.5
    assert abs((lengths > 40).mean() - (1 - 1 / 40) ** 40) < 4 * 0.5 / len(lengths) ** 0.5
    assert lengths.min() == 1
    alone = WordChainSource(dataclasses.replace(SMALL, words_per_document=1, successor=0.0))
    assert [len(words) for words in alone.chains(range(50))] == [1] * 50


def test_the_fingerprint_is_of_the_parameters():
    changed = [SMALL, *(dataclasses.replace(SMALL, **{name: value}) for name, value in dataclasses.asdict(WordChain(seed=5)).items())]
    prepared = [corpora.prepare(Component("word_chain", chain=chain), "") for chain in changed]
    distinct = {chain: corpus.fingerprint for chain, corpus in zip(changed, prepared, strict=True)}
    assert len(set(distinct.values())) == len(distinct) > 5
    assert corpora.prepare(Component("word_chain"), "").chain == WordChain()


def test_more_training_documents_are_the_same_and_further_ones():
    larger = dataclasses.replace(SMALL, train_documents=400)
    few, many = (corpora.prepare(Component("word_chain", chain=chain), "") for chain in (SMALL, larger))
    assert [len(corpus.split("train")) for corpus in (few, many)] == [300, 400]
    texts = []
    for name in ("train", "validation"):
        less, more = few.split(name), many.split(name)
        texts += [less[i] for i in range(20)]
        assert texts[-20:] == [more[i] for i in range(20)]
    assert all(a != b for a, b in itertools.combinations(texts, 2))


def test_it_becomes_tokens_like_any_corpus(tmp_path):
    config = DataConfig(components=(Component("word_chain", chain=SMALL),), sequence_length=32)
    data = pipeline.prepare(config, str(tmp_path), lambda _: None)
    source = WordChainSource(SMALL)
    assert info.info(config, str(tmp_path))["fingerprint"] == data.fingerprint
    assert len(data.validation) == 20
    assert len(data.train) == 300
    for i in range(3):
        assert data.tokenizer.decode(data.validation[i]) == source[int(data.validation.index_of[i])]
        assert data.tokenizer.decode(data.train[i]) == source[20 + int(data.train.index_of[i])]


def test_a_configuration_carries_it():
    config = DataConfig(components=(Component("word_chain", chain=SMALL),))
    assert config_lib.from_dict(DataConfig, config_lib.to_dict(config)) == config
    assert config_lib.identity(config) != config_lib.identity(DataConfig(components=(Component("word_chain"),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": 1}, "words=1 .* 2 .* 67,108,864"),
        ({"words": 1 << 40}, "words=1099511627776"),
        ({"successor": 1.0}, "successor=1 "),
        ({"successor": -0.1}, "successor=-0.1"),
        ({"exponent": -1.0}, "exponent=-1"),
        ({"exponent": float("nan")}, "exponent=nan"),
        ({"lag": 0}, "lag=0"),
        ({"words_per_document": 0.5}, "words_per_document=0.5"),
        ({"validation_documents": 0}, "validation_documents"),
    ],
)
def test_parameters_without_a_meaning_are_one_clear_line(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        corpora.prepare(Component("word_chain", chain=dataclasses.replace(SMALL, **changes)), "")
    assert "\n" not in str(caught.value)


def test_a_chain_belongs_to_its_corpus(tmp_path):
    with pytest.raises(UserError, match="word_chain"):
        corpora.prepare(Component("python_sources", chain=SMALL), str(tmp_path))
    with pytest.raises(UserError, match="text_files"):
        corpora.prepare(Component("word_chain", ("a.txt",)), str(tmp_path))
    with pytest.raises(UserError, match="word_chain"):
        corpora.prepare(Component("word_chian"), str(tmp_path))
