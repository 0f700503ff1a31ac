"""The families of decoders: GPT-2, Llama, Mistral, Qwen3 and GPT-NeoX (imports no jax)."""

from typing import Any

from lm.errors import UserError
from lm.hf.family import Family, heads
from lm.hf.forms import Rule, attention, dense, fused, norm, same
from lm.hf.options import ACTIVATIONS, Flat, Option, Options
from lm.model.config import RopeScaling

LAYER = "decoder/block_00"


def rotary(
    options: Options, names: tuple[str, ...] = ("rope_theta",), extra: tuple[str, ...] = (), theta: float = 10_000.0
) -> tuple[Flat, dict[str, Any]]:
    """Returns (fields of rotary positions, the group of keys that they come from).

    The keys are `rope_parameters` (transformers 5), or `rope_scaling` and the keys `names`. `extra` are keys of the group that the caller
    reads, and `theta` is the family's default base.
    """
    new, old = options.take("rope_parameters", None), options.take("rope_scaling", None)
    key, group = ("rope_scaling", old) if old else ("rope_parameters", new or {})
    if not isinstance(group, dict):
        raise options.refusal(key, group, "an object of options")
    outside = options.agreed(names, theta)
    inner = Options(group, f"{options.where}: {key}")
    kind = inner.take("rope_type", inner.take("type", "default"))
    inner.take("type", None)
    for name in extra:
        inner.take(name, None)
    flat: Flat = {"positions": "rope", "rope_theta": float(inner.number("rope_theta", outside)), "rope_scaling": None}
    if kind == "llama3":
        length = inner.number("original_max_position_embeddings", options.values.get("max_position_embeddings"))
        factor, low, high = (float(inner.number(name)) for name in ("factor", "low_freq_factor", "high_freq_factor"))
        flat["rope_scaling"] = RopeScaling(factor, low, high, length)
    elif kind != "default":
        raise inner.refusal("rope_type", kind, "supported: 'default', 'llama3'")
    inner.finish(frozenset())
    return flat, group


def rotary_keys(flat: Flat) -> dict[str, Any]:
    """Returns the keys of rotary positions that transformers 4 and 5 both read."""
    scaling = flat["rope_scaling"]
    if scaling is None:
        return {"rope_theta": flat["rope_theta"], "rope_scaling": None}
    group = {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency_factor,
        "high_freq_factor": scaling.high_frequency_factor,
        "original_max_position_embeddings": scaling.original_length,
    }
    return {"rope_theta": flat["rope_theta"], "rope_scaling": group}


def _gpt2(options: Options, names: frozenset[str]) -> Flat:
    number, size = heads(options, "n_embd", "n_head")
    inner = options.take("n_inner", None)
    width = 4 * options.number("n_embd") if inner is None else inner
    return {"attention.num_heads": number, "attention.head_dim": size, "mlp.d_ff": width}


def _gpt2_keys(flat: Flat) -> dict[str, Any]:
    return {"n_head": flat["attention.num_heads"], "n_inner": flat["mlp.d_ff"]}


# `summary_` keys belong to a head that no causal model has; n_ctx is an older name of n_positions.
GPT2_INERT = frozenset(f"summary_{name}" for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout"))
GPT2_INERT |= {"n_ctx", "n_special", "predict_special_tokens", "reorder_and_upcast_attn"}

GPT2 = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    options=(
        Option("vocab_size", "vocab_size"),
        Option("n_embd", "d_model"),
        Option("n_layer", "num_layers"),
        Option("n_positions", "max_length", 1024),
        Option("activation_function", "mlp.activation", "gelu_new", ACTIVATIONS),
        Option("layer_norm_epsilon", "norm_epsilon", 1e-5),
        Option("tie_word_embeddings", "tied_head", True),
    ),
    constants={"norm": "layernorm", "positions": "learned", "attention.bias": True, "mlp.bias": True},
    derive=_gpt2,
    express=_gpt2_keys,
    fixed={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,)},
    inert=GPT2_INERT,
    tied={"lm_head.weight": "transformer.wte.weight"},
    rules=(
        *same("transformer.wte.weight", "embed/embedding"),
        *same("transformer.wpe.weight", "decoder/position/embedding"),
        *norm("transformer.h.{}.ln_1", f"{LAYER}/attention_norm"),
        *fused("transformer.h.{}.attn.c_attn", f"{LAYER}/attention", swapped=False, by_head=False),
        *dense("transformer.h.{}.attn.c_proj", f"{LAYER}/attention/out", ins=2, swapped=False),
        *norm("transformer.h.{}.ln_2", f"{LAYER}/mlp_norm"),
        *dense("transformer.h.{}.mlp.c_fc", f"{LAYER}/mlp/up", swapped=False),
        *dense("transformer.h.{}.mlp.c_proj", f"{LAYER}/mlp/down", swapped=False),
        *norm("transformer.ln_f", "decoder/norm"),
        *dense("lm_head", "head"),
    ),
)

LLAMA_OPTIONS = (
    Option("vocab_size", "vocab_size"),
    Option("hidden_size", "d_model"),
    Option("num_hidden_layers", "num_layers"),
    Option("intermediate_size", "mlp.d_ff"),
    Option("hidden_act", "mlp.activation", "silu", ACTIVATIONS),
    Option("rms_norm_eps", "norm_epsilon", 1e-6),
    Option("tie_word_embeddings", "tied_head", False),
)
LLAMA_CONSTANTS = {"norm": "rmsnorm", "mlp.gated": True}
LLAMA_TIED = {"lm_head.weight": "model.embed_tokens.weight"}


def llama_tensors(attention_norm: str = "input_layernorm", mlp_norm: str = "post_attention_layernorm") -> tuple[Rule, ...]:
    """Returns the rules of Llama's tensors, with these names for the norms of a layer."""
    return (
        *same("model.embed_tokens.weight", "embed/embedding"),
        *norm(f"model.layers.{{}}.{attention_norm}", f"{LAYER}/attention_norm"),
        *attention("model.layers.{}.self_attn", f"{LAYER}/attention", ("q_proj", "k_proj", "v_proj", "o_proj")),
        *norm("model.layers.{}.self_attn.q_norm", f"{LAYER}/attention/query_norm"),
        *norm("model.layers.{}.self_attn.k_norm", f"{LAYER}/attention/key_norm"),
        *norm(f"model.layers.{{}}.{mlp_norm}", f"{LAYER}/mlp_norm"),
        *dense("model.layers.{}.mlp.gate_proj", f"{LAYER}/mlp/gate"),
        *dense("model.layers.{}.mlp.up_proj", f"{LAYER}/mlp/up"),
        *dense("model.layers.{}.mlp.down_proj", f"{LAYER}/mlp/down"),
        *norm("model.norm", "decoder/norm"),
        *dense("lm_head", "head"),
    )


def grouped(options: Options, key_value_heads: Any, theta: float = 10_000.0) -> Flat:
    """Returns the fields of heads and rotary positions.

    `key_value_heads` is the family's default, None for as many as query heads, and `theta` that of the base of rotary positions.
    """
    number, size = heads(options, "hidden_size", "num_attention_heads", "head_dim")
    groups = options.take("num_key_value_heads", key_value_heads)
    groups = None if groups == number else groups
    flat, _ = rotary(options, theta=theta)
    return {**flat, "attention.num_heads": number, "attention.num_kv_heads": groups, "attention.head_dim": size}


def grouped_keys(flat: Flat) -> dict[str, Any]:
    number = flat["attention.num_heads"]
    groups = flat["attention.num_kv_heads"] or number
    keys = {"num_attention_heads": number, "num_key_value_heads": groups, "head_dim": flat["attention.head_dim"]}
    return {**keys, **rotary_keys(flat)}


LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    prefix="model.",
    options=(
        *LLAMA_OPTIONS,
        Option("max_position_embeddings", "max_length", 2048),
        Option("attention_bias", "attention.bias", False),
        Option("mlp_bias", "mlp.bias", False),
    ),
    constants=LLAMA_CONSTANTS,
    derive=lambda options, names: grouped(options, None),
    express=grouped_keys,
    fixed={"partial_rotary_factor": (1.0, None)},
    tied=LLAMA_TIED,
    rules=llama_tensors(),
)
MISTRAL = Family(
    name="mistral",
    architecture="MistralForCausalLM",
    prefix="model.",
    options=(
        *LLAMA_OPTIONS,
        Option("max_position_embeddings", "max_length", 131_072),
        Option("sliding_window", "attention.window", 4096),
    ),
    constants=LLAMA_CONSTANTS,
    derive=lambda options, names: grouped(options, 8),
    express=grouped_keys,
    fixed={"attention_bias": (False,), "partial_rotary_factor": (1.0, None)},
    tied=LLAMA_TIED,
    rules=llama_tensors(),
)


def windowed(options: Options, flat: Flat) -> Flat:
    """Returns the fields with the window of Qwen's models, which all layers have or none."""
    window = options.take("sliding_window", 4096)
    window = window if options.take("use_sliding_window", False) else None
    layers, first = int(options.number("num_hidden_layers")), options.take("max_window_layers", 28)
    kinds = options.take("layer_types", None) or [
        "sliding_attention" if window is not None and layer >= first else "full_attention" for layer in range(layers)
    ]
    if not isinstance(kinds, list) or len(set(kinds)) > 1 or not set(kinds) <= {"full_attention", "sliding_attention"}:
        key = "layer_types" if "layer_types" in options.values else "max_window_layers"
        raise options.refusal(key, options.values.get(key, first), "all layers have the same window, or none")
    if "sliding_attention" in kinds and window is None:
        raise options.refusal("layer_types", kinds, "and no sliding_window is set")
    return {**flat, "attention.window": window if "sliding_attention" in kinds else None}


def windowed_keys(flat: Flat) -> dict[str, Any]:
    """Returns the keys of heads, rotary positions and the window of Qwen's models."""
    window = flat["attention.window"]
    keys = {"use_sliding_window": window is not None, "sliding_window": window}
    return {**grouped_keys(flat), **keys, "max_window_layers": 0 if window else flat["num_layers"]}


def _qwen3(options: Options, names: frozenset[str]) -> Flat:
    flat = grouped(options, 32)
    if "head_dim" not in options.values:  # Qwen3 does not derive it from the width
        flat["attention.head_dim"] = 128
    return windowed(options, flat)


QWEN3 = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    prefix="model.",
    options=(
        *LLAMA_OPTIONS,
        Option("max_position_embeddings", "max_length", 32_768),
        Option("attention_bias", "attention.bias", False),
    ),
    constants={**LLAMA_CONSTANTS, "attention.qk_norm": True},
    derive=_qwen3,
    express=windowed_keys,
    fixed={"partial_rotary_factor": (1.0, None)},
    tied=LLAMA_TIED,
    rules=llama_tensors(),
)


def _neox(options: Options, names: frozenset[str]) -> Flat:
    number, size = heads(options, "hidden_size", "num_attention_heads")
    flat, group = rotary(options, ("rotary_emb_base", "rope_theta"), extra=("partial_rotary_factor",))
    share = group.get("partial_rotary_factor", options.agreed(("rotary_pct", "partial_rotary_factor"), 0.25))
    turned = int(size * share)  # as transformers rounds it
    if turned % 2 or not turned:
        raise UserError(
            f"{options.where}: rotary_pct={share} of head size {size} turns {turned} dimensions; an even number above 0 is supported"
        )
    return {**flat, "rotary_fraction": turned / size, "attention.num_heads": number, "attention.head_dim": size}


def _neox_keys(flat: Flat) -> dict[str, Any]:
    keys = rotary_keys(flat)
    own = {"rotary_emb_base": keys.pop("rope_theta"), "rotary_pct": flat["rotary_fraction"]}
    return {"num_attention_heads": flat["attention.num_heads"], **keys, **own}


GPT_NEOX = Family(
    name="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    prefix="gpt_neox.",
    options=(
        Option("vocab_size", "vocab_size"),
        Option("hidden_size", "d_model"),
        Option("num_hidden_layers", "num_layers"),
        Option("intermediate_size", "mlp.d_ff"),
        Option("hidden_act", "mlp.activation", "gelu", ACTIVATIONS),
        Option("layer_norm_eps", "norm_epsilon", 1e-5),
        Option("max_position_embeddings", "max_length", 2048),
        Option("use_parallel_residual", "parallel_residual", True),
        Option("attention_bias", "attention.bias", True),
        Option("tie_word_embeddings", "tied_head", False),
    ),
    constants={"norm": "layernorm", "mlp.bias": True},
    derive=_neox,
    express=_neox_keys,
    tied={"embed_out.weight": "gpt_neox.embed_in.weight"},
    renamed=(("lm_head.", "embed_out."),),
    rules=(
        *same("gpt_neox.embed_in.weight", "embed/embedding"),
        *norm("gpt_neox.layers.{}.input_layernorm", f"{LAYER}/attention_norm"),
        *fused("gpt_neox.layers.{}.attention.query_key_value", f"{LAYER}/attention", swapped=True, by_head=True),
        *dense("gpt_neox.layers.{}.attention.dense", f"{LAYER}/attention/out", ins=2),
        *norm("gpt_neox.layers.{}.post_attention_layernorm", f"{LAYER}/mlp_norm"),
        *dense("gpt_neox.layers.{}.mlp.dense_h_to_4h", f"{LAYER}/mlp/up"),
        *dense("gpt_neox.layers.{}.mlp.dense_4h_to_h", f"{LAYER}/mlp/down"),
        *norm("gpt_neox.final_layer_norm", "decoder/norm"),
        *dense("embed_out", "head"),
    ),
)
