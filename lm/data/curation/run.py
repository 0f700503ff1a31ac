"""Curates a corpus that does not fit into memory: passes over its documents, each in units that processes share.

A pass writes, for each unit, the documents that stay, the accounts of its steps, and the keys of the step that compares next. Between two
passes the keys of all units are joined to clusters. Whatever is done stays, so a curation that was killed goes on; the result does not
depend on the number of processes.
"""

import collections
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import numpy as np
from tqdm import tqdm

from lm.data import shared_work
from lm.data.corpora.faults import Faults
from lm.data.curation import apply, clusters, sources, store
from lm.data.curation.document import Document
from lm.data.curation.ledger import EXCERPT, Account
from lm.data.curation.plan import LEDGER, REPORT, TEXT, Plan, Stage
from lm.data.curation.steps import ComparingStep, to_json
from lm.data.store import read_json, write_json
from lm.errors import UserError
from lm.files import writing

DOCUMENTS, KEYS, LABELS, ACCOUNTS = "documents.jsonl.zst", "keys.npy", "labels.npy", "accounts.json"
LARGEST = 10  # clusters that the ledger shows
_SUM = 1 << 256


def curate(plan: Plan, log: Callable[[str], object] = print, processes: Optional[int] = None) -> dict[str, Any]:
    """Carries out a plan, or goes on with it, and returns its ledger.

    Raises:
      UserError: documents that cannot be used, a step that fails, or a folder that cannot be written. What is done stays.
    """
    for step in plan.chosen():
        step.check()
    with writing(plan.out, "free space there, or choose another --out; what is done stays"):
        if not plan.claim():
            try:
                for number, stage in enumerate(plan.stages()):
                    _pass(plan, number, stage, log, processes)
                shared_work.carry_out(_Job(str(plan.work / "result"), _finish, (plan,), [0], [1]), "result", log, 1)
            except (OSError, UserError):
                if not plan.is_over():  # another machine may have written the result meanwhile, and removed what led to it
                    raise
        shutil.rmtree(plan.work, ignore_errors=True)
    return read_json(os.path.join(plan.out, LEDGER))


class _Job(shared_work.Job):
    """Units of a plan, which nobody needs once its result is there."""

    def is_over(self) -> bool:
        return self.arguments[0].is_over()


def _pass(plan: Plan, number: int, stage: Stage, log: Callable[[str], object], processes: Optional[int]) -> None:
    names = [step.name for step in (*filter(None, [stage.first]), *stage.steps)] or ["reading"]
    title = f"pass {number + 1} of {len(plan.stages())}"
    log(f"{title}: {', '.join(names)}")
    sizes = [facts["bytes"] for facts in _all_facts(plan, number - 1)] if number else [sum(s.size for s in spans) for spans in plan.units()]
    shared_work.carry_out(_documents_job(plan, number, sizes), title, log, processes)
    if not number:
        _require_few(plan)
    if stage.sketch is not None:
        items = sum(facts["items"] for facts in _all_facts(plan, number))
        shared_work.carry_out(_clusters_job(plan, number, 8 * items), f"{title}: {stage.sketch.name}, comparing {items:,}", log, 1)


def _documents_job(plan: Plan, number: int, sizes: Sequence[int] = ()) -> _Job:
    folder = str(plan.work / f"pass-{number}")
    return _Job(folder, _unit, (plan, number), range(len(plan.units())), [max(size, 1) for size in sizes])


def _clusters_job(plan: Plan, number: int, size: int = 0) -> _Job:
    return _Job(str(plan.work / f"clusters-{number}"), _clusters, (plan, number), [0], [max(size, 1)])


def _all_facts(plan: Plan, number: int) -> list[dict[str, Any]]:
    job = _documents_job(plan, number)
    return [job.facts(unit) for unit in job.units]


def _documents(plan: Plan, number: int, unit: int) -> str:
    return str(_documents_job(plan, number).folder(unit) / DOCUMENTS)


def _unit(plan: Plan, number: int, unit: int, folder: str) -> dict[str, Any]:
    """Does a unit of a pass: its documents through the steps of the pass, into `folder`."""
    stage = plan.stages()[number]
    accounts = [Account(step.name) for step in ([stage.first] if stage.first else []) + list(stage.steps)]
    facts: collections.Counter[str] = collections.Counter()
    lengths: collections.Counter[str] = collections.Counter()
    faults = Faults(plan.longest, plan.skip)
    dropped: collections.Counter[str] = collections.Counter()
    keys: list[np.ndarray] = []
    total = 0
    with store.writing(os.path.join(folder, DOCUMENTS)) as write:
        for batch, is_first in _batches(plan, number, unit, stage.first, faults, dropped, lengths):
            kept = _through(batch, stage, accounts, is_first)
            if stage.sketch is not None:
                keys.append(stage.sketch.keys(kept))
            for document in kept:
                write(document)
                size = document.size
                facts.update(documents=1, bytes=size)
                if stage.sketch is None:
                    lengths[f"kept {size.bit_length()}"] += 1
                    total += int.from_bytes(hashlib.sha256(document.text.encode()).digest(), "big")
    if stage.sketch is not None:
        joined = np.concatenate(keys, axis=1) if keys else stage.sketch.keys([])
        np.save(os.path.join(folder, KEYS), joined)
        facts["items"] = joined.shape[1]
    write_json(os.path.join(folder, ACCOUNTS), [account.to_json() for account in accounts])  # apart: samples are large
    return {
        "documents": 0,
        "bytes": 0,
        **facts,
        "sum": f"{total % _SUM:x}",
        "lengths": dict(lengths),
        "unusable": dict(faults.counts + dropped),
        "first": faults.first,
    }


def _through(batch: list[Document], stage: Stage, accounts: list[Account], is_first: Optional[np.ndarray]) -> list[Document]:
    left = list(accounts)
    if stage.first is not None:
        batch = apply.compare(batch, stage.first, left.pop(0), is_first)
    for step, account in zip(stage.steps, left, strict=True):
        batch = list(apply.passing(batch, step, account))
    return batch


def _batches(
    plan: Plan,
    number: int,
    unit: int,
    first: Optional[ComparingStep],
    faults: Faults,
    dropped: collections.Counter[str],
    lengths: collections.Counter[str],
) -> Iterator[tuple[list[Document], Optional[np.ndarray]]]:
    """Yields the documents of a unit by batches, and for the items of each whether they are the first of their clusters."""
    if first is None:
        spans = plan.units()[unit]
        plan.require_same(spans)
        for batch in store.batches(sources.documents(spans, plan.reading(), faults)):
            full = [document for document in batch if document.text.strip()]
            dropped["empty document"] += len(batch) - len(full)
            lengths.update(f"read {document.size.bit_length()}" for document in full)
            yield full, None
        plan.require_same(spans)
        dropped += collections.Counter()  # without zeros
        return
    clusters_job = _clusters_job(plan, number - 1)
    label = np.load(clusters_job.folder(0) / LABELS, mmap_mode="r")
    begin = clusters_job.facts(0)["begins"][unit]
    for batch in store.batches(store.read(_documents(plan, number - 1, unit))):
        end = begin + sum(len(first.items(document)) for document in batch)
        yield batch, label[begin:end] == np.arange(begin, end)
        begin = end


def _require_few(plan: Plan) -> None:
    """Raises UserError where too many documents could not be used, by the policy of corpora."""
    faults, used = Faults(plan.longest, plan.skip), 0
    for facts in _all_facts(plan, 0):
        faults.add({reason: count for reason, count in facts["unusable"].items() if reason != "empty document"}, facts["first"])
        used += sum(count for what, count in facts["lengths"].items() if what.startswith("read"))
    faults.require_few(used)


def _clusters(plan: Plan, number: int, unit: int, folder: str) -> dict[str, Any]:
    """Joins the keys of a pass to clusters, and returns what the ledger says of them."""
    step = plan.stages()[number].sketch
    assert step is not None
    job = _documents_job(plan, number)
    counts = [facts["items"] for facts in _all_facts(plan, number)]
    paths = [str(job.folder(i) / KEYS) for i in job.units]
    show = lambda places: tqdm(places, step.name, unit=" places", disable=None, leave=False)  # noqa: E731
    label = clusters.of_files(paths, os.path.join(folder, LABELS), watch=show)
    sizes = clusters.sizes(label)
    heads = np.flatnonzero(sizes > 1)
    largest = heads[np.lexsort((heads, -sizes[heads]))][:LARGEST]
    members = {int(head): np.flatnonzero(label == head)[:3].tolist() for head in largest}
    texts = _items(plan, number, step, counts, sorted(item for each in members.values() for item in each))
    histogram = collections.Counter(int(size).bit_length() for size in sizes[heads])
    return {
        "documents": 0,
        "begins": [0, *np.cumsum(counts).tolist()],  # the number of the first item of each unit
        "items": len(label),
        "clusters": len(heads),
        "in_clusters": int(sizes[heads].sum()),
        "sizes": {str(bits): count for bits, count in sorted(histogram.items())},
        "largest": [{"items": int(sizes[head]), "examples": [texts[i] for i in items]} for head, items in members.items()],
    }


def _items(plan: Plan, number: int, step: ComparingStep, counts: Sequence[int], wanted: list[int]) -> dict[int, dict[str, str]]:
    """Returns the names and the beginnings of items by their numbers."""
    found: dict[int, dict[str, str]] = {}
    begin = 0
    for unit, count in enumerate(counts):
        here = {item - begin for item in wanted if begin <= item < begin + count}
        at = 0
        for document in store.read(_documents(plan, number, unit)) if here else ():
            for text in step.items(document):
                if at in here:
                    found[begin + at] = {"name": document.name, "text": text[:EXCERPT]}
                at += 1
        begin += count
    return found


def _finish(plan: Plan, unit: int, folder: str) -> dict[str, Any]:
    """Joins the parts to shards, and writes the report and, as the last file, the ledger."""
    from lm.data.curation import report

    last = len(plan.stages()) - 1
    text, made = pathlib.Path(plan.out, TEXT), pathlib.Path(folder, TEXT)  # its own folder: another process may do the same
    made.mkdir()
    shards = _shards(plan, last, made)
    ledger = _ledger(plan, last, shards)
    if plan.is_over():
        return {"documents": ledger["kept"]["documents"]}
    shutil.rmtree(text, ignore_errors=True)  # of a process that was killed here
    made.rename(text)
    report.write(pathlib.Path(plan.out, REPORT), ledger)
    write_json(os.path.join(plan.out, LEDGER), ledger)
    return {"documents": ledger["kept"]["documents"]}


def _shards(plan: Plan, last: int, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Joins the parts of the last pass to files of `plan.shard` bytes or a little more, and returns what the ledger says of them."""
    parts: list[list[int]] = []
    size = plan.shard
    for unit in range(len(plan.units())):
        more = os.path.getsize(_documents(plan, last, unit))
        if more and size >= plan.shard:
            parts.append([])
            size = 0
        if more:
            parts[-1].append(unit)
            size += more
    found, facts = [], _all_facts(plan, last)
    for number, units in enumerate(parts):
        path = folder / f"{number:05d}.jsonl.zst"
        with open(path, "wb") as file:
            for unit in units:
                with open(_documents(plan, last, unit), "rb") as part:
                    shutil.copyfileobj(part, file, 1 << 20)
        documents = sum(facts[unit]["documents"] for unit in units)
        found.append({"file": f"{TEXT}/{path.name}", "documents": documents, "bytes": path.stat().st_size})
    return found


def _ledger(plan: Plan, last: int, shards: list[dict[str, Any]]) -> dict[str, Any]:
    accounts = [Account(step.name) for step in plan.chosen()]
    lengths: dict[str, collections.Counter[int]] = {"read": collections.Counter(), "kept": collections.Counter()}
    unusable: collections.Counter[str] = collections.Counter()
    found, at, total = [], 0, 0
    for number, stage in enumerate(plan.stages()):
        count = bool(stage.first) + len(stage.steps)
        job = _documents_job(plan, number)
        for unit in job.units:
            facts = job.facts(unit)
            for account, more in zip(accounts[at : at + count], read_json(str(job.folder(unit) / ACCOUNTS)), strict=True):
                account.merge(more)
            unusable.update(facts["unusable"])
            for what, documents in facts["lengths"].items():
                lengths[what.split()[0]][int(what.split()[1])] += documents
            total += int(facts["sum"], 16)
        if stage.sketch is not None:
            facts = _clusters_job(plan, number).facts(0)
            found.append({"step": stage.sketch.name, **{key: value for key, value in facts.items() if key not in ("documents", "begins")}})
        at += count
    kept = accounts[-1].to_json()["kept"]
    read = accounts[0].to_json()["read"]
    begun = read_json(str(plan.work / "plan.json"))
    return {
        "plan": begun["plan"],
        "fingerprint": hashlib.sha256(f"{kept['documents']} {total % _SUM:x}".encode()).hexdigest()[:16],  # whatever the order
        "files": [{"file": path, "bytes": size} for path, (_, size, _) in zip(plan.files, begun["files"], strict=True)],
        "unusable": dict(sorted(unusable.items())),
        "read": read,
        "kept": kept,
        "settings": [to_json(step) for step in plan.chosen()],
        "steps": [account.to_json() for account in accounts],
        "lengths": {side: {str(bits): counts[bits] for bits in sorted(counts)} for side, counts in lengths.items()},
        "clusters": found,
        "shards": shards,
    }
