"""A token cache whose file changes while a run reads it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_corpus import corpus, quiet

from lm.data import pipeline
from lm.data.config import DataConfig
from lm.data.stream import TrainStream
from lm.data.token_file import TokenFile, crc32_of
from lm.errors import UserError


@pytest.fixture
def stream(tmp_path):
    config = DataConfig(sequence_length=64, allow_epochs=True)
    return TrainStream(pipeline.build(config, [corpus()], str(tmp_path), quiet), config, 64, 0)  # Grain reads four batches at a time


def _file(tmp_path, stream):
    return tmp_path / "tokens" / stream._data.mixture.sources[0].cache.fingerprint / "tokens.bin"


def _flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("change", ["flip", "cut"])
def test_tokens_that_change_under_a_run_end_it_by_one_line(tmp_path, stream, change, threads):
    path, batches = _file(tmp_path, stream), stream.iterate(0, 200, threads=threads, ahead=1)
    next(batches)
    os.truncate(path, 1000) if change == "cut" else _flip(path, path.stat().st_size - 1)
    with pytest.raises(UserError, match=str(path)):
        list(batches)


def test_a_file_that_was_touched_linked_or_replaced_is_read_on(tmp_path, stream):
    path, before = _file(tmp_path, stream), stream[3]
    os.utime(path)
    os.link(path, tmp_path / "link")
    np.testing.assert_array_equal(stream[3].targets, before.targets)
    path.unlink()
    path.write_bytes(b"another file")
    np.testing.assert_array_equal(stream[3].targets, before.targets)


def test_threads_that_look_at_once_agree_about_a_file_that_was_touched(tmp_path):
    np.random.default_rng(0).integers(0, 1000, 1 << 22).astype(np.uint16).tofile(tmp_path / "ids")
    with open(tmp_path / "ids", "rb") as content:
        file = TokenFile(str(tmp_path / "ids"), "uint16", crc32_of(content))
    for stamp in range(1, 5):
        os.utime(tmp_path / "ids", (stamp, stamp))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda at: file[at : at + 10], range(4)))  # raises what a thread raised


def test_a_file_that_gives_way_between_two_looks_ends_the_process_by_one_line(tmp_path):
    np.zeros(1 << 20, np.uint16).tofile(tmp_path / "ids")
    code = "import os, sys; from lm.data.token_file import TokenFile; path = sys.argv[1]; file = TokenFile(path, 'uint16', 0);"
    code += " file._require_unchanged = lambda: os.truncate(path, 0); file[:]"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "ids")], capture_output=True, text=True)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "SIGBUS" in ended.stderr
