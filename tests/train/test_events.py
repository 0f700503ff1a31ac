"""Event files are as TensorBoard reads them, and have every number of every row."""

import struct

from lm.train.events import Events, _record

ROWS = [{"step": step, "loss": 1.0 / step, "norms": [1.0, 2.0], "moe/share": 0.5} for step in (4, 8)]


def read(path):
    """Returns the events of a file, whose checksums have to be right."""
    from tensorboardX.proto.event_pb2 import Event  # imports torch, where that is installed
    from tensorboardX.record_writer import masked_crc32c

    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        found.append(Event.FromString(data[12 : 12 + size]))
        assert struct.unpack("<I", data[12 + size : 16 + size])[0] == masked_crc32c(data[12 : 12 + size])
        data = data[16 + size :]
    return found


def test_every_number_is_there_under_its_step_before_the_file_is_closed(tmp_path):
    log = Events(tmp_path, 3, print)
    for row in ROWS:
        log.write(row)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, start, *events = read(path)
    assert (version.file_version, start.step, start.session_log.status) == ("brain.Event:2", 4, start.session_log.START)
    assert [event.step for event in events] == [4, 8]
    for event, row in zip(events, ROWS, strict=True):
        expected = {"train/loss": row["loss"], "norms/layer_00": 1.0, "norms/layer_01": 2.0, "moe/share": 0.5}
        assert {value.tag: value.simple_value for value in event.summary.value} == expected
    log.close()
    log.write(ROWS[0])
    assert len(read(path)) == 4


def test_records_are_those_of_the_library(tmp_path):
    from tensorboardX.record_writer import RecordWriter

    writer = RecordWriter(str(tmp_path / "file"))
    writer.write(b"some data")
    writer.close()
    assert (tmp_path / "file").read_bytes() == _record(b"some data")


def test_a_folder_that_takes_no_file_is_said_and_ends_nothing(tmp_path):
    said: list[str] = []
    log = Events(tmp_path / "absent", 0, said.append)
    log.write(ROWS[0])
    log.close()
    assert len(said) == 1
