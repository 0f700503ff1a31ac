"""Families that have Llama's layers with other biases, norms or positions: Qwen2, Gemma, SmolLM3 and OLMo 2 (imports no jax)."""

import dataclasses
import math
from typing import Any, Optional

from lm.hf.decoders import LLAMA_CONSTANTS, LLAMA_OPTIONS, LLAMA_TIED, grouped, grouped_keys, llama_tensors, windowed, windowed_keys
from lm.hf.family import Family
from lm.hf.forms import LessOne
from lm.hf.options import ACTIVATIONS, Flat, Option, Options


def options_of(*own: Option, **defaults: Any) -> tuple[Option, ...]:
    """Returns Llama's keys with the defaults of a family, and those of its own."""
    return (*(dataclasses.replace(option, default=defaults.get(option.key, option.default)) for option in LLAMA_OPTIONS), *own)


QWEN2 = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    prefix="model.",
    options=options_of(Option("max_position_embeddings", "max_length", 32_768)),
    constants={**LLAMA_CONSTANTS, "attention.bias": True, "attention.out_bias": False},
    derive=lambda options, names: windowed(options, grouped(options, 32)),
    express=windowed_keys,
    fixed={"partial_rotary_factor": (1.0, None), "use_mrope": (False,)},
    tied=LLAMA_TIED,
    rules=llama_tensors(),
)

# "gelu" of the first releases is the tanh approximation, which transformers computes for it.
GEMMA_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", **ACTIVATIONS, "gelu": "gelu"}


def _gemma(options: Options, names: frozenset[str]) -> Flat:
    flat = grouped(options, 16)
    if "head_dim" not in options.values:
        flat["attention.head_dim"] = 256
    activation = options.choice("hidden_act", GEMMA_ACTIVATIONS, "gelu_pytorch_tanh")
    options.require("hidden_activation", (None, *(name for name, ours in ACTIVATIONS.items() if ours == activation)))
    return {**flat, "embedding_scale": math.sqrt(options.number("hidden_size"))}


GEMMA = Family(
    name="gemma",
    architecture="GemmaForCausalLM",
    prefix="model.",
    options=(
        *(option for option in options_of(tie_word_embeddings=True) if option.key != "hidden_act"),
        Option("hidden_act", "mlp.activation", "gelu_pytorch_tanh", GEMMA_ACTIVATIONS),
        Option("max_position_embeddings", "max_length", 8192),
        Option("attention_bias", "attention.bias", False),
    ),
    constants=LLAMA_CONSTANTS,
    derive=_gemma,
    express=grouped_keys,
    fixed={"partial_rotary_factor": (1.0, None), "use_bidirectional_attention": (None, False)},
    tied=LLAMA_TIED,
    rules=tuple(dataclasses.replace(rule, form=LessOne()) if rule.ours[0].endswith("/scale") else rule for rule in llama_tensors()),
)


def _smollm3(options: Options, names: frozenset[str]) -> Flat:
    """Returns the fields of heads and positions. The layers without rotary positions have to lie at equal distances, as by default."""
    layers, interval = int(options.number("num_hidden_layers")), options.number("no_rope_layer_interval", 4)
    flags = options.take("no_rope_layers", None)  # 1 for a layer with rotary positions
    if flags is None and interval >= 1:
        flags = [(layer + 1) % interval != 0 for layer in range(layers)]
    turned = [bool(flag) for flag in flags[:layers]] if isinstance(flags, list) else []
    every = turned.index(False) + 1 if False in turned else None
    if turned != _turned(layers, every):
        key = "no_rope_layer_interval" if flags is None else "no_rope_layers"
        raise options.refusal(key, options.values.get(key), "supported: every nth layer without rotary positions, or none")
    if options.take("use_sliding_window", False):
        options.require("sliding_window", (None,))
    options.take("sliding_window", None)
    options.require("layer_types", (None, ["full_attention"] * layers))
    return {**grouped(options, 4, theta=2_000_000.0), "no_rope_interval": every}


def _turned(layers: int, every: Optional[int]) -> list[bool]:
    """Says of each layer whether it has rotary positions: all but every nth have."""
    return [every is None or (layer + 1) % every != 0 for layer in range(layers)]


def _smollm3_keys(flat: Flat) -> dict[str, Any]:
    layers, every = flat["num_layers"], flat["no_rope_interval"]
    keys = {
        "no_rope_layers": list(map(int, _turned(layers, every))),
        "no_rope_layer_interval": every or layers + 1,
        "use_sliding_window": False,
    }
    return {**grouped_keys(flat), **keys, "pad_token_id": None}  # its default lies beyond most vocabularies


SMOLLM3 = Family(
    name="smollm3",
    architecture="SmolLM3ForCausalLM",
    prefix="model.",
    options=options_of(
        Option("max_position_embeddings", "max_length", 32_768),
        Option("attention_bias", "attention.bias", False),
        Option("mlp_bias", "mlp.bias", False),
        tie_word_embeddings=True,
    ),
    constants=LLAMA_CONSTANTS,
    derive=_smollm3,
    express=_smollm3_keys,
    fixed={"partial_rotary_factor": (1.0, None)},
    inert=frozenset({"max_window_layers"}),
    tied=LLAMA_TIED,
    rules=llama_tensors(),
)
OLMO2 = Family(
    name="olmo2",
    architecture="Olmo2ForCausalLM",
    prefix="model.",
    options=options_of(
        Option("max_position_embeddings", "max_length", 2048),
        Option("attention_bias", "attention.bias", False),
        rms_norm_eps=1e-5,
    ),
    constants={**LLAMA_CONSTANTS, "norm_placement": "post_inside", "attention.qk_norm": True, "attention.qk_norm_over": "heads"},
    derive=lambda options, names: grouped(options, None),
    express=grouped_keys,
    fixed={"partial_rotary_factor": (1.0, None)},
    tied=LLAMA_TIED,
    rules=llama_tensors("post_attention_layernorm", "post_feedforward_layernorm"),
)
