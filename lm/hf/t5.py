"""The T5 family, 1.0 and 1.1, and mT5: the keys of its config.json and the names of its tensors (imports no jax)."""

import dataclasses
from typing import Any

from lm.hf.family import Family, has
from lm.hf.forms import Rule, attention, dense, given, norm, same, unless
from lm.hf.options import ACTIVATIONS, Flat, Option, Options

# "gated-gelu" is the tanh approximation in transformers and plain "gelu" is not.
T5_LAYERS = {"relu": ("relu", False), "gated-gelu": ("gelu", True), "gelu": ("gelu_exact", False)}
T5_LAYERS |= {name: (ours, False) for name, ours in ACTIVATIONS.items() if name not in T5_LAYERS}
T5_LAYERS |= {f"gated-{name}": (ours, True) for name, ours in ACTIVATIONS.items() if name != "gelu"}


def _stacks(options: Options, layer: str) -> Flat:
    """Returns the fields of heads, layers and stacks; `layer` is the family's default of feed_forward_proj."""
    activation, gated = options.choice("feed_forward_proj", T5_LAYERS, layer)
    # Some releases repeat what follows from feed_forward_proj.
    options.require("is_gated_act", (gated,))
    options.require("dense_act_fn", tuple(name for name, ours in ACTIVATIONS.items() if ours == activation))
    layers = options.number("num_layers")
    decoder = options.take("num_decoder_layers", None) or layers
    return {
        "attention.num_heads": options.number("num_heads"),
        "attention.head_dim": options.number("d_kv", 64),
        "mlp.activation": activation,
        "mlp.gated": gated,
        "num_layers": decoder,
        "encoder_layers": None if decoder == layers else layers,
    }


def _t5(options: Options, names: frozenset[str]) -> Flat:
    width = options.number("d_model")
    if width < 1:
        raise options.refusal("d_model", width, "1 or more")
    scaled = options.take("tie_word_embeddings", True)
    tied = scaled
    if "scale_decoder_outputs" in options.values:  # transformers 5 says tied of every T5, and keeps untied tables that differ
        scaled = options.take("scale_decoder_outputs")
        tied = scaled or not has(names, "lm_head.weight")
    return {**_stacks(options, "relu"), "tied_head": tied, "logit_scale": width**-0.5 if scaled else 1.0}


def _mt5(options: Options, names: frozenset[str]) -> Flat:
    """Returns the fields of mT5 (Xue et al. 2021), whose head reads states without T5's scale.

    Whether the head has a table of its own is seen from the tensors: transformers 5 says tied of every mT5, and keeps tables that differ.
    """
    tied = options.take("tie_word_embeddings", False)
    if tied and str(options.values.get("transformers_version", "")).startswith("4."):
        raise options.refusal("tie_word_embeddings", tied, "transformers 4 scales the states of such an mT5, and transformers 5 does not")
    return {**_stacks(options, "gated-gelu"), "tied_head": not has(names, "lm_head.weight")}


def _t5_keys(flat: Flat) -> dict[str, Any]:
    layer = (flat["mlp.activation"], flat["mlp.gated"])
    return {
        "num_heads": flat["attention.num_heads"],
        "d_kv": flat["attention.head_dim"],
        "feed_forward_proj": next((name for name, ours in T5_LAYERS.items() if ours == layer), layer[0]),
        "num_layers": flat["encoder_layers"] or flat["num_layers"],
        "num_decoder_layers": flat["num_layers"],
        "tie_word_embeddings": flat["tied_head"],
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
    }


def _scaled_keys(flat: Flat) -> dict[str, Any]:
    return {**_t5_keys(flat), **({"scale_decoder_outputs": False} if flat["tied_head"] and flat["logit_scale"] == 1.0 else {})}


def _t5_stack(theirs: str, ours: str, *, cross: bool) -> tuple[Rule, ...]:
    layer, block, names = f"{theirs}.block.{{}}.layer", f"{ours}/block_00", ("q", "k", "v", "o")
    reader = (
        *norm(f"{layer}.1.layer_norm", f"{block}/cross_norm"),
        *attention(f"{layer}.1.EncDecAttention", f"{block}/cross_attention", names),
    )
    last, gate = f"{layer}.{2 if cross else 1}", f"{block}/mlp/gate/kernel"
    first = f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return (
        *same(first, f"{ours}/relative/embedding"),
        *norm(f"{layer}.0.layer_norm", f"{block}/attention_norm"),
        *attention(f"{layer}.0.SelfAttention", f"{block}/attention", names),
        *(reader if cross else ()),
        *norm(f"{last}.layer_norm", f"{block}/mlp_norm"),
        *unless(gate, dense(f"{last}.DenseReluDense.wi", f"{block}/mlp/up")),
        *dense(f"{last}.DenseReluDense.wi_0", f"{block}/mlp/gate"),
        *given(gate, dense(f"{last}.DenseReluDense.wi_1", f"{block}/mlp/up")),
        *dense(f"{last}.DenseReluDense.wo", f"{block}/mlp/down"),
        *norm(f"{theirs}.final_layer_norm", f"{ours}/norm"),
    )


T5 = Family(
    name="t5",
    architecture="T5ForConditionalGeneration",
    prefix="",
    options=(
        Option("vocab_size", "vocab_size"),
        Option("d_model", "d_model"),
        Option("d_ff", "mlp.d_ff"),
        Option("n_positions", "max_length", 512),
        Option("relative_attention_num_buckets", "relative_buckets", 32),
        Option("relative_attention_max_distance", "relative_max_distance", 128),
        Option("layer_norm_epsilon", "norm_epsilon", 1e-6),
    ),
    constants={"architecture": "encoder_decoder", "norm": "rmsnorm", "positions": "relative", "attention.scale": 1.0},
    derive=_t5,
    express=_scaled_keys,
    fixed={"is_encoder_decoder": (True,)},
    tied={
        "lm_head.weight": "shared.weight",
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    },
    ignored=r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    rules=(
        *same("shared.weight", "embed/embedding"),
        *_t5_stack("encoder", "encoder", cross=False),
        *_t5_stack("decoder", "decoder", cross=True),
        *dense("lm_head", "head"),
    ),
)
MT5 = dataclasses.replace(T5, name="mt5", architecture="MT5ForConditionalGeneration", derive=_mt5, express=_t5_keys)
