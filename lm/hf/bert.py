"""The BERT family: models with both heads, with the masked-LM head alone, or without heads (imports no jax)."""

from typing import Any

from lm.hf.family import Family, has, heads
from lm.hf.forms import Dense, attention, dense, norm, same
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


# Keys of the multilingual releases that no code reads.
BERT_INERT = {
    "directionality",
    "pooler_fc_size",
    "pooler_num_attention_heads",
    "pooler_num_fc_layers",
    "pooler_size_per_head",
    "pooler_type",
}

BERT = Family(
    name="bert",
    architecture="BertForPreTraining",
    prefix="bert.",
    options=(
        Option("vocab_size", "vocab_size"),
        Option("hidden_size", "d_model"),
        Option("num_hidden_layers", "num_layers"),
        Option("intermediate_size", "mlp.d_ff"),
        Option("hidden_act", "mlp.activation", "gelu", ACTIVATIONS),
        Option("max_position_embeddings", "max_length", 512),
        Option("type_vocab_size", "token_types", 2),
        Option("layer_norm_eps", "norm_epsilon", 1e-12),
    ),
    constants={
        "architecture": "encoder",
        "norm": "layernorm",
        "norm_placement": "post",
        "positions": "learned",
        "embedding_norm": True,
        "final_norm": False,
        "attention.bias": True,
        "mlp.bias": True,
    },
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
        *same("bert.embeddings.word_embeddings.weight", "embed/embedding"),
        *same("bert.embeddings.position_embeddings.weight", "encoder/position/embedding"),
        *same("bert.embeddings.token_type_embeddings.weight", "token_type/embedding"),
        *norm("bert.embeddings.LayerNorm", "encoder/embedding_norm"),
        *attention("bert.encoder.layer.{}.attention", f"{LAYER}/attention", ("self.query", "self.key", "self.value", "output.dense")),
        *norm("bert.encoder.layer.{}.attention.output.LayerNorm", f"{LAYER}/attention_norm"),
        *dense("bert.encoder.layer.{}.intermediate.dense", f"{LAYER}/mlp/up"),
        *dense("bert.encoder.layer.{}.output.dense", f"{LAYER}/mlp/down"),
        *norm("bert.encoder.layer.{}.output.LayerNorm", f"{LAYER}/mlp_norm"),
        *dense("bert.pooler.dense", "pooler"),
        *dense("cls.predictions.transform.dense", "head_transform"),
        *norm("cls.predictions.transform.LayerNorm", "head_transform_norm"),
        *same("cls.predictions.bias", "head/bias"),
        *same("cls.predictions.decoder.weight", "head/kernel", Dense()),
        *dense("cls.seq_relationship", "outputs/next_sentence"),
    ),
)
