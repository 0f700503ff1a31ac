"""Shapes of encoder-decoders. Counts marked Hugging Face are of the checkpoints published there, exact."""

import dataclasses

from configs.shapes import Shape
from lm.model.config import Architecture, AttentionConfig, MLPConfig, ModelConfig

PIECES = 32_128  # 32,000 pieces and 100 sentinels, rounded up to a multiple of 128

# name: d_model, d_ff, head size, heads, layers of each stack, parameters (Hugging Face)
T5 = {
    "t5_small": (512, 2048, 64, 8, 6, 60_506_624),
    "t5_base": (768, 3072, 64, 12, 12, 222_903_552),
    "t5_large": (1024, 4096, 64, 16, 24, 737_668_096),
    "t5_3b": (1024, 16_384, 128, 32, 24, 2_851_598_336),
    "t5_11b": (1024, 65_536, 128, 128, 24, 11_307_321_344),
}
T5_V1_1 = {
    "t5_v1_1_small": (512, 1024, 64, 6, 8, 76_961_152),
    "t5_v1_1_base": (768, 2048, 64, 12, 12, 247_577_856),
    "t5_v1_1_large": (1024, 2816, 64, 16, 24, 783_150_080),
    "t5_v1_1_xl": (2048, 5120, 64, 32, 24, 2_849_757_184),
    "t5_v1_1_xxl": (4096, 10_240, 64, 64, 24, 11_135_332_352),
}


def t5(d_model: int, d_ff: int, head_dim: int, num_heads: int, num_layers: int) -> ModelConfig:
    """Raffel et al. 2020, section 2.1: relative position biases per stack, RMSNorm, no other bias, one table at both ends."""
    return ModelConfig(
        architecture="encoder_decoder",
        vocab_size=PIECES,
        d_model=d_model,
        num_layers=num_layers,
        max_length=512,
        attention=AttentionConfig(num_heads=num_heads, head_dim=head_dim, scale=1.0),
        mlp=MLPConfig(d_ff=d_ff, activation="relu"),
        positions="relative",
        tied_head=True,
        logit_scale=d_model**-0.5,
    )


def t5_v1_1(d_model: int, d_ff: int, head_dim: int, num_heads: int, num_layers: int) -> ModelConfig:
    """The T5 that Shazeer 2020 made: a gated GELU, and a head of its own."""
    model = t5(d_model, d_ff, head_dim, num_heads, num_layers)
    return dataclasses.replace(model, mlp=MLPConfig(d_ff=d_ff, activation="gelu", gated=True), tied_head=False, logit_scale=1.0)


# The same with 250,000 pieces (Xue et al. 2021)
MT5 = {
    "mt5_small": (512, 1024, 64, 6, 8, 300_176_768),
    "mt5_base": (768, 2048, 64, 12, 12, 582_401_280),
    "mt5_large": (1024, 2816, 64, 16, 24, 1_229_581_312),
    "mt5_xl": (2048, 5120, 64, 32, 24, 3_742_619_648),
    "mt5_xxl": (4096, 10_240, 64, 64, 24, 12_921_057_280),
}


def t5_alone(architecture: Architecture, *shape: int) -> ModelConfig:
    """One of T5's stacks without a second one: the language model and the prefix LM of Raffel et al. 2020, table 2."""
    return dataclasses.replace(t5(*shape), architecture=architecture)


# name: d_model, layers of each stack, heads, d_ff, parameters (Hugging Face, whose position tables have two rows that nothing reads)
BART = {
    "bart_base": (768, 6, 12, 3072, 139_420_416),
    "bart_large": (1024, 12, 16, 4096, 406_291_456),
}


def bart(d_model: int, num_layers: int, num_heads: int, d_ff: int) -> ModelConfig:
    """Lewis et al. 2020, section 2.1: post-norm with GELU, biases, learned positions, a norm over the embeddings."""
    return ModelConfig(
        architecture="encoder_decoder",
        vocab_size=50_265,
        d_model=d_model,
        num_layers=num_layers,
        max_length=1024,
        attention=AttentionConfig(num_heads=num_heads, head_dim=d_model // num_heads, bias=True),
        mlp=MLPConfig(d_ff=d_ff, activation="gelu_exact", bias=True),
        norm="layernorm",
        norm_epsilon=1e-5,
        norm_placement="post",
        embedding_norm=True,
        final_norm=False,
        positions="learned",
        tied_head=True,
    )


# name: d_model, heads, d_ff, parameters (Vaswani et al. 2017, table 3)
ORIGINAL = {
    "transformer_base": (512, 8, 2048, 65_000_000),
    "transformer_big": (1024, 16, 4096, 213_000_000),
}


def original(d_model: int, num_heads: int, d_ff: int) -> ModelConfig:
    """Vaswani et al. 2017, section 3: post-norm, sinusoidal positions, 6 layers a stack, about 37,000 pieces in one table at three places.

    Biases are those that the paper writes: of the feed-forward layers (equation 2), and none of attention.
    """
    return ModelConfig(
        architecture="encoder_decoder",
        vocab_size=37_000,
        d_model=d_model,
        num_layers=6,
        max_length=512,
        attention=AttentionConfig(num_heads=num_heads, head_dim=d_model // num_heads),
        mlp=MLPConfig(d_ff=d_ff, activation="relu", bias=True),
        norm="layernorm",
        norm_placement="post",
        final_norm=False,
        positions="sinusoidal",
        tied_head=True,
        embedding_scale=d_model**0.5,
    )


def _all() -> dict[str, Shape]:
    shapes = {name: Shape(t5(*row), count) for name, (*row, count) in T5.items()}
    base = shapes["t5_base"].model
    # Raffel et al. 2020, table 2, at base size. The paper calls both P, the parameters of one stack, and states no number of its own.
    shapes["t5_base_shared"] = Shape(dataclasses.replace(base, shared_stacks=True), None)
    shapes["t5_base_half"] = Shape(dataclasses.replace(base, num_layers=6), None)
    shapes |= {name: Shape(t5_v1_1(*row), count) for name, (*row, count) in T5_V1_1.items()}
    for name, (*row, count) in MT5.items():
        shapes[name] = Shape(dataclasses.replace(t5_v1_1(*row), vocab_size=250_112, max_length=1024), count)
    for name, (*row, count) in BART.items():
        shapes[name] = Shape(bart(*row), count, difference=-2 * 2 * row[0])
    for name, (*row, count) in ORIGINAL.items():
        # The base model comes out 3.0% below the paper's 65M, the big one 0.5% above its 213M: no one vocabulary gives both.
        shapes[name] = Shape(original(*row), count, within=0.031)
    return shapes


SHAPES = _all()
