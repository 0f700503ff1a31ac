"""Duplicates: exact ones against sets, clusters on disk against those in memory, and MinHash against the probability that it promises."""

import math

import numpy as np
import pytest

from lm.data.curation import clusters, comparing
from lm.data.curation.apply import apply
from lm.data.curation.document import Document


def kept(step, *texts):
    documents = [Document(text, str(n)) for n, text in enumerate(texts)]
    result, [account] = apply(documents, [step])
    return [document.text for document in result], account


def test_the_first_of_equal_documents_stays():
    texts, account = kept(comparing.ExactDocuments(), "a b", "c", " a b\n", "c", "A b")
    assert texts == ["a b", "c", "A b"]
    assert account.dropped["equal to one before"].documents == 2


def test_paragraphs_that_stand_before_go():
    texts, account = kept(comparing.ExactParagraphs(), "a\n\nb\n \nc", "b\n\nd\ne", "c\n\na", "\n\nd\ne\n\nf\n\nf\n")
    assert texts == ["a\n\nb\n \nc", "d\ne", "f"]
    assert (account.changes["paragraph that stands before"].pieces, account.dropped["nothing left"].documents) == (5, 1)


def test_short_paragraphs_may_stay():
    assert kept(comparing.ExactParagraphs(shortest=3), "ab\n\nabc", "ab\n\nabc\n\nx")[0] == ["ab\n\nabc", "ab\n\nx"]


@pytest.mark.parametrize("memory", [1 << 30, 160])
def test_clusters_are_the_connected_components_whatever_the_memory_and_the_files(tmp_path, memory):
    draw = np.random.default_rng(3)
    keys = draw.integers(0, 60, (3, 100)).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = np.arange(100)  # the least item that can be reached
    for _ in range(100):
        for place in keys:
            for key in np.unique(place):
                expected[place == key] = expected[place == key].min()
    paths = [str(tmp_path / f"{n}.npy") for n in range(4)]
    for path, part in zip(paths, np.split(keys, [30, 30, 77], axis=1), strict=True):
        np.save(path, part)
    found = clusters.of_files(paths, str(tmp_path / "out.npy"), memory)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    np.testing.assert_array_equal(clusters.of_keys(keys), expected)
    assert 1 < len(np.unique(expected)) < 60


def pair(shared, single, seed):
    """Two texts whose sets of single words have the Jaccard index shared / (shared + single)."""
    name = [
        f"{seed}x{chr(97 + n % 26)}{chr(97 + n // 26)}".translate({48 + d: "qwertyuiop"[d] for d in range(10)})
        for n in range(shared + single)
    ]
    cut = shared + single // 2
    return " ".join(name[:cut]), " ".join(name[:shared] + name[cut:])


@pytest.mark.parametrize(("shared", "single"), [(70, 30), (75, 25), (80, 20), (85, 15)])
def test_minhash_finds_pairs_with_the_probability_that_is_stated(shared, single):
    """The Jaccard index is exact: the n-grams are single words. Of 400 pairs the share found is within four standard errors of P(s)."""
    step, pairs = comparing.MinHash(ngram=1), 400
    documents = [Document(text, f"{n}.{m}") for n in range(pairs) for m, text in enumerate(pair(shared, single, n))]
    sets = [set(document.text.split()) for document in documents[:2]]
    s = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert s == shared / (shared + single)
    _, [account] = apply(documents, [step])
    p = step.probability(s)
    assert p == pytest.approx({0.7: 0.564, 0.75: 0.772, 0.8: 0.924, 0.85: 0.988}[s], abs=6e-4)
    found = account.dropped["resembles one before"].documents / pairs
    assert abs(found - p) < 4 * math.sqrt(p * (1 - p) / pairs), (found, p)


def test_minhash_finds_edited_texts_with_the_probability_that_is_stated():
    """Of 300 texts of 120 words, each beside a copy in which words were changed; 5-grams, and the exact Jaccard index of each pair."""
    draw, step = np.random.default_rng(1), comparing.MinHash()
    letters = np.asarray(list("abcdefghijklmnop"))
    documents, index = [], []
    for n in range(300):
        words = ["".join(each) for each in letters[draw.integers(0, 16, (120, 6))]]
        copy = [word if keep else "edited" for word, keep in zip(words, draw.random(120) > draw.uniform(0.002, 0.06), strict=True)]
        documents += [Document(" ".join(words), f"{n}a"), Document(" ".join(copy), f"{n}b")]
        one, two = ({tuple(text[i : i + 5]) for i in range(116)} for text in (words, copy))
        index.append(len(one & two) / len(one | two))
    keys = step.keys(documents)
    found = (keys[:, ::2] == keys[:, 1::2]).any(axis=0)
    p = np.asarray([step.probability(s) for s in index])
    assert 0.2 < p.mean() < 0.95
    assert abs(found.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_minhash_looks_through_case_punctuation_accents_and_numbers():
    words = [f"word{chr(97 + n)}" for n in range(20)]
    other = " ".join(words).replace("wordb", "Wordb,").replace("wordc", "wôrdc") + " 17"
    assert kept(comparing.MinHash(), " ".join(words) + " 4", other)[1].dropped["resembles one before"].documents == 1
    assert len(kept(comparing.MinHash(), "!", "?", "...", " ".join(words), " ".join(reversed(words)))[0]) == 5
