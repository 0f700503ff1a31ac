"""The dense feed-forward layer: its options, what it computes and what that costs (imports jax only where it computes)."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

from lm.model.parts.component import FeedForward, LinearSpec, Refusals, sizes_of

Activation = Literal["gelu", "gelu_exact", "silu", "relu", "squared_relu"]


@dataclasses.dataclass(frozen=True)
class MLPConfig(FeedForward):
    """Dense feed-forward layer: down(f(up(x))), or with `gated` (GLU) down(f(gate(x)) * up(x)) (Shazeer 2020)."""

    name: ClassVar[str] = "dense"
    needs_name: ClassVar[bool] = False
    d_ff: int = 256  # width of the hidden layer
    activation: Activation = "gelu"  # gelu is the tanh approximation, gelu_exact is not
    gated: bool = False  # multiply by a second projection (GLU)
    bias: bool = False  # biases of all projections

    def apply(self, layer: Any, x_BTD: Any) -> Any:
        from lm.model.activations import activate

        h_BTF = layer.up(x_BTD)
        h_BTF = activate(layer.gate(x_BTD), self.activation) * h_BTF if self.gated else activate(h_BTF, self.activation)
        return layer.down(layer.split(h_BTF))

    def linears(self, width: int, out_gain: float = 1.0) -> dict[str, LinearSpec]:
        up = LinearSpec({"embed": width}, {"ffn": self.d_ff}, self.bias)
        down = LinearSpec({"ffn": self.d_ff}, {"embed": width}, self.bias, gain=out_gain)
        return {"up": up, "gate": up, "down": down} if self.gated else {"up": up, "down": down}

    def kept(self, width: int, queries: int, keys: int, *, rotated: bool) -> tuple[int, int]:
        hidden = (2 if self.gated else 1) * self.d_ff
        copies = 2 if self.activation == "relu" else 3  # relu's gradient needs no more than the result
        return queries * (3 * width + copies * hidden), queries * (hidden + width)

    def tensor_sizes(self) -> dict[str, int]:
        return {"d_ff": self.d_ff}

    def split(self, ways: int) -> "MLPConfig":
        return dataclasses.replace(self, d_ff=math.ceil(self.d_ff / ways))

    def refusals(self, path: str) -> Refusals:
        return sizes_of(path, {"d_ff": self.d_ff})
