"""Random models of every family, as transformers makes them, and batches for them."""

import dataclasses
from typing import Any

import numpy as np
import torch
import transformers

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
GPT2 = {"vocab_size": 31, "n_positions": 20, "n_embd": 15, "n_layer": 2, "n_head": 3}
LLAMA = {
    "vocab_size": 31, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
SMOLLM3 = {**LLAMA, "num_hidden_layers": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
NEOX = {"vocab_size": 31, "hidden_size": 48, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
T5 = {"vocab_size": 31, "d_model": 18, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_heads": 3}
BERT = {
    "vocab_size": 31, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
    "max_position_embeddings": 20,
}  # fmt: skip
BART = {
    "vocab_size": 31, "d_model": 18, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 20, "decoder_ffn_dim": 20,
    "encoder_attention_heads": 3, "decoder_attention_heads": 3, "max_position_embeddings": 20,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One model. `embedding` is the scale of its tables; near 1e-3 the epsilon of the norms matters."""

    name: str
    architecture: str  # a class of transformers
    config: dict[str, Any]
    padded: bool = True
    embedding: float = 1.0

    @property
    def model_class(self) -> type:
        return getattr(transformers, self.architecture)

    @property
    def has_encoder(self) -> bool:
        return self.architecture.endswith("ForConditionalGeneration")


CASES = [
    Case("gpt2", "GPT2LMHeadModel", GPT2),
    Case("gpt2_untied_relu", "GPT2LMHeadModel", {**GPT2, "tie_word_embeddings": False, "activation_function": "relu", "n_inner": 22}),
    Case("gpt2_small", "GPT2LMHeadModel", {**GPT2, "n_head": 5, "layer_norm_epsilon": 3e-6}, embedding=1e-3),
    Case("llama2", "LlamaForCausalLM", {**LLAMA, "num_key_value_heads": 6}, padded=False),
    Case("llama3", "LlamaForCausalLM", {**LLAMA, "rope_theta": 500.0, "rope_scaling": LLAMA3}),
    Case("llama_biased_tied", "LlamaForCausalLM", {**LLAMA, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    Case("llama_small", "LlamaForCausalLM", {**LLAMA, "head_dim": 6, "num_attention_heads": 3, "num_key_value_heads": 1}, embedding=1e-3),
    Case("mistral", "MistralForCausalLM", {**LLAMA, "sliding_window": 5}),
    Case("mistral_one_group", "MistralForCausalLM", {**LLAMA, "num_attention_heads": 3, "num_key_value_heads": 1, "sliding_window": 1}),
    Case("mistral_open", "MistralForCausalLM", {**LLAMA, "sliding_window": None, "rms_norm_eps": 1e-5}, padded=False),
    Case("qwen3", "Qwen3ForCausalLM", {**LLAMA, "num_key_value_heads": 3, "head_dim": 10}),
    Case("qwen3_window", "Qwen3ForCausalLM",
         {**LLAMA, "num_attention_heads": 5, "num_key_value_heads": 1, "hidden_size": 25, "head_dim": 4, "attention_bias": True,
          "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0, "tie_word_embeddings": True}),
    Case("qwen3_small", "Qwen3ForCausalLM", {**LLAMA, "head_dim": 4}, embedding=1e-3),
    Case("qwen2", "Qwen2ForCausalLM", {**LLAMA, "rope_theta": 900.0}),
    Case("qwen2_window_tied", "Qwen2ForCausalLM",
         {**LLAMA, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0, "tie_word_embeddings": True}),
    Case("qwen2_small", "Qwen2ForCausalLM", {**LLAMA, "num_key_value_heads": 6, "rms_norm_eps": 1e-5}, embedding=1e-3),
    Case("gemma", "GemmaForCausalLM", {**LLAMA, "head_dim": 6, "num_key_value_heads": 1, "hidden_act": "gelu"}),
    Case("gemma_biased_untied", "GemmaForCausalLM", {**LLAMA, "head_dim": 4, "attention_bias": True, "tie_word_embeddings": False}),
    Case("gemma_small", "GemmaForCausalLM", {**LLAMA, "head_dim": 4, "hidden_act": "silu"}, embedding=1e-3),
    Case("smollm3", "SmolLM3ForCausalLM", SMOLLM3),
    Case("smollm3_every_second", "SmolLM3ForCausalLM",
         {**SMOLLM3, "no_rope_layer_interval": 2, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    Case("smollm3_all_turn", "SmolLM3ForCausalLM", {**SMOLLM3, "no_rope_layers": [1, 1, 1, 1], "rope_theta": 300.0}, embedding=1e-3),
    Case("olmo2", "Olmo2ForCausalLM", LLAMA),
    Case("olmo2_biased_tied", "Olmo2ForCausalLM",
         {**LLAMA, "num_key_value_heads": 6, "attention_bias": True, "tie_word_embeddings": True, "rope_theta": 500.0}),
    Case("olmo2_small", "Olmo2ForCausalLM", {**LLAMA, "num_key_value_heads": 3, "rms_norm_eps": 1e-6}, embedding=1e-3),
    Case("neox", "GPTNeoXForCausalLM", NEOX),
    Case("neox_sequential", "GPTNeoXForCausalLM",
         {**NEOX, "use_parallel_residual": False, "rotary_pct": 1.0, "rotary_emb_base": 300.0, "hidden_act": "gelu_new"}),
    Case("neox_unbiased_tied", "GPTNeoXForCausalLM",
         {**NEOX, "attention_bias": False, "tie_word_embeddings": True, "rotary_pct": 0.5}, embedding=1e-3),
    Case("t5_1.0", "T5ForConditionalGeneration", {**T5, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 13}),
    Case("t5_1.1", "T5ForConditionalGeneration",
         {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3}),
    Case("t5_small", "T5ForConditionalGeneration",
         {**T5, "num_heads": 5, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False}, embedding=1e-3),
    Case("mt5", "MT5ForConditionalGeneration", {**T5, "num_decoder_layers": 3, "relative_attention_num_buckets": 8}),
    Case("mt5_untied_small", "MT5ForConditionalGeneration",
         {**T5, "tie_word_embeddings": False, "feed_forward_proj": "relu"}, embedding=1e-3),
    Case("bert", "BertForPreTraining", BERT),
    Case("bert_masked", "BertForMaskedLM", {**BERT, "hidden_act": "gelu_new", "type_vocab_size": 3, "num_attention_heads": 4}),
    Case("bert_bare", "BertModel", {**BERT, "hidden_act": "relu"}, padded=False),
    Case("bert_small", "BertForPreTraining", {**BERT, "layer_norm_eps": 1e-6}, embedding=1e-3),
    Case("roberta", "RobertaForMaskedLM", BERT),
    Case("roberta_untied_small", "RobertaForMaskedLM",
         {**BERT, "tie_word_embeddings": False, "type_vocab_size": 1, "layer_norm_eps": 1e-5}, embedding=1e-3),
    Case("roberta_bare", "RobertaModel", {**BERT, "hidden_act": "relu"}, padded=False),
    Case("bart", "BartForConditionalGeneration", BART),
    Case("bart_scaled", "BartForConditionalGeneration",
         {**BART, "scale_embedding": True, "decoder_layers": 3, "activation_function": "relu"}),
    Case("bart_untied_small", "BartForConditionalGeneration", {**BART, "tie_word_embeddings": False}, embedding=1e-3),
]  # fmt: skip
BY_NAME = {case.name: case for case in CASES}


def weights(case: Case, model: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random float32 values for a model's parameters and final_logits_bias, all unlike their usual first ones, tied ones tied."""
    rng = np.random.default_rng(seed)
    values: dict[str, torch.Tensor] = {}
    first: dict[int, torch.Tensor] = {}  # by identity of the parameter
    named = [*model.named_parameters(remove_duplicate=False), *((n, b) for n, b in model.named_buffers() if n == "final_logits_bias")]
    untied = t5_untied(case)
    for name, parameter in named:
        shape, shared = tuple(parameter.shape), id(parameter)
        if shared not in first or (untied and name == "lm_head.weight"):
            draw = rng.standard_normal(shape).astype(np.float32)
            if len(shape) == 1:
                draw = 0.2 * draw + (1.0 if "norm" in name.lower() or "ln_" in name else 0.0) * name.endswith("weight")
            elif "embed" in name or "shared" in name or "wte" in name or "wpe" in name:
                draw = draw * case.embedding
            else:
                draw = draw * shape[-1] ** -0.5
            value = torch.from_numpy(np.asarray(draw, np.float32))
            if case.architecture.startswith("Gemma") and len(shape) == 1:
                value = value.bfloat16().float()  # as published: what 1 is added to has few digits
            if untied and name == "lm_head.weight":
                values[name] = value
                continue
            first[shared] = value
        values[name] = first[shared]
    # transformers unties these with the head; the models that are released have one table, and one bias of the head.
    if "lm_head.decoder.bias" in values:
        values["lm_head.decoder.bias"] = values["lm_head.bias"]
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"):
        if name in values and "model.shared.weight" in values:
            values[name] = values["model.shared.weight"]
    return values


def t5_untied(case: Case) -> bool:
    """transformers 5 ties every T5's head when it is made, and takes an untied one from a checkpoint only."""
    return case.architecture.startswith(("T5", "MT5")) and case.config.get("tie_word_embeddings") is False


def make(case: Case, values: dict[str, torch.Tensor] | None = None) -> torch.nn.Module:
    """The model with these weights (default: random ones), in torch's default dtype."""
    config = case.model_class.config_class(**case.config, attn_implementation="eager")
    model = case.model_class(config).eval()
    values = weights(case, model) if values is None else values
    if t5_untied(case):
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        model.all_tied_weights_keys.pop("lm_head.weight", None)
    missing, unexpected = model.load_state_dict({name: value.to(torch.get_default_dtype()) for name, value in values.items()}, strict=False)
    assert not unexpected
    assert not missing, missing
    return model


@dataclasses.dataclass(frozen=True)
class Rows:
    """Tokens with lengths and what to predict; numpy. Padding is at the end, of id 0, and weighs nothing."""

    tokens: np.ndarray
    mask: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    token_types: np.ndarray
    labels: np.ndarray  # [B, 1]
    encoder_tokens: np.ndarray | None
    encoder_mask: np.ndarray | None


def rows(case: Case, seed: int = 1, batch: int = 3, length: int = 17, encoder_length: int = 14) -> Rows:
    rng = np.random.default_rng(seed)
    vocabulary = case.config["vocab_size"]

    def text(length: int) -> tuple[np.ndarray, np.ndarray]:
        lengths = rng.integers(length // 2, length, batch) if case.padded else np.full(batch, length)
        mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
        return (rng.integers(2, vocabulary, (batch, length)) * mask).astype(np.int32), mask

    tokens, mask = text(length)
    encoder = text(encoder_length) if case.has_encoder else (None, None)
    types = case.config.get("type_vocab_size", 2)
    return Rows(
        tokens=tokens,
        mask=mask,
        targets=rng.integers(0, vocabulary, tokens.shape).astype(np.int32),
        weights=(rng.random(tokens.shape) * mask).astype(np.float32),
        token_types=rng.integers(0, types, tokens.shape).astype(np.int32),
        labels=rng.integers(0, 2, (batch, 1)).astype(np.int32),
        encoder_tokens=encoder[0],
        encoder_mask=encoder[1],
    )
