"""Writes the golden files of tests/hf: tiny checkpoints as transformers saves them, and what it computes with them.

python tests/parity/write_golden.py          all of them
python tests/parity/write_golden.py NAME ... these
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import reference
import transformers
from cases import LLAMA3, Case, make, rows

FOLDER = Path(__file__).resolve().parents[1] / "hf" / "golden"
LLAMA = {
    "vocab_size": 19, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 64,
}  # fmt: skip
DERIVED = {key: value for key, value in LLAMA.items() if key != "head_dim"}
T5 = {"vocab_size": 19, "d_model": 8, "d_kv": 3, "d_ff": 6, "num_layers": 2, "num_heads": 3}
GOLDEN = [
    Case("gpt2", "GPT2LMHeadModel", {"vocab_size": 19, "n_positions": 9, "n_embd": 6, "n_layer": 2, "n_head": 3}),
    Case("llama", "LlamaForCausalLM", {**LLAMA, "rope_theta": 500.0, "rope_scaling": LLAMA3}),
    Case("mistral", "MistralForCausalLM", {**LLAMA, "sliding_window": 3}),
    Case("qwen3", "Qwen3ForCausalLM", LLAMA),
    Case("qwen2", "Qwen2ForCausalLM", {**DERIVED, "rope_theta": 500.0}),
    Case("gemma", "GemmaForCausalLM", {**LLAMA, "pad_token_id": 0}),
    Case("smollm3", "SmolLM3ForCausalLM",
         {**DERIVED, "no_rope_layer_interval": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    Case("olmo2", "Olmo2ForCausalLM", {**DERIVED, "eos_token_id": 2}),
    Case("gpt_neox", "GPTNeoXForCausalLM",
         {"vocab_size": 19, "hidden_size": 12, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 3,
          "rotary_pct": 0.5}),
    Case("t5", "T5ForConditionalGeneration", {**T5, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}),
    Case("t5_v1_1", "T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    Case("mt5", "MT5ForConditionalGeneration", {**T5, "tie_word_embeddings": False}),
    Case("roberta", "RobertaForMaskedLM",
         {"vocab_size": 19, "hidden_size": 6, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 3,
          "max_position_embeddings": 11, "type_vocab_size": 1}),
    Case("bert", "BertForPreTraining",
         {"vocab_size": 19, "hidden_size": 6, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 3,
          "max_position_embeddings": 9}),
    Case("bart", "BartForConditionalGeneration",
         {"vocab_size": 19, "d_model": 6, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 6, "decoder_ffn_dim": 6,
          "encoder_attention_heads": 3, "decoder_attention_heads": 3, "max_position_embeddings": 9}),
]  # fmt: skip


def main(names: list[str]) -> None:
    transformers.utils.logging.disable_progress_bar()
    for case in [case for case in GOLDEN if not names or case.name in names]:
        folder = FOLDER / case.name
        shutil.rmtree(folder, ignore_errors=True)
        model = make(case)
        model.save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)
        (folder / "generation_config.json").unlink(missing_ok=True)
        row = rows(case, batch=2, length=9, encoder_length=7)
        found = {name: value.detach().numpy() for name, value in reference.outputs(case, model, row).items()}
        inputs = {"tokens": row.tokens, "mask": row.mask, "token_types": row.token_types}
        if case.has_encoder:
            inputs |= {"encoder_tokens": row.encoder_tokens, "encoder_mask": row.encoder_mask}
        np.savez_compressed(folder / "expected.npz", **inputs, **{f"expected_{name}": value for name, value in found.items()})


if __name__ == "__main__":
    main(sys.argv[1:])
