"""An event file for TensorBoard, each row of which is written at once and by the thread that trains.

tensorboardX's own writer has a thread and a queue. Its thread ends at a disk's first error, and the queue then blocks the run for ever.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

from lm.errors import one_line


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with an entry for each layer in place of a list that has a number of each."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= {f"{name}/layer_{layer:02d}": each for layer, each in enumerate(value)} if isinstance(value, list) else {name: value}
    return found


class Events:
    """Writes an event file. The first error of the disk is said, and then no more is written.

    Args:
      workdir: the folder of the file.
      step: the step that the run goes on from; readers forget what an earlier file has of later ones.
      alarm: prints a line.
    """

    def __init__(self, workdir: Path, step: int, alarm: Callable[[str], None]):
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # takes a second to import

        self._alarm = alarm
        self._file: Optional[int] = None
        now = time.time()
        path = workdir / f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{time.time_ns() % 10**9}"  # a run may go back in a second
        start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START), wall_time=now)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            self._leave(error)
        self._append(Event(wall_time=now, file_version="brain.Event:2"), start)

    def write(self, row: dict[str, Any]) -> None:
        """Appends the numbers of a row, under its `step`."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        numbers = {name: value for name, value in flat(row).items() if name != "step"}
        values = [Summary.Value(tag=name if "/" in name else f"train/{name}", simple_value=value) for name, value in numbers.items()]
        self._append(Event(step=row["step"], wall_time=time.time(), summary=Summary(value=values)))

    def _append(self, *events: Any) -> None:
        if self._file is None:
            return
        data = b"".join(_record(event.SerializeToString()) for event in events)
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            self.close()
            self._leave(error)

    def _leave(self, error: OSError) -> None:
        self._alarm(f"TensorBoard gets no more metrics of this run until it is continued ({one_line(error)}); metrics.jsonl has them")

    def close(self) -> None:
        """Closes the file, if it is open."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a file server: the run is worth more than this file
                os.close(self._file)
            self._file = None


def _record(data: bytes) -> bytes:
    """Returns data as a record of the format TFRecord: their length, its checksum, the data, and theirs."""
    from tensorboardX.record_writer import masked_crc32c

    parts: Sequence[bytes] = (struct.pack("<Q", len(data)), data)
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in parts)
