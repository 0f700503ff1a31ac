"""Every threshold of the published rules holds at its value, and one step beyond it the document goes under that rule."""

import itertools

import pytest

from lm.data.curation import c4, fineweb, gopher
from lm.data.curation.apply import apply
from lm.data.curation.document import Document, Drop
from lm.data.curation.ledger import Account


def word(number, length):
    """A word of so many letters, another one for each number of up to 399."""
    letters = "bcdfghjklmnpqrstvwxz"
    high, low = divmod(number, 20)
    return (letters[low] + letters[high] * (high > 0)).ljust(length, "y")


def filler(length, start=0):
    """Text of exactly so many characters, of words of nine letters that all differ."""
    text = " ".join(word(n, 9) for n in range(start, start + length // 10 + 1))
    return text[:length] if text[length - 1] != " " else text[: length - 1] + "y"


def prose(words):
    return " ".join(["that", "with", *("walk" for _ in range(words - 2))])


def mean_length(letters):
    """Fifty words of so many letters in all."""
    low, more = divmod(letters, 50)
    return " ".join("abcdefghijkl"[: low + (n < more)] for n in range(50))


def marked(mark, count, of, text="that with {}"):
    """So many lines, a number of which have a mark around their texts, which differ."""
    return "\n".join((mark if n < count else "{}").format(text.format(filler(40, 10 * n))) for n in range(of))


def with_repeats(gap, count):
    """Ten parts between gaps, so many of which are repeats of a short one."""
    return gap.join([filler(80, 20 * n) for n in range(9 - count)] + ["b"] * (count + 1))


def with_repeated_characters(gap, total):
    """Four parts, of so many characters with the gaps, 10 of which are in a repeat."""
    part = filler(10)
    return gap.join([part, part, filler(12, 50), filler(total - 32 - 3 * len(gap), 60)])


def with_ngram(n, letters, times, total):
    """Text of so many characters in which n words of so many letters stand several times in a row, and others once."""
    part = " ".join([word(k, letters) for k in range(n)] * times)
    return f"{part} {filler(total - len(part) - 1, 100)}"


QUALITY, REPETITION, FINEWEB = gopher.GopherQuality(), gopher.GopherRepetition(), fineweb.FineWeb()
WORDS, REPEATED = gopher.GopherQuality(least_stop_words=0), gopher.GopherRepetition(top=())

# step, rule, text made from a number, the number at the threshold, the one a step beyond it
EDGES = [
    (QUALITY, "too few words", prose, 50, 49),
    (QUALITY, "too many words", prose, 100_000, 100_001),
    (WORDS, "short words", mean_length, 150, 149),
    (WORDS, "long words", mean_length, 500, 501),
    (QUALITY, "hash signs", lambda k: prose(99) + " b" + "#" * k, 10, 11),
    (QUALITY, "ellipses", lambda k: prose(99) + " b" + "..." * k, 10, 11),
    (QUALITY, "ellipses", lambda k: prose(99) + " b" + "…" * k, 10, 11),
    (QUALITY, "bullet lines", lambda k: marked("- {}", k, 10), 9, 10),
    (QUALITY, "bullet lines", lambda k: marked("  •{}", k, 10), 9, 10),
    (QUALITY, "lines that end in an ellipsis", lambda k: marked("{}...", k, 10), 3, 4),
    (QUALITY, "lines that end in an ellipsis", lambda k: marked("{}… ", k, 10), 3, 4),
    (QUALITY, "words without letters", lambda k: prose(100 - k) + " 1999" * k, 20, 21),
    (QUALITY, "too few stop words", lambda k: "walk " * 60 + "the the of"[: 4 * k], 3, 2),
    (REPETITION, "repeated lines", lambda k: with_repeats("\n", k), 3, 4),
    (REPETITION, "repeated paragraphs", lambda k: with_repeats("\n\n", k), 3, 4),
    (REPETITION, "characters of repeated lines", lambda k: with_repeated_characters("\n", k), 50, 49),
    (REPETITION, "characters of repeated paragraphs", lambda k: with_repeated_characters("\n\n", k), 50, 49),
    (REPETITION, "top 2-gram", lambda k: with_ngram(2, 2, 2, k), 50, 49),
    (REPETITION, "top 3-gram", lambda k: with_ngram(3, 2, 9, k), 400, 399),
    (REPETITION, "top 4-gram", lambda k: with_ngram(4, 2, 4, k), 275, 274),
    (REPEATED, "repeated 5-grams", lambda k: with_ngram(5, 3, 2, k), 100, 99),
    (REPEATED, "repeated 6-grams", lambda k: with_ngram(6, 7, 2, k), 300, 299),
    (REPEATED, "repeated 7-grams", lambda k: with_ngram(7, 13, 2, k), 700, 699),
    (REPEATED, "repeated 8-grams", lambda k: with_ngram(8, 3, 2, k), 200, 199),
    (REPEATED, "repeated 9-grams", lambda k: with_ngram(9, 11, 2, k), 900, 899),
    (REPEATED, "repeated 10-grams", lambda k: with_ngram(10, 3, 2, k), 300, 299),
    (FINEWEB, "lines without terminal punctuation", lambda k: marked("{}.", k, 25), 3, 2),
    (FINEWEB, "short lines", lambda k: "\n".join(filler(30 if n < k else 31, 3 * n) + "."[n < k :] for n in range(100)), 67, 68),
    (FINEWEB, "short lines", lambda k: "\n".join(filler(k - 1, 9 * n) + "." for n in range(9)), 31, 30),
    (FINEWEB, "characters of repeated lines", lambda k: "\n".join(["that was.", "that was.", filler(k - 19, 9) + "."]), 900, 899),
    (FINEWEB, "newlines", lambda k: filler(999) + "." + "\n" * k, 30, 31),
    (c4.C4(), "too few sentences", lambda k: "\n".join(["he said so."] * k), 5, 4),
    (c4.C4(), "too few sentences", lambda k: " ".join(['he said "so."'] * k), 5, 4),
]


@pytest.mark.parametrize(
    ("step", "rule", "make", "at", "beyond"), EDGES, ids=[f"{step.name}: {rule} {at}" for step, rule, _, at, _ in EDGES]
)
def test_a_threshold_is_kept_to_the_step(step, rule, make, at, beyond):
    verdicts = [step.apply(Document(make(number)), Account(step.name)) for number in (at, beyond)]
    assert [isinstance(each, Drop) and each.rule == rule for each in verdicts] == [False, True], verdicts[0]


LINES = [
    ("line of few words", "he said.", "he said so."),
    ("line with a long word", "he said " + "y" * 1_000 + ".", "he said " + "y" * 999 + "."),
    ("line without terminal punctuation", "he said so;", 'he said "so"'),
    ("line without terminal punctuation", "he said so...", "he said so .. ."),
    ("line with javascript", "Please turn JavaScript on.", "Please turn scripts on."),
    ("line of a policy", "Read our Privacy Policy.", "Read our policy."),
]


@pytest.mark.parametrize(("rule", "bad", "good"), LINES, ids=[rule for rule, *_ in LINES])
def test_lines_that_c4_takes_out(rule, bad, good):
    rest = "He went there. She saw it. They all left. It was late. Nobody came."
    kept, [account] = apply([Document(f"{bad}\n{good}\n{rest}", "a")], [c4.C4()])
    assert kept[0].text == f"{good}\n{rest}"
    assert {name: tally.pieces for name, tally in account.changes.items()} == {rule: 1}
    assert account.to_json()["samples"][rule][0]["text"] == bad


@pytest.mark.parametrize(("rule", "line"), [("lorem ipsum", "Lorem ipsum dolor sit."), ("curly bracket", "if (a) { return b; }.")])
def test_documents_that_c4_drops_for_a_line(rule, line):
    rest = "He went there [3]. She saw it. They all left. It was late. Nobody came."
    assert c4.C4().apply(Document(f"{rest}\n{line}"), Account("c4")).rule == rule
    assert c4.C4().apply(Document(rest), Account("c4")).text == rest.replace(" [3]", " ")


def test_fineweb_leaves_the_rule_of_line_ends_off():
    text = "He went there. She saw it. They all left. It was late.\nNobody came that day"
    assert c4.C4(terminal=False).apply(Document(text), Account("c4")).text == text


def test_repeated_ngrams_are_those_of_the_definition():
    """The search skips what cannot repeat; here it is compared with the definition, over texts of few words, which repeat in every way."""
    draw = itertools.count()
    for seed in range(200):
        words = [f"w{hash((seed, next(draw))) % (2 + seed % 7)}" for _ in range(3 + seed % 30)]
        ngrams = gopher._NGrams(words)
        for n in (2, 3, 4):
            parts = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
            top = max(parts, key=parts.count, default="")
            assert ngrams.top(n) == len(top) * parts.count(top)
        for n in range(5, 11):
            seen, total, at = set(), 0, 0
            while at + n <= len(words):
                part = tuple(words[at : at + n])
                total, at = (total + sum(map(len, part)), at + n) if part in seen else (total, at + 1)
                seen.add(part)
            assert ngrams.repeated(n, -1.0) == total
