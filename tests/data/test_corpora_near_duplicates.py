"""MinHash: the estimate is the Jaccard index; clusters hold what resembles and nothing else."""

import random

import numpy as np

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
