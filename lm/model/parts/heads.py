"""The linear layers that read the last states, and what a model's heads refuse (imports no jax). lm.model.heads computes them."""

from typing import Literal, NamedTuple

from lm.model.config import ModelConfig
from lm.model.parts.component import LinearSpec, Refusals, sizes_of


class Head(NamedTuple):
    """A linear layer after the last stack, and the positions of a row that it reads: predicted ones, one per sequence, or all."""

    linear: LinearSpec
    reads: Literal["predicted", "sequences", "length"]


def heads(config: ModelConfig) -> dict[str, Head]:
    """Returns the linear layers after the last stack by their names. A tied head's kernel is the token table."""
    width, dense = {"embed": config.d_model}, {"features": config.d_model}
    found: dict[str, Head] = {}
    if config.vocabulary_head:
        found["head"] = Head(LinearSpec(width, {"vocab": config.vocab_size}, config.head_bias, gain=config.out_gain), "predicted")
    if config.head_transform:
        found["head_transform"] = Head(LinearSpec(width, dense, bias=True), "predicted")
    if config.pools:
        found["pooler"] = Head(LinearSpec(width, dense, bias=True), "sequences")
    return found | {f"outputs/{name}": head for name, head in outputs(config).items()}


def outputs(config: ModelConfig) -> dict[str, Head]:
    """Returns the linear layers of `config.outputs` by name."""
    found: dict[str, Head] = {}
    for output in config.outputs:
        # A pooled state is the product of a dense layer, whose features are not split.
        ins = {"features" if output.pooled else "embed": config.d_model}
        reads: Literal["sequences", "length"] = "length" if output.per == "token" else "sequences"
        found[output.name] = Head(LinearSpec(ins, {"labels": output.labels}, output.bias), reads)
    return found


def refusals(config: ModelConfig) -> Refusals:
    """Returns the reasons to refuse the options of heads, each with whether it holds."""
    names, parts = [output.name for output in config.outputs], config.head_bias or config.head_transform
    plain = len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    headless = not config.vocabulary_head
    labels = {f"{i}.labels": output.labels for i, output in enumerate(config.outputs)}
    return [
        *sizes_of("model.outputs", labels),
        (config.tied_head and headless, "model.tied_head without model.vocabulary_head: set --config.model.tied_head=false"),
        (
            parts and headless,
            "model.head_bias and head_transform are parts of the vocabulary's head:"
            " set --config.model.vocabulary_head=true, or leave them out",
        ),
        (
            config.head_transform and not hasattr(config.mlp, "activation"),
            f"model.head_transform takes the activation of model.mlp, and a layer of kind {config.mlp.name} has none:"
            " set --config.model.head_transform=false",
        ),
        (not plain, f"model.outputs are called {names}: give each a plain name of its own"),
        (
            headless and not names and not config.pooler,
            "the model has no head: set --config.model.vocabulary_head=true or --config.model.outputs.0.name",
        ),
    ]
