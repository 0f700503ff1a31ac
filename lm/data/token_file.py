"""The ids of a token cache, mapped into memory, in a file that may change while a run reads it (imports neither jax nor grain).

A mapping follows its file: what another process writes there is read as text, and what it cuts off ends this process by SIGBUS. So the
kernel's stamp of the file (size, times of content and of state) is compared before and after each read, which costs a microsecond. Where it
has moved, the checksum decides: a file that was merely touched, copied or linked is read on.
"""

import os
import signal
import weakref
import zlib
from typing import IO

import numpy as np

from lm import peers
from lm.errors import UserError

CHUNK = 1 << 20
_BUS = "error: a file that this process had mapped into memory was cut short, or its disk failed (SIGBUS): run the same command again"


class TokenFile:
    """Reads the ids in a file by their places: `file.take(index)`, `file[first:last]`. Both give copies.

    Args:
      path: the file.
      dtype: the type of an id.
      crc32: the checksum of its content.
    """

    def __init__(self, path: str, dtype: str, crc32: int):
        self._path, self._crc32 = path, crc32
        self._handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self._stamp = self._now()
        self._ids = np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # a plain array: indexing np.memmap itself is several times slower
        peers.on_fatal(signal.SIGBUS, _BUS, status=2)  # where the file gives way between the two looks at it

    @property
    def dtype(self) -> np.dtype:
        return self._ids.dtype

    def __len__(self) -> int:
        return len(self._ids)

    def take(self, index: np.ndarray) -> np.ndarray:
        """Returns the ids at these places, in the shape of `index`. Raises UserError if the file is no longer what it was."""
        self._require_unchanged()
        found = self._ids.take(index)
        self._require_unchanged()
        return found

    def __getitem__(self, part: slice) -> np.ndarray:
        self._require_unchanged()
        found = self._ids[part].copy()
        self._require_unchanged()
        return found

    def _now(self) -> tuple[int, int, int]:
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _require_unchanged(self) -> None:
        now = self._now()
        if now == self._stamp:
            return
        if now[0] != self._stamp[0] or self._crc32_now() != self._crc32:
            raise UserError(
                f"{self._path} was changed by another process while this one read it: delete the directory"
                f" {os.path.dirname(self._path)} and run the same command again"
            )
        self._stamp = now

    def _crc32_now(self) -> int:
        """Returns the CRC-32 of the content, read at places of its own: another thread may be reading the same open file."""
        crc, place = 0, 0
        while chunk := os.pread(self._handle, CHUNK, place):
            crc, place = zlib.crc32(chunk, crc), place + len(chunk)
        return crc


def crc32_of(file: IO[bytes]) -> int:
    """Returns the CRC-32 of a file's content."""
    file.seek(0)
    crc = 0
    while chunk := file.read(CHUNK):
        crc = zlib.crc32(chunk, crc)
    return crc
