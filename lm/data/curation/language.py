"""Repair of text that was decoded wrongly, and the language of a document. Both need libraries: `pip install '.[curation]'`."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from typing import ClassVar, Union

from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import Notes, Step, register
from lm.errors import UserError


def _require(module: str, step: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UserError(f"the step {step} needs {module}: pip install '.[curation]', or leave {step} out of --steps")


@register
@dataclasses.dataclass(frozen=True)
class Repair(Step):
    """Text is repaired by ftfy: characters decoded as of another encoding, HTML entities, ligatures, curly quotes, control characters."""

    name: ClassVar[str] = "repair"

    uncurl_quotes: bool = True
    normalization: str = "NFC"  # of Unicode

    def check(self) -> None:
        _require("ftfy", self.name)
        if self.normalization not in ("NFC", "NFKC", "NFD", "NFKD"):
            raise UserError(f"repair.normalization takes NFC, NFKC, NFD or NFKD, not {self.normalization!r}")

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        import ftfy

        text = ftfy.fix_text(document.text, uncurl_quotes=self.uncurl_quotes, normalization=self.normalization)
        if text != document.text:
            at = next((i for i, (old, new) in enumerate(zip(document.text, text, strict=False)) if old != new), 0)
            notes.changed("repaired text", document.text[max(at - 40, 0) : at + 40])
        return document.with_text(text)


@register
@dataclasses.dataclass(frozen=True)
class Language(Step):
    """Documents go that are not in one of the languages, by py3langid. What was found is put into the metadata.

    FineWeb's threshold is for the scores of another classifier, fastText's; those of py3langid are probabilities too.
    """

    name: ClassVar[str] = "language"

    languages: tuple[str, ...] = ("en",)  # codes of ISO 639-1; none: all stay
    least: float = 0.65  # probability of the language
    characters: int = 4_000  # of the document's beginning that are looked at

    def check(self) -> None:
        _require("py3langid", self.name)
        unknown = set(self.languages) - set(_identifier().labels)
        if unknown:
            raise UserError(f"language.languages: py3langid does not know {min(unknown)!r}; codes are those of ISO 639-1, such as en")

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        language, probability = identify(document.text[: self.characters])
        notes.found("language", language)
        if self.languages and language not in self.languages:
            return Drop("another language", f"{language}, {probability:.2f}")
        if self.languages and probability < self.least:
            return Drop("language not certain", f"{language}, {probability:.2f}")
        known = {"language": language, "language_probability": round(probability, 4)}
        return dataclasses.replace(document, metadata={**document.metadata, **known})


def identify(text: str) -> tuple[str, float]:
    """Returns the code of the likeliest language of a text, and its probability."""
    language, probability = _classifier()(text)
    return str(language), float(probability)


@functools.cache
def _identifier():
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


@functools.cache
def _classifier() -> Callable[[str], tuple[str, float]]:
    return _identifier().classify
