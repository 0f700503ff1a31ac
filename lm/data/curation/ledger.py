"""The ledger of a pipeline: what each step read, dropped and changed, and samples of what goes.

Ledgers of parts of a corpus add up to that of the whole. Samples are those whose hashes, of rule and name, are least: a sample without
replacement that is the same whatever the number of processes and the order of their work.
"""

import collections
import dataclasses
import hashlib
import heapq
from typing import Any

from lm.data.curation.document import Document, Drop

SAMPLES = 20  # kept of each rule
EXCERPT = 2_000  # characters of a document that a sample keeps


@dataclasses.dataclass
class Tally:
    """Documents, their UTF-8 bytes, and pieces of them where only pieces go."""

    documents: int = 0
    bytes: int = 0
    pieces: int = 0

    def add(self, documents: int = 0, size: int = 0, pieces: int = 0) -> None:
        self.documents += documents
        self.bytes += size
        self.pieces += pieces


class Account:
    """What one step did. It takes the notes of the step on the present document."""

    def __init__(self, step: str):
        self.step = step
        self.read, self.kept = Tally(), Tally()
        self.dropped: dict[str, Tally] = collections.defaultdict(Tally)
        self.changes: dict[str, Tally] = collections.defaultdict(Tally)
        self.histograms: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._samples: dict[str, list[tuple[int, dict[str, Any]]]] = collections.defaultdict(list)
        self._present = Document("")
        self._rules: set[str] = set()  # that changed the present document

    def begin(self, document: Document, size: int) -> None:
        """Takes a document in."""
        self._present, self._rules = document, set()
        self.read.add(1, size)

    def end(self, size: int) -> None:
        """Lets the present document go on, with its new size."""
        self.kept.add(1, size)

    def drop(self, verdict: Drop, size: int) -> None:
        """Counts the present document under the rule that drops it."""
        self.dropped[verdict.rule].add(1, size)
        self._sample(verdict.rule, self._present.text, verdict.measured)

    def changed(self, rule: str, piece: str, count: int = 1) -> None:
        is_first = rule not in self._rules
        self.changes[rule].add(is_first, len(piece.encode()), count)
        if is_first:  # one piece of a document is sampled, so that no document fills the sample
            self._rules.add(rule)
            self._sample(rule, piece, "")

    def found(self, what: str, value: str) -> None:
        self.histograms[what][value] += 1

    def _sample(self, rule: str, text: str, measured: str) -> None:
        key = "\0".join((self.step, rule, self._present.name))
        rank = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big")
        kept = self._samples[rule]
        if len(kept) >= SAMPLES and rank >= kept[-1][0]:
            return
        sample = {"name": self._present.name, "measured": measured, "text": text[:EXCERPT], "characters": len(text)}
        url = self._present.metadata.get("url")
        self._keep(rule, [(rank, {**sample, "url": url} if isinstance(url, str) else sample)])

    def _keep(self, rule: str, more: list[tuple[int, dict[str, Any]]]) -> None:
        self._samples[rule] = heapq.nsmallest(SAMPLES, self._samples[rule] + more, key=lambda each: each[0])

    def merge(self, other: dict[str, Any]) -> None:
        """Adds what another process wrote down by `to_json`."""
        for mine, theirs in ((self.read, other["read"]), (self.kept, other["kept"])):
            mine.add(theirs["documents"], theirs["bytes"], theirs.get("pieces", 0))
        for tallies, more in ((self.dropped, other["dropped"]), (self.changes, other["changed"])):
            for rule, each in more.items():
                tallies[rule].add(each["documents"], each["bytes"], each.get("pieces", 0))
        for what, counts in other["histograms"].items():
            self.histograms[what].update(counts)
        for rule, samples in other["samples"].items():
            self._keep(rule, [(sample["rank"], {k: v for k, v in sample.items() if k != "rank"}) for sample in samples])

    def to_json(self) -> dict[str, Any]:
        """Returns the account as JSON, in an order that does not depend on that of the documents."""
        return {
            "step": self.step,
            "read": _plain(self.read),
            "kept": _plain(self.kept),
            "dropped": {rule: _plain(tally) for rule, tally in sorted(self.dropped.items())},
            "changed": {rule: _plain(tally) for rule, tally in sorted(self.changes.items())},
            "histograms": {what: dict(sorted(counts.items())) for what, counts in sorted(self.histograms.items())},
            "samples": {
                rule: [{**sample, "rank": rank} for rank, sample in samples] for rule, samples in sorted(self._samples.items()) if samples
            },
        }


def _plain(tally: Tally) -> dict[str, int]:
    return {key: value for key, value in dataclasses.asdict(tally).items() if value or key != "pieces"}
