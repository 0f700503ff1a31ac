"""Applies steps to documents that are at hand. lm.data.curation.run does so to corpora that are not."""

from collections.abc import Iterable, Sequence
from typing import Optional, Union

import numpy as np

from lm.data.curation import clusters
from lm.data.curation.document import Document, Drop
from lm.data.curation.ledger import Account
from lm.data.curation.steps import ComparingStep, Step
from lm.errors import UserError, one_line


def apply(documents: Iterable[Document], steps: Sequence[Step]) -> tuple[list[Document], list[Account]]:
    """Returns the documents that pass all steps, in order, and the account of each step."""
    kept, accounts = list(documents), [Account(step.name) for step in steps]
    for step, account in zip(steps, accounts, strict=True):
        kept = compare(kept, step, account) if isinstance(step, ComparingStep) else list(passing(kept, step, account))
    return kept, accounts


def passing(documents: Iterable[Document], step: Step, account: Account) -> Iterable[Document]:
    """Yields what a step that looks at one document at a time makes of each."""
    for document in documents:
        size = document.size
        account.begin(document, size)
        try:
            verdict = step.apply(document, account)
        except Exception as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            raise UserError(f"the step {step.name} fails on the document {document.name} ({what}); mend it, or leave it out") from error
        if not isinstance(verdict, (Document, Drop)):
            raise UserError(f"the step {step.name} returns {verdict!r:.80} for {document.name}; let apply return the document or a Drop")
        passed = settle(document, verdict, size, account)
        if passed is not None:
            yield passed


def compare(documents: list[Document], step: ComparingStep, account: Account, first: Optional[np.ndarray] = None) -> list[Document]:
    """Returns what a step that compares documents makes of them.

    Args:
      first: for each item of the documents whether it is the first of its cluster in the corpus (default: these are the corpus).
    """
    if first is None:
        label = clusters.of_keys(step.keys(documents))
        first = label == np.arange(len(label))
    kept, begin = [], 0
    for document in documents:
        size, count = document.size, len(step.items(document))
        account.begin(document, size)
        passed = settle(document, step.keep(document, first[begin : begin + count], account), size, account)
        begin += count
        if passed is not None:
            kept.append(passed)
    return kept


def settle(document: Document, verdict: Union[Document, Drop], size: int, account: Account) -> Optional[Document]:
    """Enters a step's verdict on a document of `size` bytes in its account. A document that lost all its text is dropped as empty."""
    if isinstance(verdict, Document) and not verdict.text.strip():
        verdict = Drop("nothing left")
    if isinstance(verdict, Drop):
        account.drop(verdict, size)
        return None
    account.end(size if verdict is document else verdict.size)
    return verdict
