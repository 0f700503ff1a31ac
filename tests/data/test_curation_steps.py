"""Steps that look at one document: addresses and lines, languages, personal data, contamination, and rules of one's own."""

import dataclasses
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data.curation import contamination, language, pii, recipes, web
from lm.data.curation.apply import apply
from lm.data.curation.document import Document, Drop
from lm.data.curation.ledger import SAMPLES, Account
from lm.data.curation.steps import from_json, to_json
from lm.errors import UserError


def verdict(step, text="some text", **metadata):
    """The rule that drops a document, or its text."""
    found = step.apply(Document(text, "here", metadata), Account(step.name))
    return found.rule if isinstance(found, Drop) else found.text


def test_documents_go_by_domain_and_by_word(tmp_path):
    (tmp_path / "list.txt").write_text("# bad ones\nBad.example  # worst\n*.worse.example\n")
    step = web.URL(domains=("spam.example",), words=("casino",), lists=(str(tmp_path / "list.txt"),))
    for url, rule in {
        "https://spam.example/a": "domain",
        "http://www.SPAM.example:80/": "domain",
        "bad.example/x": "domain",
        "https://a.b.worse.example": "domain",
        "https://notspam.example/": None,
        "https://good.example/spam.example": None,
        "https://good.example/Casino-royal": "word in the url",
        "https://good.example/casinos": None,
        "http://[broken/": None,
    }.items():
        assert verdict(step, url=url) == (rule or "some text"), url
    assert (verdict(step), verdict(web.URL(required=True)), verdict(web.URL(required=True), url="")) == ("some text", "no url", "no url")
    with pytest.raises(UserError, match=r"none\.txt"):
        web.URL(lists=(str(tmp_path / "none.txt"),)).check()


def test_lines_go_by_pattern():
    step = web.Lines(patterns=("^Share", "copyright"), least_words=2)
    kept, [account] = apply([Document("Share this\n\na b\nc\nno copyright here\n d e", "x"), Document("c", "y")], [step])
    assert [document.text for document in kept] == ["\na b\n d e"]
    assert {rule: tally.pieces for rule, tally in account.changes.items()} == {
        "line that matches ^Share": 1,
        "line that matches copyright": 1,
        "line of few words": 2,
    }
    with pytest.raises(UserError, match=r"lines\.patterns"):
        web.Lines(patterns=("(",)).check()


PERSONAL = [
    ("Write to jane.doe+x@mail.example.co.uk.", "Write to email@example.com."),
    ("<a@b.example>, (c_d@e.example)", "<email@example.com>, (email@example.com)"),
    ("at @name, a@b, 1@2.3", None),
    ("from 8.8.8.8, and [2001:4860:4860::8888]:53", "from 192.0.2.1, and [192.0.2.1]:53"),
    ("10.0.0.1 127.0.0.1 192.168.1.254 172.16.0.1 169.254.1.1 ::1 fe80::1 fc00::1", None),  # nobody else reaches these
    ("version 1.2.3.4.5, 300.1.1.1, 12:30:45, a::b", None),
    ("card 4111 1111 1111 1111, or 5500-0000-0000-0004.", "card 0000 0000 0000 0000, or 0000 0000 0000 0000."),
    ("378282246310005", "0000 0000 0000 0000"),
    ("4111 1111 1111 1112", None),  # one digit off
    ("0000000000000000 1234567812345670", None),  # of no issuer
    ("call +44 20 7946 0958, (212) 555-0187, 212.555.0187 or 1-212-555-0187", "call 555-0100, 555-0100, 555-0100 or 555-0100"),
    ("1999-2004, 555-0187, 3.14159, 2026-11-28, 1,234,567, 100 000 000, +12", None),
]


@pytest.mark.parametrize(("text", "expected"), PERSONAL, ids=[text[:24] for text, _ in PERSONAL])
def test_personal_data_are_replaced(text, expected):
    assert verdict(pii.PII(), text) == (expected or text)


@given(st.text(st.sampled_from("0123456789+-(). @a:#\n4"), max_size=60))
@settings(max_examples=60, deadline=None)
def test_what_was_replaced_stays_as_it_is(text):
    once = verdict(pii.PII(), text)
    assert verdict(pii.PII(), once) == once


@given(st.integers(10**14, 10**15 - 1))
@settings(max_examples=50, deadline=None)
def test_luhn_takes_one_last_digit_of_ten(number):
    assert sum(pii.is_card(f"4{number:015d}{digit}") for digit in range(10)) == 1


def test_samples_of_personal_data_do_not_hold_them():
    _, [account] = apply([Document("mail jane@mail.example now", "x")], [pii.PII()])
    assert "jane" not in json.dumps(account.to_json())


@pytest.mark.parametrize("part", ["=", "a.", "a@", "1-", "1 ", "1.", "a:", ":", "+1"])
def test_long_runs_of_signs_take_time_in_proportion(part):
    """Looked at anew from each sign, they would take hours."""
    begin = time.process_time()
    verdict(pii.PII(), part * 100_000 + "@1")
    assert time.process_time() - begin < 5


def test_an_empty_replacement_leaves_a_kind_alone():
    assert verdict(pii.PII(email=""), "a@b.example 8.8.8.8") == "a@b.example 192.0.2.1"


@pytest.mark.parametrize(("probability", "rule"), [(0.65, None), (0.6499, "language not certain")])
def test_the_threshold_of_languages_is_kept(monkeypatch, probability, rule):
    monkeypatch.setattr(language, "identify", lambda text: ("en", probability))
    assert verdict(language.Language()) == (rule or "some text")
    assert verdict(language.Language(languages=("de",))) == "another language"
    kept, [account] = apply([Document("x", "x")], [language.Language(least=0.1)])
    assert kept[0].metadata == {"language": "en", "language_probability": probability}
    assert account.histograms["language"] == {"en": 1}


def test_languages_are_told_apart():
    pytest.importorskip("py3langid")
    language.Language().check()
    assert verdict(language.Language(), "Der Zug fährt heute nicht, weil es in der Nacht geschneit hat.") == "another language"
    assert verdict(language.Language(), text := "The train does not run today because it snowed during the night.") == text
    with pytest.raises(UserError, match="english"):
        language.Language(languages=("english",)).check()


def test_text_is_repaired():
    pytest.importorskip("ftfy")
    language.Repair().check()
    assert verdict(language.Repair(), "schÃ¶n &amp; “gut”") == 'schön & "gut"'


@pytest.mark.parametrize(("step", "module"), [(language.Repair(), "ftfy"), (language.Language(), "py3langid")])
def test_a_library_that_is_missing_is_named(monkeypatch, step, module):
    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=module):
        step.check()


def numbered(begin, count):
    return " ".join(f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(begin, begin + count))


@pytest.mark.parametrize(("shared", "goes"), [(13, True), (12, False)])
def test_documents_with_thirteen_words_of_an_evaluation_set_go(tmp_path, shared, goes):
    sets = tmp_path / "sets.jsonl"
    sets.write_text(json.dumps({"text": numbered(0, 40)}) + "\n" + json.dumps({"text": "too short an item"}))
    step = contamination.Contamination(paths=(str(sets),))
    step.check()
    document = f"{numbered(100, 20)} {numbered(20, shared).upper().replace(' ', ', ')}! {numbered(200, 20)} too short an item"
    assert verdict(step, document) == ("text of sets.jsonl" if goes else document)


@pytest.mark.parametrize(("words", "goes"), [(8, True), (7, False)])
def test_items_of_fewer_words_are_looked_for_as_a_whole(tmp_path, words, goes):
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": numbered(0, words)}) + "\n" + json.dumps({"q": numbered(300, 30)}))
    step = contamination.Contamination(paths=(str(tmp_path / "a.jsonl"),), field="q")
    document = f"{numbered(100, 20)} {numbered(0, words)} {numbered(200, 20)}"
    assert verdict(step, document) == ("text of a.jsonl" if goes else document)


OWN = """
import dataclasses
from typing import ClassVar
from lm.data.curation.document import Drop
from lm.data.curation.gopher import GopherQuality
from lm.data.curation.steps import Step, register

@register
@dataclasses.dataclass(frozen=True)
class Shouting(Step):
    name: ClassVar[str] = "shouting"
    most: float = 0.3

    def apply(self, document, notes):
        return Drop("capitals") if sum(map(str.isupper, document.text)) > self.most * len(document.text) else document

steps = (Shouting(), GopherQuality(least_words=1))
loud = [Shouting(most=2.0)]
"""


def test_own_rules_come_from_a_file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    steps = recipes.read(str(path), ["shouting.most=0.4", "gopher_quality.least_words=2"])
    assert [to_json(step)["name"] for step in steps] == ["shouting", "gopher_quality"]
    assert (steps[0].most, steps[1].least_words) == (0.4, 2)
    assert (verdict(steps[0], "ABCDe"), verdict(steps[0], "ABcde")) == ("capitals", "ABcde")
    assert recipes.read(f"{path}:loud")[0].most == 2.0
    (tmp_path / "own.json").write_text(json.dumps([{"name": "shouting", "most": 0.1}, {"name": "c4_quality"}]))
    assert [step.name for step in recipes.read(str(tmp_path / "own.json"))] == ["shouting", "c4_quality"]


def test_steps_survive_json():
    for step in {step.name: step for steps in recipes.RECIPES.values() for step in steps}.values():
        assert from_json(json.loads(json.dumps(to_json(step)))) == step


WRONG = [
    ("gofer_quality", [], "gopher_quality"),
    ("minhash", ["minhash.bucket=3"], "buckets"),
    ("minhash", ["minhash.buckets=many"], "minhash.buckets"),
    ("minhash", ["c4_quality.terminal=true"], "c4_quality"),
    ("none.py", [], "none.py"),
    (",", [], "no step"),
]


@pytest.mark.parametrize(("text", "settings", "named"), WRONG, ids=[named for *_, named in WRONG])
def test_what_is_wrong_with_steps_is_said(text, settings, named):
    with pytest.raises(UserError, match=named):
        recipes.read(text, settings)


@pytest.mark.parametrize(
    ("source", "named"), [("steps = (1,)", "1"), ("x = 1", "'steps'"), ("steps = [", "SyntaxError"), ("import nothing", "nothing")]
)
def test_what_is_wrong_with_a_file_of_steps_is_said(tmp_path, source, named):
    (tmp_path / "own.py").write_text(source)
    with pytest.raises(UserError, match=named):
        recipes.read(str(tmp_path / "own.py"))


def test_samples_do_not_depend_on_the_order_and_add_up():
    documents = [Document(f"{n} letters", f"name {n}") for n in range(70)]
    step = web.URL(required=True)
    _, [whole] = apply(documents, [step])
    parts = Account("url")
    for part in (documents[50:], documents[:20], documents[20:50]):
        parts.merge(json.loads(json.dumps(apply(part[::-1], [step])[1][0].to_json())))
    assert parts.to_json() == whole.to_json()
    assert len(whole.to_json()["samples"]["no url"]) == SAMPLES
    assert whole.dropped["no url"].documents == 70


def test_a_step_that_fails_is_named_with_the_document():
    @dataclasses.dataclass(frozen=True)
    class Broken(web.Lines):
        name = "broken"

        def apply(self, document, notes):
            return document.metadata["absent"]

    with pytest.raises(UserError, match=r"broken.*doc 7.*absent"):
        apply([Document("text", "doc 7")], [Broken()])
    with pytest.raises(UserError, match=r"broken.*None.*doc 7"):
        apply([Document("text", "doc 7", {"absent": None})], [Broken()])
