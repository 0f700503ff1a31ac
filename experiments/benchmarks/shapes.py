"""The models of the benchmarks, as numbers that both sides build from (imports nothing)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a Transformer and of its batch. The feed-forward layer is four times as wide as the stream."""

    vocab: int
    length: int
    rows: int
    layers: int
    width: int
    heads: int

    @property
    def tokens(self) -> int:
        """Number of tokens of a step."""
        return self.rows * self.length


DECODER = Shape(vocab=8192, length=256, rows=16, layers=6, width=256, heads=4)
