"""BERT, with both heads, with the masked-LM head alone or without heads, and RoBERTa, with or without its head (imports no jax)."""

from typing import Any

from lm.hf.family import Family, has, heads
from lm.hf.forms import Dense, Form, Offset, Rule, Same, attention, dense, norm, same
from lm.hf.options import ACTIVATIONS, Flat, Option, Options
from lm.model.outputs import next_sentence

LAYER = "encoder/block_00"


def _bert(options: Options, names: frozenset[str]) -> Flat:
    """Returns the fields of heads. The tensors tell which heads there are, because files of one model carry the class name of another."""
    number, size = heads(options, "hidden_size", "num_attention_heads")
    vocabulary, sentences = has(names, "cls.predictions.bias"), has(names, "cls.seq_relationship.weight")
    tied = options.take("tie_word_embeddings", True)
    return {
        "attention.num_heads": number,
        "attention.head_dim": size,
        "vocabulary_head": vocabulary,
        "tied_head": vocabulary and tied,
        "head_bias": vocabulary,
        "head_transform": vocabulary,
        "pooler": not sentences and has(names, "pooler.dense.weight"),
        "outputs": (next_sentence(),) if sentences else (),
    }


def _bert_keys(flat: Flat) -> dict[str, Any]:
    vocabulary, sentences = flat["vocabulary_head"], bool(flat["outputs"])
    kind = "BertForPreTraining" if sentences else "BertForMaskedLM" if vocabulary else "BertModel"
    return {
        "architectures": [kind],
        "num_attention_heads": flat["attention.num_heads"],
        "tie_word_embeddings": flat["tied_head"] or not vocabulary,
    }


PAD = 1  # RoBERTa's padding id, after which the rows of positions that a text reads begin


def _roberta(options: Options, names: frozenset[str]) -> Flat:
    number, size = heads(options, "hidden_size", "num_attention_heads")
    vocabulary, tied = has(names, "lm_head.bias"), options.take("tie_word_embeddings", True)
    if vocabulary and options.choice("hidden_act", ACTIVATIONS, "gelu") != "gelu_exact":
        raise options.refusal("hidden_act", options.take("hidden_act"), "supported beside a head, which has 'gelu': 'gelu'")
    return {
        "attention.num_heads": number,
        "attention.head_dim": size,
        "max_length": options.number("max_position_embeddings", 512) - (PAD + 1),
        "vocabulary_head": vocabulary,
        "tied_head": vocabulary and tied,
        "head_bias": vocabulary,
        "head_transform": vocabulary,
        "pooler": has(names, "pooler.dense.weight"),
    }


def _roberta_keys(flat: Flat) -> dict[str, Any]:
    return {
        "architectures": ["RobertaForMaskedLM" if flat["vocabulary_head"] else "RobertaModel"],
        "num_attention_heads": flat["attention.num_heads"],
        "max_position_embeddings": flat["max_length"] + PAD + 1,
        "tie_word_embeddings": flat["tied_head"] or not flat["vocabulary_head"],
        "pad_token_id": PAD,
    }


# Keys of the multilingual releases that no code reads.
BERT_INERT = {
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
}

OPTIONS = (
    Option("vocab_size", "vocab_size"),
    Option("hidden_size", "d_model"),
    Option("num_hidden_layers", "num_layers"),
    Option("intermediate_size", "mlp.d_ff"),
    Option("hidden_act", "mlp.activation", "gelu", ACTIVATIONS),
    Option("type_vocab_size", "token_types", 2),
    Option("layer_norm_eps", "norm_epsilon", 1e-12),
)
CONSTANTS = {
    "architecture": "encoder",
    "norm": "layernorm",
    "norm_placement": "post",
    "positions": "learned",
    "embedding_norm": True,
    "final_norm": False,
    "attention.bias": True,
    "mlp.bias": True,
}


def _tensors(model: str, positions: Form = Same()) -> tuple[Rule, ...]:
    """Returns the rules of all tensors but those of heads. `model` is the prefix of their names."""
    table, layer = f"{model}.embeddings", f"{model}.encoder.layer.{{}}"
    return (
        *same(f"{table}.word_embeddings.weight", "embed/embedding"),
        *same(f"{table}.position_embeddings.weight", "encoder/position/embedding", positions),
        *same(f"{table}.token_type_embeddings.weight", "token_type/embedding"),
        *norm(f"{table}.LayerNorm", "encoder/embedding_norm"),
        *attention(f"{layer}.attention", f"{LAYER}/attention", ("self.query", "self.key", "self.value", "output.dense")),
        *norm(f"{layer}.attention.output.LayerNorm", f"{LAYER}/attention_norm"),
        *dense(f"{layer}.intermediate.dense", f"{LAYER}/mlp/up"),
        *dense(f"{layer}.output.dense", f"{LAYER}/mlp/down"),
        *norm(f"{layer}.output.LayerNorm", f"{LAYER}/mlp_norm"),
        *dense(f"{model}.pooler.dense", "pooler"),
    )


BERT = Family(
    name="bert",
    architecture="BertForPreTraining",
    prefix="bert.",
    options=(*OPTIONS, Option("max_position_embeddings", "max_length", 512)),
    constants=CONSTANTS,
    derive=_bert,
    express=_bert_keys,
    fixed={"position_embedding_type": ("absolute",)},
    inert=frozenset(BERT_INERT),
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    untied=("cls.predictions.decoder.bias",),
    renamed=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    rules=(
        *_tensors("bert"),
        *dense("cls.predictions.transform.dense", "head_transform"),
        *norm("cls.predictions.transform.LayerNorm", "head_transform_norm"),
        *same("cls.predictions.bias", "head/bias"),
        *same("cls.predictions.decoder.weight", "head/kernel", Dense()),
        *dense("cls.seq_relationship", "outputs/next_sentence"),
    ),
)
ROBERTA = Family(
    name="roberta",
    architecture="RobertaForMaskedLM",
    prefix="roberta.",
    options=OPTIONS,
    constants=CONSTANTS,
    derive=_roberta,
    express=_roberta_keys,
    fixed={"position_embedding_type": ("absolute",), "pad_token_id": (PAD,)},
    tied={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    untied=("lm_head.decoder.bias",),
    rules=(
        *_tensors("roberta", Offset(PAD + 1)),
        *dense("lm_head.dense", "head_transform"),
        *norm("lm_head.layer_norm", "head_transform_norm"),
        *same("lm_head.bias", "head/bias"),
        *same("lm_head.decoder.weight", "head/kernel", Dense()),
    ),
)
