"""Counts of a model as it is built: its parameters by group, and the matrix products of its jaxpr."""

import dataclasses
import math

import jax
import jax.extend
import jax.numpy as jnp
import pytest
from model.ledger_cases import abstract
from model.small import model_of

from lm.model.execution import Execution
from lm.model.flops import ledger
from lm.model.weights import flatten
from lm.rows import RowShape
from lm.types import Inputs

GROUPS = {"embed": "embedding", "token_type": "embedding", "encoder": "blocks", "decoder": "blocks"}


def check_parameters(config):
    counts = dict.fromkeys(("embedding", "position", "head", "blocks", "norms"), 0)
    matmul = 0
    for path, leaf in flatten(model_of(config).abstract()).items():
        parts, size = path.split("/"), math.prod(leaf.shape)
        group = "norms" if parts[-2].endswith("norm") else GROUPS.get(parts[0], "head")
        counts["position" if parts[-2] in ("position", "relative") else group] += size
        matmul += size * (path.endswith("kernel") or (config.tied_head and parts[0] == "embed"))
    params = ledger(config, 12).params
    assert {name: params[name] for name in counts} == counts
    assert params["total"] == sum(counts.values())
    assert params["non_embedding"] == params["total"] - counts["embedding"] - counts["position"]
    assert params["matmul"] == matmul


def dot_flops(jaxpr) -> int:
    """2 x (batch x free x contracted sizes) over all dot_generals, at any depth; the body of a scan counts once per iteration."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            ((contracted, _), _) = eqn.params["dimension_numbers"]
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
        assert eqn.primitive.name not in ("while", "cond"), "how often its body runs is not in the jaxpr"
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        total += times * sum(dot_flops(inner) for inner in jax.extend.core.jaxprs_in_params(eqn.params))
    return total


def everything(model, params, inputs):
    """The sum of squares of all that a model predicts: its gradient reaches every weight, and needs every product twice more."""
    outputs = model.apply(params, inputs)
    return sum(jnp.sum(jnp.square(values)) for values in (outputs.logits, *outputs.heads.values()) if values is not None)


def one_row(row: RowShape) -> Inputs:
    """One row of a shape, all one document, with values: masks of it can be looked at while it is traced."""
    position, source = jnp.arange(row.length)[None], jnp.arange(row.encoder_length)[None]
    given = {"positions": position, "encoder_positions": source, "prefix": (position < row.prefix).astype(jnp.int32)}
    return dataclasses.replace(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract(row, rows=1)), **given)


def check_products(config, row, execution=Execution()):
    """The products of a gradient are those of the ledger."""
    model, inputs = model_of(config, execution), one_row(row)
    gradient = jax.make_jaxpr(jax.grad(lambda params: everything(model, params, inputs)))(model.abstract())
    expected = ledger(config, row).flops_per_token["matmul_full"] * row.text
    assert dot_flops(gradient.jaxpr) == pytest.approx(expected, rel=1e-14)
