"""A weight: declared once with its shape, logical axes and initial distribution; read in one place; merged in one place."""

import dataclasses
import hashlib
import math
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lm.errors import UserError
from lm.model.parts.component import LinearSpec
from lm.sharding import Names, Rules, constrain, is_split, resplit
from lm.types import Params

# Numbers of a kernel, and tokens, from which on `flat_product` is faster. Kernels of the default study are smaller, and so are steps of
# decoding, which would transpose a kernel for each token.
LARGE, MANY = 2**16, 512


@dataclasses.dataclass(frozen=True)
class TruncatedNormal:
    """Normal cut at two standard deviations and rescaled, so that `std` is the standard deviation of what is drawn.

    Matrices take std = fan_in^-1/2, which keeps the variance of activations (LeCun et al. 1998, section 4.6; the truncated form
    is JAX's `variance_scaling`, used by T5X and PaLM). A lookup has fan_in 1.
    """

    std: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        cut = 0.87962566103423978  # standard deviation of a unit normal cut at +-2
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, jnp.float32) * (self.std / cut)

    def __str__(self) -> str:
        return f"normal({self.std:.4g})"


@dataclasses.dataclass(frozen=True)
class Constant:
    """One value everywhere."""

    value: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.full(shape, self.value, jnp.float32)

    def __str__(self) -> str:
        return f"constant({self.value:g})"


def at_least_float32(dtype: Any) -> Any:
    """Returns the dtype of statistics, softmax and logits: float32, or float64 where the layer computes in it."""
    return jnp.promote_types(dtype, jnp.float32)


def declare(key: jax.Array, shape: tuple[int, ...], axes: Names, initial: Any) -> nnx.Param:
    """Returns a float32 weight with one logical axis name per dimension."""
    if len(shape) != len(axes):
        raise ValueError(f"shape {shape} and axes {axes} differ in length")
    return nnx.Param(initial(key, shape), axes=axes, initial=initial)


def key_for(key: jax.Array, name: str) -> jax.Array:
    """Returns the random key of the part called `name`: a new part leaves the initial values of all others as they were.

    The name's hash is mixed into the words of the key. Threefry is a pseudo-random function of its key (Salmon et al. 2011), so that any
    other key will do, and `jax.random.fold_in`, itself a Threefry, would double the time that compiling an initialisation takes.
    """
    words = jax.random.key_data(key)
    digest = np.frombuffer(hashlib.sha256(name.encode()).digest(), "<u4")[: words.shape[-1]]
    return jax.random.wrap_key_data(words * np.uint32(0x9E3779B1) ^ digest, impl=jax.random.key_impl(key))


def read(param: nnx.Param, dtype: Any, rules: Rules) -> jax.Array:
    """Returns a weight as a layer reads it, cast to the compute dtype and then gathered from what fsdp split. No layer reads one otherwise.

    The cast comes first, so that fsdp moves bytes of the compute dtype.
    """
    names, weight = param.get_metadata()["axes"], jnp.asarray(param[...], dtype)
    if not is_split("embed", rules):
        return constrain(weight, *names, rules=rules.gathered())
    return resplit(weight, names, names, rules=rules, after_rules=rules.gathered())


def flat_product(x: jax.Array, kernel: jax.Array, accumulate: Optional[Any]) -> jax.Array:
    """Returns x [..., in] times a matrix [in, out], as CPUs compute it and its gradients fastest.

    With rows and positions as two dimensions XLA copies the operands of the kernel's gradient. That gradient is a product of [in, tokens]
    and [tokens, out], which takes 1.5 times as long where `in` is the larger; there the kernel is transposed first, and with it its
    gradient. Without the barrier XLA would fold the transposition into the product.
    """
    x_TI, contracted = x.reshape(-1, x.shape[-1]), 0
    if kernel.shape[0] > kernel.shape[1]:
        kernel, contracted = jax.lax.optimization_barrier(kernel.T), 1
    y_TO = jax.lax.dot_general(x_TI, kernel, (((1,), (contracted,)), ((), ())), preferred_element_type=accumulate)
    return y_TO.reshape(*x.shape[:-1], -1)


def is_flat(kernel: jax.Array, tokens: int) -> bool:
    """Returns whether kernel and tokens are large enough for `flat_product` on a CPU, under a mesh that splits nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    return kernel.size >= LARGE and tokens >= MANY and (mesh.empty or mesh.size == 1)


class Linear(nnx.Module):
    """A linear layer, `einsum(x, kernel) + bias`: the kernel contracts its first dimensions, `spec.ins`, with the last ones of x.

    `on_cpu` says that a CPU computes it (`flat_product`).
    """

    def __init__(self, spec: LinearSpec, *, key: jax.Array, rules: Rules, on_cpu: bool = False):
        ins, outs = spec.ins, spec.outs
        shape, axes, fan_in = (*ins.values(), *outs.values()), (*ins, *outs), math.prod(ins.values())
        self.rules = rules
        self.contracted, self.on_cpu = len(ins), on_cpu
        self.kernel = declare(key, shape, axes, TruncatedNormal(spec.gain * fan_in**-0.5) if spec.gain else Constant(0.0))
        self.bias = declare(key, tuple(outs.values()), tuple(outs), Constant(spec.bias_init)) if spec.bias else None

    def __call__(self, x: jax.Array, *, accumulate: Optional[Any] = None) -> jax.Array:
        """Maps x [..., *ins] to [..., *outs] in x's dtype, or in `accumulate` (the dtype of the products' sums)."""
        kernel = read(self.kernel, x.dtype, self.rules)
        n = self.contracted
        if self.on_cpu and is_flat(kernel, math.prod(x.shape[: x.ndim - n])):
            matrix = kernel.reshape(math.prod(kernel.shape[:n]), -1)
            y = flat_product(x.reshape(*x.shape[: x.ndim - n], -1), matrix, accumulate)
            y = y.reshape(*y.shape[:-1], *kernel.shape[n:])
        else:
            contract = (tuple(range(x.ndim - n, x.ndim)), tuple(range(n)))
            y = jax.lax.dot_general(x, kernel, (contract, ((), ())), preferred_element_type=accumulate)
        return y if self.bias is None else y + read(self.bias, y.dtype, self.rules)


class Embedding(nnx.Module):
    """A table of vectors: `__call__` looks rows up, and `attend` returns logits over the rows (a tied head)."""

    def __init__(self, rows: dict[str, int], width: int, std: float, *, key: jax.Array, rules: Rules, axis: str = "embed"):
        ((name, size),) = rows.items()
        self.rules = rules
        self.embedding = declare(key, (size, width), (name, axis), TruncatedNormal(std))

    def __call__(self, ids: jax.Array, dtype: Any) -> jax.Array:
        """Returns rows [..., width]; what the device reads for an id that is out of range is undefined (Transformer tells)."""
        return read(self.embedding, dtype, self.rules).at[ids].get(mode="promise_in_bounds")

    def attend(self, x_BTD: jax.Array, *, accumulate: Optional[Any] = None, on_cpu: bool = False) -> jax.Array:
        """Returns logits_BTV, x_BTD times the transposed table. `on_cpu` says that a CPU computes it (`flat_product`)."""
        table_VD = read(self.embedding, x_BTD.dtype, self.rules)
        if on_cpu and is_flat(table_VD, math.prod(x_BTD.shape[:-1])):
            return flat_product(x_BTD, jax.lax.optimization_barrier(table_VD.T), accumulate)
        return jnp.einsum("BTD,VD->BTV", x_BTD, table_VD, preferred_element_type=accumulate)


def flatten(tree: Params, prefix: str = "") -> dict[str, Any]:
    """Returns a nested dict as {"a/b/c": leaf}, in sorted order. Raises TypeError on keys that are no strings."""
    flat: dict[str, Any] = {}
    for name in sorted(tree, key=str):
        if not isinstance(name, str):
            raise TypeError(f"key {name!r} under {prefix or 'the top'!r} is a {type(name).__name__}, not a string")
        if isinstance(tree[name], dict):
            flat.update(flatten(tree[name], f"{prefix}{name}/"))
        else:
            flat[prefix + name] = tree[name]
    return flat


def check(params: Params, abstract: Params) -> None:
    """Raises UserError unless both trees have the same names, shapes and dtypes; it names the first that differs.

    `nnx.merge` matches leaves by sorted order and would accept wrong names in silence.
    """
    try:
        have, want = flatten(params), flatten(abstract)
    except TypeError as error:
        raise UserError(f"these are not the parameters of this model: {error}") from None
    for name in sorted({*have, *want}):
        if name not in have or name not in want:
            state = "is missing" if name in want else "is unknown to this model"
            raise UserError(f"these are not the parameters of this model: {name} {state}")
        found, expected = (have[name].shape, have[name].dtype), (want[name].shape, want[name].dtype)
        if found != expected:
            text = " but the model has ".join(f"{dtype}{list(shape)}" for shape, dtype in (found, expected))
            raise UserError(f"these are not the parameters of this model: {name} is {text}")


def merge(graphdef: Any, abstract: Params, params: Params) -> Any:
    """Returns the module with these parameters, checked against `abstract` first. For use inside a transformation."""
    check(params, abstract)
    return nnx.merge(graphdef, params)
