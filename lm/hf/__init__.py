"""Reads and writes models in the Hugging Face layout: config.json, and model.safetensors or shards with an index.

Supported are GPT-2, Llama, Mistral, Qwen2, Qwen3, Gemma, SmolLM3, OLMo 2, GPT-NeoX, T5 (1.0 and 1.1), mT5, BERT, RoBERTa and BART;
lm.hf.families lists their tables. Importing this loads no jax.
"""

from lm.hf.convert import load, save
from lm.hf.families import FAMILIES

__all__ = ["FAMILIES", "load", "save"]
