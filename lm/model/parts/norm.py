"""Kinds of norm and their parameters (imports no jax). lm.model.norm computes them."""

from typing import Literal

Norm = Literal["rmsnorm", "layernorm"]
VECTORS: dict[Norm, int] = {"rmsnorm": 1, "layernorm": 2}  # a scale; a scale and a bias


def norm_size(kind: Norm, width: int) -> int:
    """Returns the number of parameters of a norm over `width` numbers."""
    return VECTORS[kind] * width
