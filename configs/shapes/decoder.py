"""Shapes of decoder-only models. Counts marked Hugging Face are of the checkpoints published there, exact."""

import dataclasses
from typing import Optional

from configs.shapes import Shape
from lm.model.config import Activation, AttentionConfig, MLPConfig, ModelConfig, RopeScaling

# name: d_model, layers, heads, parameters
GPT2 = {
    "gpt2_small": (768, 12, 12, 124_439_808),
    "gpt2_medium": (1024, 24, 16, 354_823_168),
    "gpt2_large": (1280, 36, 20, 774_030_080),
    "gpt2_xl": (1600, 48, 25, 1_557_611_200),
}


def gpt2(d_model: int, num_layers: int, num_heads: int, *, vocab_size: int = 50_257, max_length: int = 1024) -> ModelConfig:
    """Radford et al. 2019, table 2: learned positions, LayerNorm before each layer, biases, one table at both ends."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=num_layers,
        max_length=max_length,
        attention=AttentionConfig(num_heads=num_heads, head_dim=d_model // num_heads, bias=True, documents="joined"),
        mlp=MLPConfig(d_ff=4 * d_model, activation="gelu", bias=True),
        norm="layernorm",
        norm_epsilon=1e-5,
        positions="learned",
        tied_head=True,
    )


# Brown et al. 2020, table 2.1, with heads that fill the width (the table prints 24 heads of 128 for 2048 and a width of 5,140 for 13B)
GPT3 = {
    "gpt3_125m": (768, 12, 12, 125_000_000),
    "gpt3_350m": (1024, 24, 16, 350_000_000),
    "gpt3_760m": (1536, 24, 16, 760_000_000),
    "gpt3_1_3b": (2048, 24, 16, 1_300_000_000),
    "gpt3_2_7b": (2560, 32, 32, 2_700_000_000),
    "gpt3_6_7b": (4096, 32, 32, 6_700_000_000),
    "gpt3_13b": (5120, 40, 40, 13_000_000_000),
    "gpt3_175b": (12_288, 96, 96, 175_000_000_000),
}

# name: d_model, layers, heads, head size, parameters (Rae et al. 2021, table 1; Hoffmann et al. 2022, tables 4 and A4)
GOPHER = {
    "gopher_44m": (512, 8, 16, 32, 44_000_000),
    "gopher_117m": (768, 12, 12, 64, 117_000_000),
    "gopher_417m": (1536, 12, 12, 128, 417_000_000),
    "gopher_1_4b": (2048, 24, 16, 128, 1_400_000_000),
    "gopher_7_1b": (4096, 32, 32, 128, 7_100_000_000),
    "gopher_280b": (16_384, 80, 128, 128, 280_000_000_000),
}
CHINCHILLA = {
    "chinchilla_74m": (640, 10, 10, 64, 74_000_000),
    "chinchilla_306m": (1024, 20, 16, 64, 306_000_000),
    "chinchilla_552m": (1280, 24, 10, 128, 552_000_000),
    "chinchilla_1_1b": (1792, 26, 14, 128, 1_143_000_000),
    "chinchilla_1_6b": (2048, 28, 16, 128, 1_593_000_000),
    "chinchilla_6_8b": (3584, 40, 28, 128, 6_796_000_000),
    "chinchilla_70b": (8192, 80, 64, 128, 70_000_000_000),
}


def gopher(d_model: int, num_layers: int, num_heads: int, head_dim: int) -> ModelConfig:
    """Rae et al. 2021, section 3.1: GPT-2's block with RMSNorm and a table of 32,000 pieces at both ends.

    Gopher's positions are those of Transformer-XL, whose projection of distances is a d_model x d_model kernel in every layer. Rotary
    positions stand for them here, so that ours have num_layers x d_model^2 fewer parameters: a thirteenth of the blocks.
    """
    return ModelConfig(
        vocab_size=32_000,
        d_model=d_model,
        num_layers=num_layers,
        max_length=2048,
        attention=AttentionConfig(num_heads=num_heads, head_dim=head_dim, bias=True),
        mlp=MLPConfig(d_ff=4 * d_model, activation="gelu", bias=True),
        positions="rope",
        tied_head=True,
    )


# name: d_model, layers, heads, key/value heads, d_ff, parameters (Hugging Face)
LLAMA2 = {
    "llama2_7b": (4096, 32, 32, 32, 11_008, 6_738_415_616),
    "llama2_13b": (5120, 40, 40, 40, 13_824, 13_015_864_320),
    "llama2_70b": (8192, 80, 64, 8, 28_672, 68_976_648_192),
}
LLAMA3 = {
    "llama3_8b": (4096, 32, 32, 8, 14_336, 8_030_261_248),
    "llama3_70b": (8192, 80, 64, 8, 28_672, 70_553_706_496),
}
# The same with longer contexts, and their scaling of rotary frequencies; those of 3.2 have one table at both ends
LLAMA31 = {
    "llama3_1_8b": (*LLAMA3["llama3_8b"], 8.0),
    "llama3_1_70b": (*LLAMA3["llama3_70b"], 8.0),
    "llama3_1_405b": (16_384, 126, 128, 8, 53_248, 405_853_388_800, 8.0),
    "llama3_2_1b": (2048, 16, 32, 8, 8192, 1_235_814_400, 32.0),
    "llama3_2_3b": (3072, 28, 24, 8, 8192, 3_212_749_824, 32.0),
}
MISTRAL = {"mistral_7b": (4096, 32, 32, 8, 14_336, 7_241_732_096)}


def llama(
    d_model: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    d_ff: int,
    *,
    vocab_size: int,
    max_length: int,
    rope_theta: float = 500_000.0,
    factor: Optional[float] = None,
    window: Optional[int] = None,
    tied_head: bool = False,
) -> ModelConfig:
    """Touvron et al. 2023 and Grattafiori et al. 2024: rotary positions, RMSNorm, gated SiLU, no biases; `factor` stretches the positions.

    Mistral 7B (Jiang et al. 2023) is the same with a sliding window.
    """
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=num_layers,
        max_length=max_length,
        attention=AttentionConfig(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=d_model // num_heads, window=window),
        mlp=MLPConfig(d_ff=d_ff, activation="silu", gated=True),
        norm_epsilon=1e-5,
        rope_theta=rope_theta,
        rope_scaling=None if factor is None else RopeScaling(factor=factor),
        tied_head=tied_head,
    )


# name: d_model, layers, heads, d_ff, tied, parameters (Hugging Face)
QWEN3 = {
    "qwen3_0_6b": (1024, 28, 16, 3072, True, 596_049_920),
    "qwen3_1_7b": (2048, 28, 16, 6144, True, 1_720_574_976),
    "qwen3_4b": (2560, 36, 32, 9728, True, 4_022_468_096),
    "qwen3_8b": (4096, 36, 32, 12_288, False, 8_190_735_360),
    "qwen3_14b": (5120, 40, 40, 17_408, False, 14_768_307_200),
    "qwen3_32b": (5120, 64, 64, 25_600, False, 32_762_123_264),
}


def qwen3(d_model: int, num_layers: int, num_heads: int, d_ff: int, *, tied_head: bool) -> ModelConfig:
    """Yang et al. 2025: 8 key/value heads, heads of 128 whatever the width, queries and keys normalised."""
    return ModelConfig(
        vocab_size=151_936,
        d_model=d_model,
        num_layers=num_layers,
        max_length=32_768,
        attention=AttentionConfig(num_heads=num_heads, num_kv_heads=8, head_dim=128, qk_norm=True),
        mlp=MLPConfig(d_ff=d_ff, activation="silu", gated=True),
        rope_theta=1_000_000.0,
        tied_head=tied_head,
    )


# name: d_model, layers, heads, key/value heads, d_ff, vocabulary, parameters (Hugging Face); one table at both ends up to 3B
QWEN25 = {
    "qwen2_5_0_5b": (896, 24, 14, 2, 4864, 151_936, 494_032_768),
    "qwen2_5_1_5b": (1536, 28, 12, 2, 8960, 151_936, 1_543_714_304),
    "qwen2_5_3b": (2048, 36, 16, 2, 11_008, 151_936, 3_085_938_688),
    "qwen2_5_7b": (3584, 28, 28, 4, 18_944, 152_064, 7_615_616_512),
    "qwen2_5_14b": (5120, 48, 40, 8, 13_824, 152_064, 14_770_033_664),
    "qwen2_5_32b": (5120, 64, 40, 8, 27_648, 152_064, 32_763_876_352),
    "qwen2_5_72b": (8192, 80, 64, 8, 29_568, 152_064, 72_706_203_648),
}


def qwen2_5(d_model: int, num_layers: int, num_heads: int, num_kv_heads: int, d_ff: int, vocab_size: int) -> ModelConfig:
    """Yang et al. 2024: Llama's layers with biases of queries, keys and values."""
    model = llama(
        *(d_model, num_layers, num_heads, num_kv_heads, d_ff),
        vocab_size=vocab_size,
        max_length=32_768,
        rope_theta=1_000_000.0,
        tied_head=d_model <= 2048,
    )
    return dataclasses.replace(model, attention=dataclasses.replace(model.attention, bias=True, out_bias=False), norm_epsilon=1e-6)


# name: d_model, layers, heads, key/value heads, d_ff, parameters (Hugging Face)
GEMMA = {
    "gemma_2b": (2048, 18, 8, 1, 16_384, 2_506_172_416),
    "gemma_7b": (3072, 28, 16, 16, 24_576, 8_537_680_896),
}


def gemma(d_model: int, num_layers: int, num_heads: int, num_kv_heads: int, d_ff: int) -> ModelConfig:
    """Gemma team 2024, section 2: heads of 256, gated GELU, one table at both ends, whose rows enter multiplied by d_model^1/2."""
    return ModelConfig(
        vocab_size=256_000,
        d_model=d_model,
        num_layers=num_layers,
        max_length=8192,
        attention=AttentionConfig(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=256),
        mlp=MLPConfig(d_ff=d_ff, activation="gelu", gated=True),
        tied_head=True,
        embedding_scale=d_model**0.5,
    )


# name: d_model, layers, heads, key/value heads, d_ff, parameters (Hugging Face)
SMOLLM3 = {"smollm3_3b": (2048, 36, 16, 4, 11_008, 3_075_098_624)}
OLMO2 = {
    "olmo2_1b": (2048, 16, 16, 16, 8192, 1_484_916_736),
    "olmo2_7b": (4096, 32, 32, 32, 11_008, 7_298_617_344),
    "olmo2_13b": (5120, 40, 40, 40, 13_824, 13_716_198_400),
    "olmo2_32b": (5120, 64, 40, 8, 27_648, 32_234_279_936),
}


def olmo2(*sizes: int) -> ModelConfig:
    """OLMo team 2025, section 3: Llama's layers with norms of their results, and of all queries and all keys together."""
    model = llama(*sizes, vocab_size=100_352, max_length=4096)
    normed = dataclasses.replace(model.attention, qk_norm=True, qk_norm_over="heads")
    return dataclasses.replace(model, attention=normed, norm_placement="post_inside", norm_epsilon=1e-6)


# name: d_model, layers, heads, vocabulary (padded for the devices of its training), parameters (Hugging Face)
PYTHIA = {
    "pythia_70m": (512, 6, 8, 50_304, 70_426_624),
    "pythia_160m": (768, 12, 12, 50_304, 162_322_944),
    "pythia_410m": (1024, 24, 16, 50_304, 405_334_016),
    "pythia_1b": (2048, 16, 8, 50_304, 1_011_781_632),
    "pythia_1_4b": (2048, 24, 16, 50_304, 1_414_647_808),
    "pythia_2_8b": (2560, 32, 32, 50_304, 2_775_208_960),
    "pythia_6_9b": (4096, 32, 32, 50_432, 6_857_302_016),
    "pythia_12b": (5120, 36, 40, 50_688, 11_846_072_320),
    "gpt_neox_20b": (6144, 44, 64, 50_432, 20_554_567_680),
}


def pythia(d_model: int, num_layers: int, num_heads: int, vocab_size: int, *, activation: Activation = "gelu_exact") -> ModelConfig:
    """Biderman et al. 2023: attention and feed-forward in parallel, a quarter of each head turned.

    GPT-NeoX-20B (Black et al. 2022) is the same with the approximate GELU.
    """
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=num_layers,
        max_length=2048,
        attention=AttentionConfig(num_heads=num_heads, head_dim=d_model // num_heads, bias=True, documents="joined"),
        mlp=MLPConfig(d_ff=4 * d_model, activation=activation, bias=True),
        norm="layernorm",
        norm_epsilon=1e-5,
        parallel_residual=True,
        rotary_fraction=0.25,
    )


def _all() -> dict[str, Shape]:
    shapes = {name: Shape(gpt2(*row), count) for name, (*row, count) in GPT2.items()}
    shapes |= {name: Shape(gpt2(*row, max_length=2048), count, within=0.02) for name, (*row, count) in GPT3.items()}
    for name, (*row, count) in (GOPHER | CHINCHILLA).items():
        shapes[name] = Shape(gopher(*row), count, within=0.02, difference=-row[1] * row[0] ** 2)
    for name, (*row, count) in LLAMA2.items():
        shapes[name] = Shape(llama(*row, vocab_size=32_000, max_length=4096, rope_theta=10_000.0), count)
    for name, (*row, count) in LLAMA3.items():
        shapes[name] = Shape(llama(*row, vocab_size=128_256, max_length=8192), count)
    for name, (*row, count, factor) in LLAMA31.items():
        model = llama(*row, vocab_size=128_256, max_length=131_072, factor=factor, tied_head=name.startswith("llama3_2"))
        shapes[name] = Shape(model, count)
    for name, (*row, count) in MISTRAL.items():
        shapes[name] = Shape(llama(*row, vocab_size=32_000, max_length=8192, rope_theta=10_000.0, window=4096), count)
    for name, (*sizes, tied, count) in QWEN3.items():
        shapes[name] = Shape(qwen3(*sizes, tied_head=bool(tied)), count)
    shapes |= {name: Shape(qwen2_5(*row), count) for name, (*row, count) in QWEN25.items()}
    shapes |= {name: Shape(gemma(*row), count) for name, (*row, count) in GEMMA.items()}
    shapes |= {name: Shape(olmo2(*row), count) for name, (*row, count) in OLMO2.items()}
    for name, (*row, count) in SMOLLM3.items():  # Llama's, but that every fourth layer knows no positions
        model = llama(*row, vocab_size=128_256, max_length=65_536, rope_theta=5_000_000.0, tied_head=True)
        shapes[name] = Shape(dataclasses.replace(model, no_rope_interval=4, norm_epsilon=1e-6), count)
    for name, (*row, count) in PYTHIA.items():
        shapes[name] = Shape(pythia(*row, activation="gelu" if name == "gpt_neox_20b" else "gelu_exact"), count)
    return shapes


SHAPES = _all()
