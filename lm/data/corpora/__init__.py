"""Corpora: text with a fixed split into train and validation, prepared once, with a fingerprint.

`prepare` makes or opens the corpus of one component of a mixture. It imports no jax, and tensorflow_datasets only to write or read text.
"""

import contextlib
import dataclasses
import difflib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Optional, Union

from lm.data.config import Component, WordChain
from lm.data.corpora import corpus as _corpus
from lm.data.corpora import places
from lm.data.corpora import word_chain as _word_chain
from lm.data.corpora.corpus import Corpus
from lm.data.corpora.faults import Faults
from lm.data.corpora.word_chain import WordChainCorpus
from lm.errors import UserError, counted

MOST_BYTES = 2**31 - 1  # of a document; readers count in 32 bits
NAMES = ("python_sources", "text_files", "word_chain")


def prepare(component: Component, data_dir: str, log: Callable[[str], object] = print) -> Union[Corpus, WordChainCorpus]:
    """Returns the corpus of a component, made under `data_dir` on the first call; a word chain is generated as it is read.

    Raises UserError for an unknown corpus, for text that cannot be used, and where `data_dir` cannot be written.
    """
    check(component)
    if component.corpus == "word_chain":
        return _word_chain.prepare(component.chain or WordChain())
    if component.corpus.startswith("tfds:"):
        from lm.data.corpora import prepared

        return prepared.prepare(component.corpus.removeprefix("tfds:"), data_dir, log)
    directory = _directory(component, data_dir)
    known = _corpus.load(directory)
    if known is None and component.corpus == "text_files" and _is_streamed(component, log):
        from lm.data.corpora import streamed

        return streamed.prepare(component, streamed.directory(component, data_dir), log)
    corpus = known or _corpus.prepare(directory, lambda temporary: _write(component, temporary, log), log)
    if component.corpus == "text_files":
        _require_unchanged(directory, component)
    return corpus


@contextlib.contextmanager
def of_component(index: int) -> Iterator[None]:
    """Lets the advice of errors in the block name the component of this index: a corpus does not know its place in the mixture."""
    try:
        yield
    except UserError as error:
        advice = str(error).replace("data.components.0.", f"data.components.{index}.")
        if advice == str(error):
            raise
        raise UserError(advice) from error


def check(component: Component) -> None:
    """Raises UserError for an unknown corpus, and for options that it does not have."""
    name = component.corpus
    if name not in NAMES and not name.startswith("tfds:"):
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"did you mean {near[0]}?" if near else "choose python_sources, text_files, word_chain or tfds:NAME[/CONFIG]"
        raise UserError(f"unknown corpus {name!r}; {hint}")
    if component.chain is not None and name != "word_chain":
        raise UserError(f"the corpus {name} takes no chain; set --config.data.components.0.corpus=word_chain or leave out the chain")
    own = Component(name, weight=component.weight, chain=component.chain)
    if name.startswith("tfds:"):
        own = dataclasses.replace(own, unusable=component.unusable)
    if name != "text_files" and component != own:
        names = [field.name for field in dataclasses.fields(own) if getattr(own, field.name) != getattr(component, field.name)]
        raise UserError(
            f"the corpus {name} takes no {' or '.join(names)}; leave that out, or set --config.data.components.0.corpus=text_files"
        )
    if component.streamed is False and (component.validation_share is not None or component.validation_paths):
        raise UserError("validation_share and validation_paths are of streamed text: leave out --config.data.components.0.streamed=false")
    if component.streamed is False and any(map(places.is_address, component.paths)):
        raise UserError("text at an address is streamed: leave out --config.data.components.0.streamed=false, or copy the files here")
    if not 1 <= component.longest_document <= MOST_BYTES:
        raise UserError("data.components.0.longest_document must be 1 to 2G bytes: set --config.data.components.0.longest_document=4M")


def check_files(component: Component, data_dir: str) -> None:
    """Raises UserError for files that are not there and whose corpus is not prepared; reads no text."""
    if component.corpus != "text_files" or _corpus.load(_directory(component, data_dir)) is not None:
        return
    from lm.data.corpora import readers

    absent = [path for path in (*component.paths, *component.validation_paths) if not pathlib.Path(path).expanduser().exists()]
    readers.expand(absent, lambda line: None)  # some may be patterns


def version(name: str) -> Optional[str]:
    """Returns the version of the recipe that makes a corpus of this name; None where nothing is made."""
    if name == "python_sources":
        from lm.data.corpora import python_sources

        return python_sources.VERSION
    if name == "text_files":
        from lm.data.corpora import text_files

        return text_files.VERSION
    return None


def faults_of(component: Component) -> Faults:
    """Returns what becomes of documents of a component that cannot be used."""
    return Faults(component.longest_document, component.unusable == "skip")


def _directory(component: Component, data_dir: str) -> pathlib.Path:
    if component.corpus == "python_sources":
        return pathlib.Path(data_dir, "corpora", "python_sources", str(version(component.corpus)))
    if component.corpus == "text_files":
        from lm.data.corpora import streamed, text_files

        key = text_files.key(component.paths, component.field, component.lines, faults_of(component))
        directory, other = (
            pathlib.Path(data_dir, "corpora", "text_files", f"{key}-{text_files.VERSION}"),
            streamed.directory(component, data_dir),
        )
        chosen = component.streamed is None and not (directory / _corpus.RECORD).exists() and (other / _corpus.RECORD).exists()
        return other if chosen or streamed.is_asked(component) else directory
    from lm.data.corpora import prepared

    return prepared.record_path(component.corpus.removeprefix("tfds:"), data_dir)


def _is_streamed(component: Component, log: Callable[[str], object]) -> bool:
    """Returns whether text is prepared in bounded memory: as the component says, else where it has too many bytes for the other way."""
    from lm.data.corpora import readers, streamed, text_files

    if component.streamed is None and not streamed.is_asked(component):
        return text_files.is_large(readers.expand(component.paths, lambda line: None), component.field)
    return streamed.is_asked(component)


def _write(component: Component, temporary: str, log: Callable[[str], object]) -> dict:
    from lm.data.corpora import builders, readers, text_files

    start = time.perf_counter()
    if component.corpus == "python_sources":
        record = builders.write(builders.PythonSources, temporary, log=log)
    else:
        paths = readers.expand(component.paths, log)
        text_files.require_room(paths, component.field)
        stamps = text_files.stamp(paths)
        collect = functools.partial(text_files.collect, paths, log, component.field, component.lines, faults_of(component))
        record = {**builders.write(builders.TextFiles, temporary, collect=collect), "stamps": stamps}
    log(_summary(record, time.perf_counter() - start))
    return record


def _summary(record: dict, seconds: float) -> str:
    info = record["info"]
    kept = ", ".join(
        f"{split} {counted(info['documents'][split], 'document')} of {_size(info['bytes'][split])}" for split in _corpus.SPLITS
    )
    dropped = ", ".join(f"{reason} {count}" for reason, count in info["dropped"].items() if count) or "nothing"
    shares = ", ".join(f"{share:.1%} ({length})" for length, share in info["verbatim_shares"].items())
    share = f"validation lines (of as many characters or more) that stand in train: {shares}"
    near = f"near-duplicates: {_near_duplicates(info)}"
    return f"{info['corpus']}: {kept}; dropped: {dropped}; {near}; {share}; fingerprint {record['fingerprint']}; {seconds:.0f} s"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _in_words(split: str) -> str:
    return "both splits" if split == "both" else split


def _near_duplicates(info: dict) -> str:
    if not info["clusters"]:
        return "none"
    largest = [
        f"{counted(each['documents'], 'document')} with {each['share']:.1%} of the bytes in "
        f"{_in_words(each['split'])} (such as {each['example']})"
        for each in info["largest_clusters"]
    ]
    return (
        f"{info['near_duplicate_share']:.1%} of the documents in {counted(info['clusters'], 'cluster')}; the largest: {', '.join(largest)}"
    )


def require_unchanged(component: Component, data_dir: str) -> bool:
    """Returns whether the corpus of a component is still there; True for those that have no files of the user's.

    Raises UserError for files that have changed since it was prepared.
    """
    if component.corpus != "text_files":
        return True
    directory = _directory(component, data_dir)
    if not (directory / _corpus.RECORD).exists():
        return False
    _require_unchanged(directory, component)
    return True


def _require_unchanged(directory: pathlib.Path, component: Component) -> None:
    from lm.data.corpora import text_files
    from lm.data.store import read_json

    stamps = read_json(str(directory / _corpus.RECORD))["stamps"]
    path = text_files.changed(stamps)
    if path:
        raise UserError(f"{path} has changed since its corpus was prepared; restore it, or delete {directory} to prepare another corpus")
    path = text_files.added(stamps, (*component.paths, *component.validation_paths))
    if path:
        raise UserError(f"{path} has come since its corpus was prepared; take it away, or delete {directory} to prepare another corpus")
