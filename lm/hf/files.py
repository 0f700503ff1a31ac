"""Reads and writes the safetensors files of a model: one, or shards with an index. Tensors are read one at a time, from a mapped file."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lm import files
from lm.errors import UserError, require_local

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json")
READABLE = ("F32", "F16", "BF16")
REMEDY = "free space or choose another directory"


def files_of_a_model(folder: Path) -> list[str]:
    """Returns the names of the files in a directory that describe a model or hold weights of one, in any layout of transformers'."""
    if not folder.is_dir():
        return []
    weights = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".msgpack", ".h5")
    return sorted(path.name for path in folder.iterdir() if path.name in (CONFIG, GENERATION, ADAPTER) or path.name.endswith(weights))


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file. Raises UserError if there is none."""
    require_local(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no {path.name}: name the directory of a model in the Hugging Face layout") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


class Tensors:
    """The tensors of a directory by name. Use within `opened`."""

    def __init__(self, where: dict[str, Any], folder: Path):
        self._where = where  # name -> open file
        self.folder = folder

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Returns the dtype of a tensor in safetensors' spelling, such as F32."""
        return self._where[name].get_slice(name).get_dtype()

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor in float32. Raises UserError unless it has floating-point numbers of 16 or 32 bits."""
        dtype = self.dtype(name)
        if dtype not in READABLE:
            raise UserError(f"{self.folder}: {name} has the type {dtype}; only {', '.join(READABLE)} can be read")
        return np.asarray(self._where[name].get_tensor(name)).astype(np.float32, copy=False)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Tensors]:
    """Opens the tensors of a model's directory, by its index if it has one.

    Raises:
      UserError: files are missing or damaged, contradict the index, or are of two models.
    """
    _require_one(folder)
    with contextlib.ExitStack() as stack:
        if (folder / INDEX).is_file():
            weights = read_json(folder / INDEX).get("weight_map")
            if not isinstance(weights, dict) or not all(isinstance(file, str) for file in weights.values()):
                raise UserError(f"{folder / INDEX} has no weight_map from tensors to files")
            outside = next((file for file in weights.values() if Path(file).name != file), None)
            if outside is not None:
                raise UserError(f"{folder / INDEX} names {outside!r}, which is not in its own folder: put the files side by side")
            shards = {file: stack.enter_context(_file(folder / file)) for file in sorted({*weights.values()})}
            listed = {(name, file) for name, file in weights.items()}
            there = {(name, file) for file, shard in shards.items() for name in shard.keys()}  # noqa: SIM118 no dict
            if listed != there:
                name, file = min(listed ^ there)
                state = "lacks" if (name, file) in listed else "holds beyond its index"
                raise UserError(f"{folder / file} {state} {name}: the shards and {INDEX} do not belong together")
            yield Tensors({name: shards[file] for name, file in weights.items()}, folder)
        elif (folder / SINGLE).is_file():
            file = stack.enter_context(_file(folder / SINGLE))
            yield Tensors(dict.fromkeys(file.keys(), file), folder)
        else:
            raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}: only safetensors weights are read")


def _require_one(folder: Path) -> None:
    """Raises UserError for a directory with two sets of weights. Of file and shards transformers takes the file; it adds an adapter."""
    if (folder / INDEX).is_file() and (folder / SINGLE).is_file():
        weights = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weights, dict) or any(file != SINGLE for file in weights.values()):  # an index may be of that one file
            raise UserError(
                f"{folder} holds two sets of weights, {SINGLE} and the shards of {INDEX}: move one away (transformers reads the former)"
            )
    if (folder / ADAPTER).is_file():
        raise UserError(f"{folder} has an {ADAPTER}, whose weights change those of the model: merge them, or move its files away")


@contextlib.contextmanager
def _file(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {INDEX} names it") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a valid safetensors file: {error}") from error
    with file as tensors:
        yield tensors


def write(folder: Path, sizes: dict[str, int], make: Callable[[str], np.ndarray], max_shard_bytes: int) -> list[str]:
    """Writes tensors to files of at most `max_shard_bytes`, and returns the names of the files. A larger tensor gets a file of its own.

    Args:
      folder: the directory.
      sizes: bytes of each tensor by name, in the order of writing.
      make: returns a tensor by its name. It is called once for each; one shard is in memory at a time.
      max_shard_bytes: the largest size of a file.
    """
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(name)
        room -= size
    if len(shards) == 1:
        _write_file(folder / SINGLE, shards[0], make)
        return [SINGLE]
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for file, shard in zip(names, shards, strict=True):
        _write_file(folder / file, shard, make)
    weights = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    with files.writing(folder / INDEX, REMEDY):
        files.write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weights.items()))})
    return [*names, INDEX]


def _write_file(path: Path, names: list[str], make: Callable[[str], np.ndarray]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(make(name)) for name in names}
    with files.writing(path, REMEDY), files.replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})  # transformers reads which framework wrote it
        except SafetensorError as error:
            raise OSError(None, str(error)) from error


def copied(source: Path, target: Path, name: str) -> Optional[Path]:
    """Copies a file if it exists, and returns its new path."""
    if not (source / name).is_file():
        return None
    with files.writing(target / name, REMEDY), files.replacing(target / name) as temporary:
        Path(temporary).write_bytes((source / name).read_bytes())
    return target / name
