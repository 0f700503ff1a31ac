"""The speed of a device that `plan --calibrate` measured, kept in the study's directory as `speed.json` (imports no jax)."""

import dataclasses
import datetime
import json
import pathlib
from typing import Optional

from lm import files
from lm.errors import UserError
from lm.study.cell import Speed

FILE = "speed.json"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A measured speed: of which device, and on which day."""

    speed: Speed
    device: str
    day: str

    @property
    def words(self) -> str:
        """Says where the times of a plan come from."""
        return f"at the speed of {self.device}, measured on {self.day}"


def keep(root: pathlib.Path, speed: Speed, device: str) -> None:
    """Writes a measured speed into the study's directory."""
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    files.write_json(root / FILE, {"device": device, "day": now, "speed": dataclasses.asdict(speed)})


def kept(root: pathlib.Path) -> Optional[Measured]:
    """Returns the speed that was measured last; None where none was. Raises UserError for a file that holds none."""
    path = root / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Measured(Speed(**content["speed"]), content["device"], content["day"])
        if (
            not all(isinstance(value, (int, float)) and value >= 0 for value in dataclasses.astuple(found.speed))
            or not found.speed.flops_per_second
        ):
            raise ValueError("a rate is no positive number")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} holds no measured speed ({error}): remove it, or measure again with `plan --calibrate`") from error
    return found
