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
