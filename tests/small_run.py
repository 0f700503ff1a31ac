"""Helpers of tests of whole runs: text to train on, fewer devices, and a stream that breaks."""

import contextlib
from pathlib import Path

import jax
import pytest

from lm.data.stream import TrainStream
from lm.sharding import make_mesh
from lm.train import build


def text_files(folder: Path, documents: int, lines: int) -> list[str]:
    """Writes documents of numbered lines; returns the overrides of a configuration that trains on them."""
    for part in range(documents):
        numbers = range(part * lines, part * lines + lines)
        (folder / f"{part:02d}.txt").write_text("".join(f"the {i}th line says that {i} and {i * i % 97} are numbers\n" for i in numbers))
    paths = ",".join(str(path) for path in sorted(folder.glob("*.txt")))
    return [f"data_dir={folder / 'data'}", "data.components.0.corpus=text_files", f"data.components.0.paths={paths}"]


@contextlib.contextmanager
def on_devices(count: int):
    """Builds meshes of the first `count` devices, where the caller names none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "make_mesh", lambda config, devices=None: make_mesh(config, devices or jax.devices()[:count]))
        yield


@contextlib.contextmanager
def streams_that_break(at: int):
    """Raises OSError in the place of batch `at` of every training stream."""
    iterate = TrainStream.iterate

    def broken(self, start, stop):
        for k, batch in zip(range(start, stop), iterate(self, start, stop), strict=True):
            if k == at:
                raise OSError("the disk is gone")
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStream, "iterate", broken)
        yield
