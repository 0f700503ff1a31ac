"""The split keeps groups and clusters whole, does not depend on order, and its leak is measured."""

import collections
import random

import pytest

from lm.data.corpora import documents
from lm.data.corpora.documents import Document


def _text(seed: int, lines: int = 40) -> str:
    rng = random.Random(seed)
    return "\n".join(f"variable_{rng.randrange(10**9)} = compute({rng.randrange(10**9)}, {rng.randrange(10**9)})" for _ in range(lines))


def _grouped() -> list[Document]:
    small = [Document(f"p{g}/{i}", _text(100 * g + i), f"p{g}") for g in range(60) for i in range(1 + g % 3)]
    return small + [Document(f"big/{i}", _text(10**6 + i), "big") for i in range(60)]


def test_whole_groups_are_held_out_until_the_share_is_reached():
    result = documents.split(_grouped(), collections.Counter())
    groups = [{document.group for document in side} for side in (result.train, result.validation)]
    assert not groups[0] & groups[1]
    assert "big" in groups[0]
    total = sum(result.info["bytes"].values())
    assert documents.VALIDATION_SHARE <= result.info["bytes"]["validation"] / total < documents.VALIDATION_SHARE + 0.02
    assert result.info["held_out"] == sorted(groups[1])
    assert result.info["verbatim_share"] == 0


def test_split_does_not_depend_on_order():
    given = _grouped()
    shuffled = random.Random(0).sample(given, len(given))
    for made in (given, [Document(d.name, d.text) for d in given]):
        other = [next(d for d in made if d.name == s.name) for s in shuffled]
        sides = [{d.name for d in documents.split(order, collections.Counter()).validation} for order in (made, other)]
        assert sides[0] == sides[1]
        assert sides[0]


def test_no_near_duplicate_crosses_the_split():
    originals = [Document(f"a{i}", _text(i)) for i in range(60)]
    copies = [Document(f"b{i}", d.text.replace("\n", "\n\n", 3) + f"\nlast = {i}") for i, d in enumerate(originals)]
    result = documents.split(originals + copies, collections.Counter())
    number = [{d.name[1:] for d in side} for side in (result.train, result.validation)]
    assert not number[0] & number[1]
    assert result.info["near_duplicate_share"] == 1.0

    held_out = documents.split(_grouped(), collections.Counter()).validation[0]
    dropped: collections.Counter = collections.Counter()
    again = documents.split([*_grouped(), Document("big/copy", held_out.text + "\nx = 1", "big")], dropped)
    assert dropped["near-duplicate across the split"] == 1
    assert held_out.name not in {d.name for d in again.train + again.validation}


LICENCE = "\n".join(f"# licence line {i}: redistribution and use in source and binary forms are permitted" for i in range(10))


def _boilerplate(copies: int, others: int) -> list[Document]:
    """Documents of ten lines of a licence and six of their own, and documents of their own lines alone."""
    licensed = [Document(f"licensed/{i}", LICENCE + "\n" + _text(i, 6)) for i in range(copies)]
    return licensed + [Document(f"own/{i}", _text(10**6 + i, 12)) for i in range(others)]


def _share(result) -> float:
    return result.info["bytes"]["validation"] / sum(result.info["bytes"].values())


@pytest.mark.parametrize(("copies", "others"), [(200, 40), (40, 200)])
def test_a_cluster_of_boilerplate_stays_in_train(copies, others):
    given = _boilerplate(copies, others)
    result = documents.split(given, collections.Counter())
    assert {d.name.split("/")[0] for d in result.validation} == {"own"}
    assert documents.VALIDATION_SHARE / 2 <= _share(result) < 2 * documents.VALIDATION_SHARE
    assert (result.info["told_apart"], result.info["alike"]) == ("", False)
    largest = result.info["largest_clusters"][0]
    size, total = sum(d.size for d in given[:copies]), sum(d.size for d in given)
    assert (largest["documents"], largest["share"], largest["split"]) == (copies, pytest.approx(size / total), "train")
    assert largest["example"].startswith("licensed/")
    names = {d.name for d in result.validation}
    assert names == {d.name for d in documents.split(given[::-1], collections.Counter()).validation}


@pytest.mark.parametrize(("copies", "others"), [(200, 8), (30, 1), (60, 0)])
def test_documents_that_share_boilerplate_alone_are_held_out_where_there_are_few_others(copies, others):
    """A split of the others alone would not tell how well the text is predicted: most of it is what shares the boilerplate."""
    given = _boilerplate(copies, others)
    result = documents.split(given, collections.Counter())
    assert 0.5 * documents.VALIDATION_SHARE <= _share(result) < 2 * documents.VALIDATION_SHARE
    assert "licensed" in {d.name.split("/")[0] for d in result.validation}
    assert (result.info["told_apart"], result.info["alike"]) == ("closer", False)
    assert [each["split"] for each in result.info["largest_clusters"]] == ["both"]
    names = {d.name for d in result.validation}
    assert names == {d.name for d in documents.split(given[::-1], collections.Counter()).validation}


def _copies(seed: int, count: int) -> list[Document]:
    """Copies of one document of 60 lines, in each of which another line is changed."""
    lines = _text(seed, 60).split("\n")
    each = [[*lines[: i % 60], f"changed = {seed} + {i}", *lines[i % 60 + 1 :]] for i in range(count)]
    return [Document(f"{seed}/{i}", "\n".join(text)) for i, text in enumerate(each)]


@pytest.mark.parametrize("counts", [(200, 1), (120, 80), (200,), (70, 70, 70)])
def test_copies_are_never_held_out_from_one_another(counts):
    given = [document for seed, count in enumerate(counts) for document in _copies(seed, count)]
    result = documents.split(given, collections.Counter())
    assert result.info["alike"]  # which is refused
    assert _share(result) < documents.LEAST_SHARE
    clusters = [(each["documents"], each["split"]) for each in result.info["largest_clusters"]]
    assert clusters == [(count, "train") for count in sorted(counts, reverse=True) if count > 1]


@pytest.mark.parametrize("others", [20, 40])
def test_beside_copies_the_others_are_held_out(others):
    given = _copies(0, 120) + _copies(1, 80) + [Document(f"own/{i}", _text(10**6 + i, 60)) for i in range(others)]
    result = documents.split(given, collections.Counter())
    assert {d.name.split("/")[0] for d in result.validation} == {"own"}
    assert documents.VALIDATION_SHARE / 2 <= _share(result) < 2 * documents.VALIDATION_SHARE


def test_no_cluster_is_held_out_beyond_its_share():
    """Sets of two to forty copies each: whatever is held out whole has at most a tenth of the bytes."""
    for seed in range(6):
        rng = random.Random(seed)
        given = [document for number in range(rng.randrange(2, 9)) for document in _copies(100 * seed + number, rng.randrange(2, 40))]
        result = documents.split(given, collections.Counter())
        held, train = ({d.name.split("/")[0] for d in side} for side in (result.validation, result.train))
        assert not held & train
        total = sum(d.size for d in given)
        assert all(sum(d.size for d in given if d.name.split("/")[0] == each) <= documents.LARGEST_CLUSTER * total for each in held)
        assert result.info["alike"] == (not held)


@pytest.mark.parametrize(
    ("lines", "held"),
    [([40, 30, 20], "c"), ([40, 41, 42, 4], "d"), ([40, 41, 42, 2], "da")],  # of a share of 17%, 3.4% and 1.7% + 32%
)
def test_of_few_large_documents_the_smallest_are_held_out(lines, held):
    given = [Document(name, _text(i, count)) for i, (name, count) in enumerate(zip("abcd", lines, strict=False))]
    assert {d.name for d in documents.split(given, collections.Counter()).validation} == set(held)


@pytest.mark.parametrize("group", ["", "package"])
def test_two_documents_give_one_to_each_side(group):
    pair = [Document("a", _text(1), group and "first"), Document("b", _text(2), group and "second")]
    result = documents.split(pair, collections.Counter(), largest_group=1.0)
    assert len(result.train) == len(result.validation) == 1


def test_verbatim_shares_count_lines_with_their_repeats():
    long, other, short = "x" * 40, "y" * 40, "z" * 39
    train = [Document("t", f"{long}\n{short}\nimport os")]
    validation = [Document("v", f"    {long}\n{long}  \n{other}\n{short}\nimport os")]
    shares = documents.verbatim_shares(train, validation)
    assert shares[40] == (2 / 3, 3)
    assert shares[30] == shares[20] == (3 / 4, 4)
    assert shares[60] == (0.0, 0)


def test_repeats_keep_the_first():
    dropped: collections.Counter = collections.Counter()
    kept = documents.without_repeats([Document("a", "x"), Document("b", "x"), Document("c", "y")], dropped)
    assert [d.name for d in kept] == ["a", "c"]
    assert dropped["exact duplicate"] == 1


def test_pairs_of_one_line_stay_together_and_a_template_does_not_join_all():
    rng = random.Random(0)
    words = [f"{a}{b}{c}" for a in "bdfklm" for b in "aeiou" for c in "nprst"]
    lines = [[rng.choice(words) for _ in range(60)] for _ in range(60)]
    given = [Document(f"{side}{i}", " ".join([*line[:9], line[9] + side, *line[10:]])) for i, line in enumerate(lines) for side in "ab"]
    result = documents.split(given, collections.Counter())
    number = [{d.name[1:] for d in side} for side in (result.train, result.validation)]
    assert not number[0] & number[1]
    assert (result.info["clusters"], result.info["told_apart"]) == (60, "")

    alike = [Document(str(i), f"hello world this is a simple test document number {i}") for i in range(60)]
    forms = [Document(f"form {i}", " ".join([*words[:60], str(i)])) for i in range(60)]
    for given, how in ((alike, ("closer", "lines")), (forms + alike[:1], ("lines",))):
        result = documents.split(given, collections.Counter())
        assert result.info["told_apart"] in how
        assert 0.5 * documents.VALIDATION_SHARE <= _share(result) < 2 * documents.VALIDATION_SHARE
