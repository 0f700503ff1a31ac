"""Local files of any size as a corpus, prepared in bounded memory by any number of processes (lm.data.shared_work).

Files are cut into units: parts of files that can be read from anywhere, and whole files. Each unit becomes a shard of text with the hash
of each document. Then exact repeats are dropped, all but the first in the order of the files, and documents are held out: those whose hash
falls into a share, or those of files of their own. Neither depends on how the work was divided.

Near-duplicates are not looked for: a document that resembles one in the training text may be held out.
"""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from lm import files
from lm.data import shared_work
from lm.data.config import Component
from lm.data.corpora import corpus, places, readers, repeats, text_files, text_shards, verbatim
from lm.data.corpora.faults import Faults
from lm.data.store import digest, read_json, write_json
from lm.errors import UserError, counted

VERSION = "1"  # of the recipe
SHARE = 0.01  # of the documents that are held out where nothing is said
UNITS = 1024  # of a corpus, about, at most
LEAST = 16 << 20  # bytes of a unit, at least, where files allow it
LARGEST_LIST = 256_000_000  # bytes of a .json, which is read as a whole
PLAN = "plan.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is read of the files, and what is held out."""

    field: Optional[str]
    lines: bool
    longest: int
    skip: bool
    share: float  # of the documents, held out by their hash; 0 where files are held out
    looked_at: float = 1.0  # share of the lines by which the splits are compared


class Span(NamedTuple):
    """A part of a file. A file's parts are hashed, so that it is known again: those in bytes as they are, others by an equal share.

    Of a file at an address what the store says of it stands for its hash.
    """

    path: str
    number: int  # of the file
    part: tuple[int, Optional[int]]
    hashed: tuple[int, int]  # bytes
    held_out: bool
    size: int  # of the file
    modified: int  # ns (lm.data.corpora.places.stamp)


def is_asked(component: Component) -> bool:
    """Returns whether a component says that it is to be streamed, as text at addresses always is."""
    elsewhere = any(map(places.is_address, component.paths))
    return bool(elsewhere or component.streamed or component.validation_share is not None or component.validation_paths)


def directory(component: Component, data_dir: str) -> pathlib.Path:
    """Returns the directory of a corpus, named by a hash of the places of its files and of what is read of them."""
    faults = Faults(component.longest_document, component.unusable == "skip")
    held_out = [places.real(path) for path in component.validation_paths]
    key = digest(text_files.key(component.paths, component.field, component.lines, faults), held_out, component.validation_share)
    return pathlib.Path(data_dir, "corpora", "text_files", f"{key}-streamed-{VERSION}")


def prepare(component: Component, target: pathlib.Path, log: Callable[[str], object]) -> corpus.Corpus:
    """Prepares the corpus of some files, or goes on with what earlier calls have done of it."""
    known = corpus.load(target)
    if known is not None:
        return known
    settings = _settings(component)
    units = _plan(component, target, log)
    sizes = [sum(b - a for a, b in (span.hashed for span in unit)) for unit in units]
    settings = dataclasses.replace(settings, looked_at=min(1.0, verbatim.LOOKED_AT / max(sum(sizes), 1)))
    job = shared_work.Job(str(target), write_unit, (settings,), units, sizes)
    shared_work.carry_out(job, "reading text", log)
    shared_work.join(job, lambda temporary: write_json(os.path.join(temporary, corpus.RECORD), _merge(job, settings, temporary)))
    made = corpus.load(target)
    assert made is not None
    log(_summary(made))
    return made


def write_unit(settings: Settings, spans: Sequence[Span], folder: str) -> dict[str, Any]:
    """Writes the text of a unit: text, ends.npy, digests.npy (uint64 [documents, 2]), lines.npy. Returns its facts."""
    faults, dropped = Faults(settings.longest, settings.skip), collections.Counter[str]()
    ends, digests, found, at, lines = [0], bytearray(), [], 0, verbatim.Lines(settings.looked_at)
    with open(os.path.join(folder, "text"), "wb") as out:
        for span in spans:
            with readers.reading(span.path):
                _require_same(span)
                sha = _hash(span.path, span.hashed)
            for text in readers.read(span.path, settings.field, settings.lines, faults, span.part):
                if not text.strip():
                    dropped["empty document"] += 1
                    continue
                data = text.encode()
                out.write(data)
                lines.add(len(ends) - 1, text)
                ends.append(ends[-1] + len(data))
                digests += hashlib.sha256(data).digest()[:16]
            with readers.reading(span.path):
                _require_same(span)
            found.append({"documents": len(ends) - 1 - at, "sha256": sha})
            at = len(ends) - 1
    np.save(os.path.join(folder, "ends.npy"), np.asarray(ends[1:], np.int64))
    np.save(os.path.join(folder, "digests.npy"), np.frombuffer(bytes(digests), "<u8").reshape(-1, 2))
    np.save(os.path.join(folder, "lines.npy"), lines.array())
    facts = {"documents": len(ends) - 1, "bytes": ends[-1], "spans": found, "dropped": dict(dropped)}
    return facts | {"left_out": dict(faults.counts), "first": faults.first}


def _settings(component: Component) -> Settings:
    share = component.validation_share
    if component.validation_paths:
        if share is not None:
            raise UserError(
                "validation_share and validation_paths say two things: leave --config.data.components.0.validation_share or the paths out"
            )
        share = 0.0
    elif share is None:
        share = SHARE
    elif not 0 < share < 1:
        raise UserError(f"validation_share={share} is no share: set --config.data.components.0.validation_share=0.01")
    return Settings(component.field, component.lines, component.longest_document, component.unusable == "skip", share)


def _plan(component: Component, target: pathlib.Path, log: Callable[[str], object]) -> list[list[Span]]:
    """Returns the units of a corpus, as the first call has cut them. Raises UserError where files have changed since."""
    held_out = readers.expand(component.validation_paths, log)
    apart = set(map(places.real, held_out))
    paths = held_out + [path for path in readers.expand(component.paths, log) if places.real(path) not in apart]
    work = target.with_name(target.name + ".work")
    known = read_json(str(work / PLAN))
    if known is not None:
        units = [[Span(path, number, tuple(part), tuple(hashed), *rest) for path, number, part, hashed, *rest in unit] for unit in known]
        return _continued(units, paths, target, work / PLAN)
    total = sum(map(places.size, paths))
    spans = [_spans(path, number, number < len(held_out), component, total) for number, path in enumerate(paths)]
    units = _units([span for each in spans for span in each])
    _require_room(paths, component, work.parent)
    parts, cores = counted(len(units), "part"), counted(shared_work.cores(), "core")
    log(f"text_files: reading {counted(len(paths), 'file')} in {parts}, on {cores}")
    write_json(str(work / PLAN), units)
    return units


def _spans(path: str, number: int, held_out: bool, component: Component, total: int) -> list[Span]:
    with readers.reading(path):
        (size, modified), kind = places.stamp(path), readers.Kind(path)
        if kind.suffix == ".json" and size > LARGEST_LIST:
            raise UserError(f"{path} has {size:,} bytes, and a .json is read as a whole: write it as .jsonl, an object per line")
        rest, least = (held_out, size, modified), max(LEAST, total // UNITS)
        count = max(size // least, 1) if kind.divisible(component.field) else 1
        with places.opened(path) as raw:
            groups = readers.groups(path, raw, component.field) if kind.divisible(component.field) else None
        count = count if groups is None else max(min(count, groups), 1)
        bounds = [size * i // count for i in range(count + 1)]
        parts: list[tuple[int, Optional[int]]] = list(itertools.pairwise(bounds))
        if groups is not None:
            parts = [(groups * i // count, groups * (i + 1) // count) for i in range(count)]
        elif not kind.divisible(component.field):
            parts = [(0, None)]
    return [Span(path, number, part, (a, b), *rest) for part, a, b in zip(parts, bounds, bounds[1:], strict=False)]


def _units(spans: Sequence[Span]) -> list[list[Span]]:
    """Puts spans together, in order, to units of some size."""
    least = max(LEAST, sum(span.hashed[1] - span.hashed[0] for span in spans) // UNITS)
    units: list[list[Span]] = []
    size = least
    for span in spans:
        if size >= least:
            units.append([])
            size = 0
        units[-1].append(span)
        size += span.hashed[1] - span.hashed[0]
    return units


def _continued(units: list[list[Span]], paths: Sequence[str], target: pathlib.Path, plan: pathlib.Path) -> list[list[Span]]:
    """Returns the units of a plan for files that are as they were. Those that were touched are known by the hashes of what is done."""
    of_plan = {span.path: span for unit in units for span in unit}
    differ = min(of_plan.keys() ^ set(paths), default=None)
    remedy = f"restore what was there, or delete {plan.parent} to begin anew"
    if differ is not None:
        raise UserError(f"{differ} has {'gone' if differ in of_plan else 'come'} since the preparation of its corpus began; {remedy}")
    now = {path: places.stamp(path) for path in of_plan}
    changed = {path for path, span in of_plan.items() if (span.size, span.modified) != now[path]}
    if not changed:
        return units
    job = shared_work.Job(str(target), write_unit, (), units, ())
    for i in sorted(job.done()):
        for span, facts in zip(units[i], job.facts(i)["spans"], strict=True):
            if span.path in changed and (span.size != now[span.path][0] or _hash(span.path, span.hashed) != facts["sha256"]):
                raise UserError(f"{span.path} has changed since the preparation of its corpus began; {remedy}")
    for path in changed:
        if of_plan[path].size != now[path][0]:
            raise UserError(f"{path} has changed since the preparation of its corpus began; {remedy}")
    again = [[span._replace(modified=now[span.path][1]) for span in unit] for unit in units]
    write_json(str(plan), again)
    return again


def _require_same(span: Span) -> None:
    if places.stamp(span.path) != (span.size, span.modified):
        raise UserError(f"{span.path} changed while it was read; give the command again when nothing writes to it any more")


def _require_room(paths: Sequence[str], component: Component, folder: pathlib.Path) -> None:
    """Raises UserError where the text, which is written once, does not fit on the disk."""
    with files.writing(folder, "choose another --config.data_dir"):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    needed = readers.estimated_bytes(paths, component.field)
    if needed > free:
        raise UserError(
            f"the text has about {needed / 1e9:.3g} GB, and {folder} has {free / 1e9:.3g} GB free: free space, or choose another"
            " --config.data_dir"
        )


def _hash(path: str, part: tuple[int, int]) -> str:
    if places.is_address(path):  # which would be read twice
        return str(places.stamp(path)[1])
    sha, left = hashlib.sha256(), part[1] - part[0]
    with open(path, "rb") as file:
        file.seek(part[0])
        while left and (data := file.read(min(left, 1 << 20))):
            sha.update(data)
            left -= len(data)
    return sha.hexdigest()


def _merge(job: shared_work.Job, settings: Settings, target: str) -> dict[str, Any]:
    """Joins the units to a corpus: drops repeats, splits, and links the shards. Returns the record of the corpus."""
    units = _Units(job, settings.share)
    sha = hashlib.sha256()
    splits = {name: _split(units, name, target, sha) for name in corpus.SPLITS}
    for i in range(len(job.units)):
        os.link(job.folder(i) / "text", text_shards.text_file(target, i))
        os.link(job.folder(i) / "ends.npy", text_shards.ends_file(target, i))
    write_json(os.path.join(target, text_shards.FILE), {"shards": units.shards()})
    dropped = _dropped(units.facts, settings, int(units.starts[-1])) + collections.Counter({"exact duplicate": len(units.again)})
    info = {
        "corpus": "text_files",
        "recipe": f"streamed {VERSION}",
        "documents": {name: documents for name, (documents, _) in splits.items()},
        "bytes": {name: size for name, (_, size) in splits.items()},
        "dropped": dict(sorted(dropped.items())),
        "files": len({span.path for unit in job.units for span in unit}),
        "held_out": f"{settings.share:g} of the documents, by their hash" if settings.share else "files of its own",
    }
    _require_documents(info, settings)
    return {
        "fingerprint": sha.hexdigest()[:16],
        "info": info | verbatim.facts(units.lines("validation"), units.lines("train"), settings.looked_at),
        "parts": {name: name for name in corpus.SPLITS},
        "feature": "text",
        "files": {path.name: path.stat().st_size for path in sorted(pathlib.Path(target).iterdir())},
        "stamps": _stamps(job.units, units.facts),
    }


class _Units:
    """The units of a corpus, all done; one of them is in memory at a time."""

    def __init__(self, job: shared_work.Job, share: float):
        self._job, self._share = job, share
        self.facts = [job.facts(i) for i in range(len(job.units))]
        self.starts = np.concatenate([[0], np.cumsum([each["documents"] for each in self.facts])]).astype(np.int64)
        self.again = repeats.find([str(job.folder(i) / "digests.npy") for i in range(len(self.facts))], self.starts)

    def chosen(self, name: str) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields (number of the unit, which of its documents are of a split, the hashes of all)."""
        for i, unit in enumerate(self._job.units):
            digests = np.load(self._job.folder(i) / "digests.npy")
            own = np.repeat([span.held_out for span in unit], [span["documents"] for span in self.facts[i]["spans"]])
            held_out = own | (digests[:, 0] / 2.0**64 < self._share)
            mask = held_out == (name == "validation")
            mask[self.again[slice(*np.searchsorted(self.again, self.starts[i : i + 2]))] - self.starts[i]] = False
            yield i, mask, digests

    def sizes(self, i: int) -> np.ndarray:
        """Returns the bytes of each document of a unit."""
        return np.diff(np.load(self._job.folder(i) / "ends.npy"), prepend=0)

    def lines(self, name: str) -> Iterator[np.ndarray]:
        """Yields the lines of a split that are looked at (lm.data.corpora.verbatim)."""
        for i, mask, _ in self.chosen(name):
            lines = np.load(self._job.folder(i) / "lines.npy")
            yield lines[mask[lines["document"]]]

    def shards(self) -> list[dict[str, Any]]:
        """Returns what the corpus records of each shard."""
        found = []
        for unit, each in zip(self._job.units, self.facts, strict=True):
            ends = np.cumsum([span["documents"] for span in each["spans"]]).tolist()
            spans = [[span.number, os.path.basename(span.path), end] for span, end in zip(unit, ends, strict=True)]
            found.append({"documents": each["documents"], "spans": spans})
        return found


def _split(units: _Units, name: str, target: str, sha: Any) -> tuple[int, int]:
    """Writes the numbers of a split's documents, adds their hashes to `sha`, and returns their count and bytes."""
    documents = size = 0
    sha.update(name.encode())
    with open(text_shards.kept_file(target, name), "wb") as out:
        for i, mask, digests in units.chosen(name):
            out.write((units.starts[i] + np.flatnonzero(mask)).astype("<i8").tobytes())
            sha.update(np.ascontiguousarray(digests[mask]).tobytes())
            documents, size = documents + int(mask.sum()), size + int(units.sizes(i)[mask].sum())
    return documents, size


def _dropped(facts: Sequence[dict[str, Any]], settings: Settings, used: int) -> collections.Counter[str]:
    faults, dropped = Faults(settings.longest, settings.skip), collections.Counter[str]()
    for each in facts:
        dropped.update(each["dropped"])
        faults.add(each["left_out"], each["first"])
    faults.require_few(used)
    return dropped + faults.counts


def _require_documents(info: dict[str, Any], settings: Settings) -> None:
    for name, count in info["documents"].items():
        if not count:
            advice = "raise --config.data.components.0.validation_share" if settings.share else "name files with other text"
            raise UserError(f"the {name} split has no document of the {sum(info['documents'].values()):,} that were read; {advice}")


def _stamps(units: Sequence[Sequence[Span]], facts: Sequence[dict[str, Any]]) -> dict[str, list]:
    stamps: dict[str, list] = {}
    for unit, each in zip(units, facts, strict=True):
        for span, found in zip(unit, each["spans"], strict=True):
            stamp = stamps.setdefault(places.real(span.path), [span.size, span.modified, []])
            stamp[2].append([*span.hashed, found["sha256"]])
    return stamps


def same_content(path: str, hashes: Sequence[Sequence[Any]]) -> bool:
    """Returns whether the parts of a file have the hashes that they had."""
    return all(_hash(path, (first, last)) == sha for first, last, sha in hashes)


def _summary(made: corpus.Corpus) -> str:
    info = made.info
    kept = ", ".join(
        f"{name} {counted(info['documents'][name], 'document')} of {info['bytes'][name] / 1e6:,.1f} MB" for name in corpus.SPLITS
    )
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in info["dropped"].items() if count) or "nothing"
    lines = f"{info['verbatim_share']:.1%} of the long validation lines stand in train"
    return (
        f"text_files: {kept} (held out: {info['held_out']}); dropped: {dropped}; near-duplicates: not looked for; {lines}; fingerprint"
        f" {made.fingerprint}"
    )
