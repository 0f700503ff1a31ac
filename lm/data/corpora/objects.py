"""Reads documents that are JSON objects: one per line, or a list of them."""

import io
import json
from collections.abc import Iterator
from typing import IO, Any

from lm.data.corpora.faults import Faults
from lm.data.corpora.fields import FIELD, Fields, absent
from lm.data.corpora.lines import PIECE, Part, numbered
from lm.errors import UserError


def jsonl(path: str, stream: IO[bytes], fields: Fields, faults: Faults, part: Part = (0, None)) -> Iterator[str]:
    """Yields the text of each object of a file that has one per line."""
    longest = 4 * faults.longest + PIECE  # JSON writes a character in up to three times as many bytes, and there are other fields
    for place, line in numbered(path, stream, faults, longest, part):
        try:
            text = _text_of(_parsed(line, place), fields, place)
        except UserError as error:
            faults.meet("document that cannot be read", error)
        else:
            yield text


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError as error:
        raise UserError(f"{place} is JSON nested too deeply to be read; leave the line out") from error
    except ValueError as error:
        raise UserError(f"{place} is not JSON ({error}); each line of a .jsonl is one JSON object") from error


def json_file(path: str, stream: IO[bytes], fields: Fields, faults: Faults) -> Iterator[str]:
    """Yields the text of each object of a list of them, which is in memory as a whole, or of a file that has one per line."""
    data = stream.read()
    if not data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        if data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].strip() == b"{":
            raise UserError(f"{path} is one JSON object over several lines; a .json holds a list of objects, or one object per line")
        yield from jsonl(path, io.BytesIO(data), fields, faults)
        return
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except RecursionError as error:
        raise UserError(f"{path} is JSON nested too deeply to be read; leave the file out") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); a .json holds a list of objects, or one object per line") from error
    for number, value in enumerate(values):
        try:
            text = _text_of(value, fields, f"{path} item {number}")
        except UserError as error:
            faults.meet("document that cannot be read", error)
        else:
            yield text


def _text_of(value: Any, fields: Fields, place: str) -> str:
    if not isinstance(value, dict):
        raise UserError(f"{place} is no JSON object; write {{{json.dumps(fields.names[0])}: ...}}")
    for name in fields.names:
        if name not in value:
            raise absent(place, "field", name, list(value), [key for key, each in value.items() if isinstance(each, str)])
        if value[name] is not None and not isinstance(value[name], str):
            raise UserError(f"{place}: the field {name!r} holds no string; name another with {FIELD}=NAME")
    text = fields.text([value[name] for name in fields.names])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(f"{place} holds half of a surrogate pair ({half}), which is not UTF-8; repair it") from error
    return text
