"""'tfds:NAME[/CONFIG][:VERSION]': a TFDS data set with a text feature that somebody has prepared as array_record.

Nothing is downloaded or built here. Data sets are looked for in the data directory, its folder `tfds`, and where TFDS keeps
them (TFDS_DATA_DIR, else ~/tensorflow_datasets).
"""

import difflib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Optional

from lm.data.corpora import corpus
from lm.data.store import read_json, write_json
from lm.errors import UserError, counted

ENDS = 65_536  # bytes at either end of a shard that the fingerprint covers: whole shards may be hundreds of gigabytes


def prepare(name: str, data_dir: str, log: Callable[[str], object]) -> corpus.Corpus:
    """Finds the data set and records its splits, counts and fingerprint under `data_dir`.

    The fingerprint covers the counts and sizes of all shards and 64 KiB at both ends of each. A data set with a split
    'validation' or 'test' is held out there; of one without, the last hundredth of 'train' (TFDS has shuffled it).
    """
    source = _find(name, data_dir)
    record_directory = record_path(name, data_dir)
    known = corpus.load(record_directory)
    if known and known.directory == str(source):
        return known
    record = _record(name, source)
    write_json(str(record_directory / corpus.RECORD), record)
    documents = record["info"]["documents"]
    train = counted(documents["train"], "document")
    log(f"tfds:{name}: {train} in train, {documents['validation']:,} in validation, {record['fingerprint']}")
    loaded = corpus.load(record_directory)
    assert loaded is not None
    return loaded


def record_path(name: str, data_dir: str) -> pathlib.Path:
    """Returns the directory of a data set's record under `data_dir`."""
    return pathlib.Path(data_dir, "corpora", "tfds", re.sub(r"[^\w.-]+", "_", name))


def roots(data_dir: str) -> list[pathlib.Path]:
    """Returns the directories in which data sets are looked for, in this order."""
    default = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
    return [pathlib.Path(data_dir), pathlib.Path(data_dir, "tfds"), pathlib.Path(default).expanduser()]


def _find(name: str, data_dir: str) -> pathlib.Path:
    match = re.fullmatch(r"(\w+)(?:/([\w.-]+))?(?::(\d+\.\d+\.\d+))?", name)
    if not match:
        raise UserError(f"tfds:{name} is not a data set's name; write tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:1.0.0")
    dataset, config, version = match.groups()
    for root in roots(data_dir):
        base = root / dataset / config if config else root / dataset
        versions = sorted((path.parent for path in base.glob("*/dataset_info.json") if _version(path.parent)), key=_version)
        chosen = [path for path in versions if version in (None, path.name)]
        if chosen:
            return chosen[-1].resolve()
        configs = sorted({path.parent.parent.name for path in base.glob("*/*/dataset_info.json")}) if not config else []
        if configs:
            choices = ", ".join(f"tfds:{dataset}/{each}" for each in configs)
            raise UserError(f"tfds:{name} under {root} has configurations; write one of {choices}")
    raise UserError(_absent(name, dataset, data_dir))


def _version(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", path.name) else ()


def _absent(name: str, dataset: str, data_dir: str) -> str:
    """Says why a data set is not here: no such name, or what its builder needs, read from the builder's source."""
    import tensorflow_datasets as tfds

    package = pathlib.Path(tfds.__file__).parent
    sources = {path.stem: path for path in package.glob("*/*.py") if path.parent.name not in ("core", "scripts", "testing")}
    sources |= {path.parent.name: path for path in package.glob("*/*/*_dataset_builder.py")}
    sources |= {path.stem: path for path in package.glob("*/*/*.py") if path.stem == path.parent.name}
    looked = ", ".join(map(str, roots(data_dir)))
    if dataset not in sources:
        near = difflib.get_close_matches(dataset, sources, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"no data set tfds:{name}{hint} is prepared under {looked}"
    text = sources[dataset].read_text()
    uses = {"TensorFlow": "tensorflow as tf" in text, "Beam": "beam" in text, "a download": "download" in text}
    needs = " and ".join(what for what, used in uses.items() if used) or "TFDS"
    command = f"tfds build {name} --file_format=array_record --data_dir={roots(data_dir)[1]}"
    return f"tfds:{name} is not prepared under {looked}, and its builder needs {needs}; prepare it where that is possible: {command}"


def _record(name: str, source: pathlib.Path) -> dict:
    info = read_json(str(source / "dataset_info.json"))
    formats = {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", ())}
    if "array_record" not in formats:
        raise UserError(f"tfds:{name} in {source} is {info.get('fileFormat', 'tfrecord')}; prepare it with --file_format=array_record")
    counts = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
    parts, documents = _parts(name, counts)
    shards = sorted(source.glob("*.array_record*"))
    sha = hashlib.sha256(json.dumps([name, counts, parts, [(path.name, path.stat().st_size) for path in shards]]).encode())
    for path in shards:
        sha.update(_ends(path))
    return {
        "fingerprint": sha.hexdigest()[:16],
        "info": {"corpus": f"tfds:{name}", "version": info.get("version"), "documents": documents, "source": str(source)},
        "parts": parts,
        "feature": _feature(name, source),
        "source": str(source),
        "files": {path.name: path.stat().st_size for path in shards},
    }


def _parts(name: str, counts: dict[str, int]) -> tuple[dict[str, str], dict[str, int]]:
    if "train" not in counts:
        raise UserError(f"tfds:{name} has no split 'train' (it has {', '.join(counts)}); choose another data set")
    held_out = next((split for split in ("validation", "test") if counts.get(split)), None)
    if held_out:
        return {"train": "train", "validation": held_out}, {"train": counts["train"], "validation": counts[held_out]}
    validation = max(counts["train"] // 100, 1)
    if counts["train"] < 2:
        raise UserError(f"tfds:{name} has {counted(counts['train'], 'document')}; a corpus needs at least 2, to hold one out")
    kept = counts["train"] - validation
    return {"train": f"train[:{kept}]", "validation": f"train[{kept}:]"}, {"train": kept, "validation": validation}


def _feature(name: str, source: pathlib.Path) -> str:
    """Returns the feature that holds the text: 'text', else the only text feature there is."""
    import tensorflow_datasets as tfds

    features = tfds.builder_from_directory(str(source)).info.features or {}
    texts = sorted(key for key, feature in features.items() if isinstance(feature, tfds.features.Text))
    chosen: Optional[str] = "text" if "text" in texts else texts[0] if len(texts) == 1 else None
    if chosen is None:
        several = f"several text features ({', '.join(texts)}) and none is named 'text'"
        found = several if texts else f"no text feature ({', '.join(sorted(features))})"
        raise UserError(f"tfds:{name} has {found}; choose another data set")
    return chosen


def _ends(path: pathlib.Path) -> bytes:
    with open(path, "rb") as file:
        head = file.read(ENDS)
        file.seek(max(path.stat().st_size - ENDS, 0))
        return head + file.read(ENDS)
