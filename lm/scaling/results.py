"""The results of a fit: numbers with intervals, typed refusals and cautions, and how all of them travel as JSON (imports no jax).

A question whose answer the data does not hold gets a `Refusal` where a number would stand. Every result is a frozen dataclass of
plain values, so that `from_json(to_json(result)) == result` to the last digit.
"""

import dataclasses
import json
import math
import statistics
import sys
from typing import Any, Optional, TypeVar, Union, dataclass_transform

_REGISTRY: dict[str, type] = {}
T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def result(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass that `to_json` and `from_json` know by its name, of which there is one."""
    made, other = dataclasses.dataclass(frozen=True)(cls), _REGISTRY.get(cls.__name__)
    if other is not None and other.__module__ != cls.__module__:
        raise TypeError(f"{cls.__name__} is a result of {other.__module__} already: a file could not say which of the two it holds")
    _REGISTRY[cls.__name__] = made
    return made


@result
class Refusal:
    """A reason why there is no number. `kind` is one of KINDS, `reason` a sentence that says what is wrong and what would suffice."""

    kind: str
    reason: str


KINDS = (
    "concave",  # a profile that opens downwards has no minimum
    "edge",  # the minimum lies outside the sampled sizes
    "too_few_points",
    "unidentified",  # flat profile, rank-deficient Jacobian, or N or D spanning too little
    "start_not_left",  # an optimiser that returns where it was put
    "not_converged",
    "no_replicas",  # nothing measures the seed noise
    "interval",  # the number stands, its interval does not
    "missing",  # the runs do not hold the quantity
    "mid_schedule",  # points of unfinished schedules among finished ones
    "conventions",  # N or C counted in two ways
    "mixed",  # rows of equal inputs that are no seeds: a sweep, or several conditions
    "units",  # values that no count of parameters, tokens or FLOPs has
    "extrapolation",  # nothing was measured near what is asked
)


@result
class Caution:
    """Something that a reader of the number must know; the number stands."""

    kind: str
    message: str


@result
class Estimate:
    """A number with its interval: `level` of the draws lie between `low` and `high` (percentiles, equal tails).

    Where the interval is refused `low` and `high` are None and `refused` says why.
    """

    value: float
    low: Optional[float]
    high: Optional[float]
    level: float
    method: str
    refused: Optional[Refusal] = None

    @property
    def sd(self) -> Optional[float]:
        """The standard deviation that the interval stands for, were the draws normal; None without an interval."""
        if self.low is None or self.high is None:
            return None
        return (self.high - self.low) / 2 / statistics.NormalDist().inv_cdf((1 + self.level) / 2)

    def covers(self, truth: float) -> bool:
        return self.low is not None and self.high is not None and self.low <= truth <= self.high


Answer = Union[Estimate, Refusal]


@result
class Line:
    """A curve against compute with a pointwise band, for figures: `low` and `high` are empty where the interval is refused."""

    flops: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    sampled: tuple[float, float]  # the range of compute that was measured; outside it the line extrapolates


def value_of(answer: Optional[Answer]) -> Optional[float]:
    """Returns the number of an answer, None for a refusal."""
    return answer.value if isinstance(answer, Estimate) else None


def encode(value: Any) -> Any:
    """Encodes a result as JSON values; dataclasses carry their name under "type". A float that is not finite is an error."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    if hasattr(value, "item"):  # numpy scalars
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} in a result: a missing number is None or a Refusal")
    return value


def decode(value: Any) -> Any:
    """Decodes what `encode` made; lists come back as tuples."""
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    fields = {key: decode(item) for key, item in value.items() if key != "type"}
    return _REGISTRY[value["type"]](**fields) if "type" in value else fields


def to_json(value: Any, indent: Optional[int] = 1) -> str:
    """Writes one canonical text per result: sorted keys, shortest round-trip floats, a final newline."""
    return json.dumps(encode(value), indent=indent, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str) -> Any:
    return decode(json.loads(text))


def version() -> str:
    """Returns the version of this code, as pages and saved fits state it. What is installed beside it may be another."""
    return getattr(sys.modules[__name__.partition(".")[0]], "__version__", "unknown")
