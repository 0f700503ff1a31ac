"""The supported families, and the choice of the one that a config.json or a configuration belongs to (imports no jax)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

from lm import config as config_lib
from lm.errors import UserError
from lm.hf import bart, bert, decoders, kin, t5
from lm.hf.family import Family
from lm.model.config import MLPConfig, ModelConfig

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(decoders.GPT2, decoders.LLAMA, decoders.MISTRAL, decoders.QWEN3, decoders.GPT_NEOX, t5.T5, bert.BERT, bart.BART),
        *(kin.QWEN2, kin.GEMMA, kin.SMOLLM3, kin.OLMO2, t5.MT5, bert.ROBERTA),
    )
}
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")  # keys of families whose feed-forward layers are mixtures of experts


def family_of(values: Mapping[str, Any], where: str) -> Family:
    """Returns the family that a config.json names. Raises UserError if it is not supported."""
    name = values.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        experts = next((key for key in EXPERTS if values.get(key)), None)
        why = f" ({experts}={values[experts]!r}: mixtures of experts, and the layers here are dense)" if experts else ""
        raise UserError(f"{where}: model_type={name!r} is not supported{why}; supported are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def for_config(config: ModelConfig, name: Optional[str] = None, like: Optional[str] = None) -> Family:
    """Returns the first family (or the one called `name`) whose config.json can hold all of a configuration; `like` goes before others.

    Raises:
      UserError: none can. The message names what would be lost.
    """
    if name is not None and name not in FAMILIES:
        raise UserError(f"family {name!r} is not supported; supported are {', '.join(FAMILIES)}")
    candidates = [FAMILIES[name]] if name is not None else sorted(FAMILIES.values(), key=lambda family: family.name != like)
    lost = {family.name: _lost(family, config) for family in candidates}
    nearest = min(lost, key=lambda family: len(lost[family]))
    if lost[nearest]:
        which, changes = "this" if name else "any", "; ".join(dict.fromkeys(lost[nearest]))
        raise UserError(f"no config.json of {which} family holds the model: {nearest} would change {changes}")
    return FAMILIES[nearest]


def _lost(family: Family, config: ModelConfig) -> list[str]:
    """Returns what a round trip through the family's config.json would change in the function computed."""
    kind = family.constants.get("mlp.name", MLPConfig.name)
    if config.mlp.name != kind:  # the family's table reads options that another kind of layer lacks
        return [f"mlp: {config.mlp.name} -> {kind}"] * 99
    try:
        back = family.config(family.values(config), _names(config), family.name)
    except UserError as error:
        return [str(error)] * 99  # further than any family that only differs
    return config_lib.differences(effective(config), effective(back))


def _names(config: ModelConfig) -> frozenset[str]:
    """Returns the names of tensors whose presence says what a config.json does not."""
    flags = {
        "lm_head.weight": config.vocabulary_head and not config.tied_head,
        "lm_head.bias": config.head_bias,
        "final_logits_bias": config.head_bias,
        "cls.predictions.bias": config.head_bias,
        "pooler.dense.weight": config.pooler or any(output.pooled for output in config.outputs),
        "cls.seq_relationship.weight": any(output.name == "next_sentence" for output in config.outputs),
    }
    return frozenset(name for name, there in flags.items() if there)


def effective(config: ModelConfig) -> ModelConfig:
    """Returns the configuration with defaults for all that does not affect the function of given weights.

    That is initialisation, packing, and options that other options turn off.
    """
    own = ModelConfig()
    attention = config.attention
    if attention.num_kv_heads == attention.num_heads:
        attention = dataclasses.replace(attention, num_kv_heads=None)
    if attention.out_bias == attention.bias:
        attention = dataclasses.replace(attention, out_bias=None)
    attention = dataclasses.replace(attention, qk_bias_init=0.0, documents=own.attention.documents)
    if attention.scale is not None and abs(attention.scale - attention.head_dim**-0.5) < 1e-12:
        attention = dataclasses.replace(attention, scale=None)
    layers = None if config.encoder_layers == config.num_layers else config.encoder_layers
    config = dataclasses.replace(config, attention=attention, encoder_layers=layers, embedding_std=None, zero_init_outputs=False)
    if config.positions != "relative":
        config = dataclasses.replace(config, relative_buckets=own.relative_buckets, relative_max_distance=own.relative_max_distance)
    if config.positions != "rope":
        config = dataclasses.replace(config, rope_theta=own.rope_theta, rope_scaling=None, rotary_fraction=1.0)
    if config.no_rope_interval is not None and config.no_rope_interval > max(config.num_layers, config.encoder_layers or 0):
        config = dataclasses.replace(config, no_rope_interval=None)
    return config
