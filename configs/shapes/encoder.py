"""Shapes of encoder-only models."""

import dataclasses

from configs.shapes import Shape
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.outputs import next_sentence

# name: d_model, layers, heads, parameters (Hugging Face's BertForPreTraining; without its heads 109,482,240 and 335,141,888)
BERT = {
    "bert_base": (768, 12, 12, 110_106_428),
    "bert_large": (1024, 24, 16, 336_226_108),
}


# name: d_model, layers, heads, parameters (Hugging Face's RobertaForMaskedLM, whose table of positions has two rows of padding)
ROBERTA = {
    "roberta_base": (768, 12, 12, 124_697_433),
    "roberta_large": (1024, 24, 16, 355_412_057),
}


def bert(d_model: int, num_layers: int, num_heads: int) -> ModelConfig:
    """Devlin et al. 2019, section 3: post-norm, learned positions, two types of token, and the heads of its two objectives."""
    return ModelConfig(
        architecture="encoder",
        vocab_size=30_522,
        d_model=d_model,
        num_layers=num_layers,
        max_length=512,
        attention=AttentionConfig(num_heads=num_heads, head_dim=d_model // num_heads, bias=True),
        mlp=MLPConfig(d_ff=4 * d_model, activation="gelu_exact", bias=True),
        norm="layernorm",
        norm_epsilon=1e-12,
        norm_placement="post",
        embedding_norm=True,
        final_norm=False,
        positions="learned",
        token_types=2,
        tied_head=True,
        head_transform=True,
        head_bias=True,
        outputs=(next_sentence(),),
    )


def roberta(d_model: int, num_layers: int, num_heads: int) -> ModelConfig:
    """Liu et al. 2019: BERT with GPT-2's pieces and without the second type of token and the head of next sentences."""
    model = bert(d_model, num_layers, num_heads)
    return dataclasses.replace(model, vocab_size=50_265, token_types=1, norm_epsilon=1e-5, outputs=())


SHAPES = {name: Shape(bert(*row), count) for name, (*row, count) in BERT.items()}
SHAPES |= {name: Shape(roberta(*row), count, difference=-2 * row[0]) for name, (*row, count) in ROBERTA.items()}
