"""The BART family: the keys of its config.json and the names of its tensors (imports no jax)."""

import math
from typing import Any

from lm.hf import forms
from lm.hf.family import Family, has, heads
from lm.hf.forms import Dense, Offset, Rule, attention, dense, norm, same
from lm.hf.options import ACTIVATIONS, Flat, Option, Options


def _bart(options: Options, names: frozenset[str]) -> Flat:
    number, size = heads(options, "d_model", "decoder_attention_heads")
    layers, width = options.number("decoder_layers"), options.number("decoder_ffn_dim")
    encoder = options.number("encoder_layers", 12)
    options.require("encoder_attention_heads", (number,))
    options.require("encoder_ffn_dim", (width,))
    options.require("num_hidden_layers", (encoder, layers))  # a copy of encoder_layers in old files
    scaled = options.take("scale_embedding", False)
    return {
        "attention.num_heads": number,
        "attention.head_dim": size,
        "mlp.d_ff": width,
        "num_layers": layers,
        "encoder_layers": None if encoder == layers else encoder,
        "embedding_scale": math.sqrt(options.number("d_model")) if scaled else 1.0,
        "head_bias": has(names, "final_logits_bias"),
    }


def _bart_keys(flat: Flat) -> dict[str, Any]:
    number, width = flat["attention.num_heads"], flat["mlp.d_ff"]
    return {
        "encoder_attention_heads": number,
        "decoder_attention_heads": number,
        "encoder_ffn_dim": width,
        "decoder_ffn_dim": width,
        "encoder_layers": flat["encoder_layers"] or flat["num_layers"],
        "decoder_layers": flat["num_layers"],
        "scale_embedding": flat["embedding_scale"] != 1.0,
        "is_encoder_decoder": True,
        # An id in every vocabulary: transformers marks that row of the table.
        "pad_token_id": min(1, flat["vocab_size"] - 1),
    }


def _bart_stack(theirs: str, ours: str, *, cross: bool) -> tuple[Rule, ...]:
    layer, block, names = f"model.{theirs}.layers.{{}}", f"{ours}/block_00", ("q_proj", "k_proj", "v_proj", "out_proj")
    reader = (
        *attention(f"{layer}.encoder_attn", f"{block}/cross_attention", names),
        *norm(f"{layer}.encoder_attn_layer_norm", f"{block}/cross_norm"),
    )
    return (
        *same(f"model.{theirs}.embed_positions.weight", f"{ours}/position/embedding", Offset(2)),
        *norm(f"model.{theirs}.layernorm_embedding", f"{ours}/embedding_norm"),
        *attention(f"{layer}.self_attn", f"{block}/attention", names),
        *norm(f"{layer}.self_attn_layer_norm", f"{block}/attention_norm"),
        *(reader if cross else ()),
        *dense(f"{layer}.fc1", f"{block}/mlp/up"),
        *dense(f"{layer}.fc2", f"{block}/mlp/down"),
        *norm(f"{layer}.final_layer_norm", f"{block}/mlp_norm"),
    )


BART = Family(
    name="bart",
    architecture="BartForConditionalGeneration",
    prefix="model.",
    options=(
        Option("vocab_size", "vocab_size"),
        Option("d_model", "d_model"),
        Option("max_position_embeddings", "max_length", 1024),
        Option("activation_function", "mlp.activation", "gelu", ACTIVATIONS),
        Option("tie_word_embeddings", "tied_head", True),
    ),
    constants={
        "architecture": "encoder_decoder",
        "norm": "layernorm",
        "norm_epsilon": 1e-5,  # torch.nn.LayerNorm's own; no key says it
        "norm_placement": "post",
        "positions": "learned",
        "embedding_norm": True,
        "final_norm": False,
        "attention.bias": True,
        "mlp.bias": True,
    },
    derive=_bart,
    express=_bart_keys,
    fixed={
        "is_encoder_decoder": (True,),
        "add_bias_logits": (False,),
        "add_final_layer_norm": (False,),
        "normalize_before": (False,),
        "normalize_embedding": (True,),
        "static_position_embeddings": (False,),
        "extra_pos_embeddings": (2,),
    },
    tied={
        "lm_head.weight": "model.shared.weight",
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
    },
    untied=("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
    rules=(
        *same("model.shared.weight", "embed/embedding"),
        *_bart_stack("encoder", "encoder", cross=False),
        *_bart_stack("decoder", "decoder", cross=True),
        *same("final_logits_bias", "head/bias", forms.Flat(lead=1)),
        *same("lm_head.weight", "head/kernel", Dense()),
    ),
)
