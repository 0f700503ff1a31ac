"""MinHash: the estimate is the Jaccard index; clusters hold what resembles and nothing else."""

import random

import numpy as np
import pytest

from lm.data.corpora import near_duplicates


def _lines(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    return [f"value_{rng.randrange(10**9)} = {rng.randrange(10**9)}" for _ in range(count)]


def _shingle_set(text: str) -> set[tuple[str, ...]]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return {tuple(lines[i : i + 5]) for i in range(max(len(lines) - 4, 1))}


def test_signatures_estimate_the_jaccard_index():
    base = _lines(0, 400)
    texts = ["\n".join(base[:200] + _lines(k, k * 25)) for k in range(1, 9)]
    signatures = near_duplicates.signatures(texts)
    for i in range(len(texts)):
        for j in range(i):
            a, b = _shingle_set(texts[i]), _shingle_set(texts[j])
            exact = len(a & b) / len(a | b)
            error = np.sqrt(exact * (1 - exact) / near_duplicates.HASHES)
            assert abs((signatures[i] == signatures[j]).mean() - exact) < 4.5 * error + 1e-9


def test_clusters_join_edited_copies_and_leave_strangers_apart():
    texts = ["\n".join(_lines(seed, 80)) for seed in range(60)]
    edited = texts[7].split("\n")
    edited[40] = "something else"
    texts += ["\n".join("    " + line for line in texts[3].split("\n")), "\n\n".join(edited)]
    expected = np.arange(62)
    expected[60], expected[61] = 3, 7
    np.testing.assert_array_equal(near_duplicates.clusters(texts), expected)


def test_clusters_do_not_depend_on_the_order_of_documents():
    texts = ["\n".join(_lines(seed // 2, 30) + _lines(100 + seed, 5)) for seed in range(40)]
    order = np.random.default_rng(0).permutation(len(texts))
    straight = near_duplicates.clusters(texts)
    permuted = near_duplicates.clusters([texts[i] for i in order])
    same = straight[:, None] == straight[None, :]
    np.testing.assert_array_equal(same[np.ix_(order, order)], permuted[:, None] == permuted[None, :])
    assert len(np.unique(straight)) == 20


def test_short_and_empty_documents_are_one_shingle():
    clusters = near_duplicates.clusters(["a\nb", " a \n\nb\n", "a\nc", "", "\n"])
    np.testing.assert_array_equal(clusters, [0, 0, 2, 3, 3])
    assert near_duplicates.clusters([]).shape == (0,)


def _words(rng: random.Random, count: int) -> list[str]:
    return [f"{rng.choice('bdfklmnprst')}{rng.choice('aeiou')}{rng.choice('bdfklmnprst')}{rng.randrange(30)}" for _ in range(count)]


def _word_shingles(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + 3]) for i in range(max(len(words) - 2, 1))}


def test_one_line_documents_that_differ_in_words_are_found_by_their_exact_resemblance():
    """Pairs with a Jaccard index above .6 are found and those below .4 are not, of 1,200 with 1 to 30 of 12 to 200 words changed."""
    rng = random.Random(0)
    texts, exact = [], []
    for _ in range(1200):
        words = _words(rng, rng.randint(12, 200))
        changed = list(words)
        for place in rng.sample(range(len(words)), rng.randint(1, min(30, len(words)))):
            changed[place] = f"changed{rng.randrange(10**6)}"
        a, b = " ".join(words), " ".join(changed)
        shingles = _word_shingles(a), _word_shingles(b)
        exact.append(len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1]))
        texts += [a, b]
    index = np.asarray(exact)
    cluster = near_duplicates.clusters(texts, by_words=True)
    found = cluster[::2] == cluster[1::2]
    assert len(np.unique(cluster)) == len(texts) - found.sum()  # no two pairs are joined
    assert (index > 0.6).sum() > 200
    assert (index < 0.4).sum() > 200
    assert found[index > 0.6].mean() >= 0.99
    assert found[index < 0.4].mean() <= 0.01
    assert len(np.unique(near_duplicates.clusters(texts))) == len(texts)  # lines alone see none of them


def test_a_word_changed_in_one_line_is_found_in_every_script():
    rng = random.Random(1)
    chinese = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(60))
    for words, glue in ((_words(rng, 60), " "), (list(chinese), "")):
        for lines in (1, 4, 20):  # with 20 lines, five shingles of lines are gone too
            words[20 :: 60 // lines] = [word + "\n" for word in words[20 :: 60 // lines]]
            changed = [*words[:30], "另", *words[31:]]
            assert near_duplicates.clusters([glue.join(words), glue.join(changed)], by_words=True).tolist() == [0, 0]


def test_documents_of_many_lines_are_compared_by_lines_alone(monkeypatch):
    monkeypatch.setattr(near_duplicates, "word_signatures", lambda texts: pytest.fail("words were compared"))
    texts = ["\n".join(_lines(seed, near_duplicates.FEW_LINES)) for seed in range(3)]
    np.testing.assert_array_equal(near_duplicates.clusters(texts, by_words=True), [0, 1, 2])


def test_batches_of_words_change_nothing(monkeypatch):
    texts = [" ".join(_words(random.Random(seed), 5 + seed)) for seed in range(12)]
    whole = near_duplicates.word_signatures(texts)
    monkeypatch.setattr(near_duplicates, "BATCH", 16)
    np.testing.assert_array_equal(near_duplicates.word_signatures(texts), whole)
    assert near_duplicates.word_signatures([]).shape == (0, near_duplicates.HASHES)
