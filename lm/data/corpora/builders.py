"""The TFDS builders of corpora (importing this module takes half a second, and neither TensorFlow nor jax).

They write array_record, which is read by `as_data_source`:

    PythonSources(data_dir=DIR, file_format="array_record").download_and_prepare()
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

import tensorflow_datasets as tfds

from lm.data.corpora import corpus, python_sources, text_files
from lm.data.corpora.documents import Document, Splits
from lm.errors import UserError


class PythonSources(tfds.core.GeneratorBasedBuilder):
    """Python source text of the base packages and the standard library."""

    VERSION = tfds.core.Version(python_sources.VERSION)
    code_path = None  # TFDS looks there for checksums of downloads, through a module that it does not require

    def __init__(self, *, log: Callable[[str], object] = print, **kwargs):
        self.log = log
        self.splits: Optional[Splits] = None  # once generated
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, "Python source text of the base packages and the standard library")

    def read(self) -> Splits:
        """Reads and splits the documents, once."""
        self.splits = self.splits or python_sources.collect(self.log)
        return self.splits

    def _split_generators(self, dl_manager):
        return _generators(self, self.read())

    def _generate_examples(self, documents: Sequence[Document]) -> Iterator[tuple[str, dict]]:
        return _examples(documents)

    def _log_download_bytes(self) -> None:  # TFDS would print here
        pass

    _log_download_done = _log_download_bytes


class TextFiles(tfds.core.GeneratorBasedBuilder):
    """Text of local files."""

    VERSION = tfds.core.Version(text_files.VERSION)
    code_path = None

    def __init__(self, *, collect: Callable[[], Splits], **kwargs):
        self.collect = collect
        self.splits: Optional[Splits] = None
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, "Text of local files")

    def read(self) -> Splits:
        """Reads and splits the documents, once."""
        self.splits = self.splits or self.collect()
        return self.splits

    def _split_generators(self, dl_manager):
        return _generators(self, self.read())

    def _generate_examples(self, documents: Sequence[Document]) -> Iterator[tuple[str, dict]]:
        return _examples(documents)

    def _log_download_bytes(self) -> None:
        pass

    _log_download_done = _log_download_bytes


def write(builder_class: Callable, directory: str, **arguments) -> dict:
    """Runs a builder into `directory` and returns the record of what it holds, read back from the shards and compared."""
    build = os.path.join(directory, "build")
    builder = builder_class(data_dir=build, file_format="array_record", **arguments)
    settings = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    tfds.disable_progress_bar()
    builder.read()  # before: its errors are not those of writing
    try:
        builder.download_and_prepare(download_config=settings)
    except RuntimeError as error:  # what array_record raises on a write error
        raise UserError(
            f"cannot write the corpus under {directory}: {_cause(error)}; free space or choose another --config.data_dir"
        ) from error
    for path in pathlib.Path(builder.data_dir).iterdir():
        path.rename(os.path.join(directory, path.name))
    shutil.rmtree(build)
    texts = [(name, corpus.Texts(directory, name)) for name in corpus.SPLITS]
    fingerprint, written = corpus.fingerprint(texts)
    wanted = [document.digest for side in (builder.splits.train, builder.splits.validation) for document in side]
    if sorted(written) != sorted(wanted):
        raise UserError(f"the corpus written under {directory} does not read back as it was; check the disk and run again")
    return {
        "fingerprint": fingerprint,
        "info": {"corpus": builder.name, "version": str(builder.version), **builder.splits.info},
        "parts": {name: name for name in corpus.SPLITS},
        "feature": "text",
        "files": {path.name: path.stat().st_size for path in sorted(pathlib.Path(directory).iterdir())},
    }


def _info(builder: tfds.core.DatasetBuilder, description: str) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "name": tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=builder, description=description, features=features)


def _generators(builder, splits: Splits) -> dict:
    sides = {"train": splits.train, "validation": splits.validation}
    for name, side in sides.items():
        if sum(document.size for document in side) > text_files.LARGEST:
            raise UserError(f"the {name} text exceeds 1 GB; set --config.data.components.0.streamed=true, which prepares text of any size")
    return {name: builder._generate_examples(side) for name, side in sides.items()}


def _examples(documents: Sequence[Document]) -> Iterator[tuple[str, dict]]:
    # TFDS orders documents by a hash of the key: shuffled, and the same wherever the files lie.
    return ((document.digest.hex(), {"text": document.text, "name": document.name}) for document in documents)


def _cause(error: Exception) -> str:
    text = " ".join(str(error).split())
    return "No space left on device" if "No space left on device" in text else text[:200]
