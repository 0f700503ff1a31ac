"""A small configuration with every kind of field."""

import dataclasses
from typing import ClassVar, Literal, Optional, Union


@dataclasses.dataclass(frozen=True)
class Circle:
    name: ClassVar[str] = "circle"
    radius: float = 1.0


@dataclasses.dataclass(frozen=True)
class Square:
    name: ClassVar[str] = "square"
    side: float = 1.0
    tilt: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Place:
    folder: str = "here"


@dataclasses.dataclass(frozen=True)
class Whole:
    count: int = 3
    rate: float = 0.5
    title: str = "a"
    loud: bool = False
    level: Literal["low", "high"] = "low"
    limit: Optional[int] = None
    pair: tuple[int, float] = (1, 2.0)
    shape: Union[Circle, Square] = Circle()
    spare: Optional[Union[Circle, Square]] = None
    part: Part = Part()
    parts: tuple[Part, ...] = (Part(),)
    shapes: tuple[Union[Circle, Square], ...] = ()
    place: Place = dataclasses.field(default=Place(), metadata={"part": "execution"})
