"""Decoder-only language models: `--config=configs/decoder.py:NAME`. Each function states command, hardware, time and loss to expect."""

import difflib

from lm.data.config import Component, DataConfig, HuggingFaceTokenizer, SentencePieceTokenizer
from lm.errors import UserError
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.optim.config import WSD, Cosine, OptimConfig
from lm.train.config import CheckpointConfig, EvalConfig, ExecutionConfig, RunConfig


def tiny() -> RunConfig:
    """A model of 131,840 parameters on 1M bytes of installed Python sources: a first look at everything that a run writes.

    python -m lm.run --config=configs/decoder.py:tiny --workdir=runs/tiny

    Hardware: two CPU cores. Time: 37 s of processor time, 10 of them compilation; the first run also prepares the text, 20 s once.
    Held-out loss to expect: 1.95 nats/byte (2.81 bits/byte), with the text of JAX 0.10.2's dependencies.
    """
    return RunConfig(
        model=ModelConfig(
            vocab_size=259,
            d_model=64,
            num_layers=2,
            max_length=128,
            attention=AttentionConfig(num_heads=4, head_dim=16, qk_norm=True),
            mlp=MLPConfig(d_ff=256, activation="squared_relu"),
            zero_init_outputs=True,
        ),
        data=DataConfig(sequence_length=128),
        optim=OptimConfig(learning_rate=1e-2, schedule=WSD(cooldown=0.3), warmup_tokens=130_000),
        train_tokens=1_000_000,
        batch_size=8,
    )


def gpt2_124m() -> RunConfig:
    """GPT-2 small (Radford et al. 2019) on English C4: 124M parameters, 20 tokens per parameter, batches of 524,288 tokens.

    C4 is prepared beforehand as a TFDS data set in array_record; `data.tokenizer.path` is GPT-2's tokenizer.json.

    python -m lm.run --config=configs/decoder.py:gpt2_124m --workdir=runs/gpt2_124m --config.data.tokenizer.path=tokenizer.json

    Hardware, time and loss: not run.
    """
    return RunConfig(
        model=ModelConfig(
            vocab_size=50_304,  # 50,257 rounded up to a multiple of 128
            d_model=768,
            num_layers=12,
            max_length=1024,
            attention=AttentionConfig(num_heads=12, head_dim=64, bias=True, documents="joined"),
            mlp=MLPConfig(d_ff=3072, activation="gelu", bias=True),
            norm="layernorm",
            norm_epsilon=1e-5,
            positions="learned",
            tied_head=True,
        ),
        data=DataConfig(
            components=(Component(corpus="tfds:c4/en"),),
            tokenizer=HuggingFaceTokenizer(path="tokenizer.json"),
            sequence_length=1024,
        ),
        optim=OptimConfig(
            learning_rate=6e-4, weight_decay=0.1, beta2=0.95, schedule=Cosine(final=0.1), warmup_fraction=0.02, warmup_tokens=124_000_000
        ),
        evaluation=EvalConfig(documents_bytes=4_000_000, curve_bytes=400_000, stride=512),
        train_tokens=2_480_000_000,
        batch_size=512,
        compute_dtype="bfloat16",
        execution=ExecutionConfig(micro_batches=8),
        checkpoint=CheckpointConfig(every_steps=1000),
    )


def llama_1b() -> RunConfig:
    """The shape of Llama 3.2 1B (d_model 2048, 16 layers, 32 heads on 8 key/value heads) on English C4, with 32,768 pieces.

    python -m lm.run --config=configs/decoder.py:llama_1b --workdir=runs/llama_1b --config.mesh.fsdp=8

    Hardware, time and loss: not run.
    """
    return RunConfig(
        model=ModelConfig(
            vocab_size=32_768,
            d_model=2048,
            num_layers=16,
            max_length=4096,
            attention=AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=64),
            mlp=MLPConfig(d_ff=8192, activation="silu", gated=True),
            norm_epsilon=1e-5,
            rope_theta=500_000.0,
            tied_head=True,
        ),
        data=DataConfig(
            components=(Component(corpus="tfds:c4/en"),),
            tokenizer=SentencePieceTokenizer(vocab_size=32_768),
            sequence_length=4096,
            packing="best_fit",
        ),
        optim=OptimConfig(learning_rate=3e-4, weight_decay=0.1, beta2=0.95, schedule=Cosine(final=0.1), warmup_fraction=0.02),
        evaluation=EvalConfig(documents_bytes=4_000_000, curve_bytes=400_000, stride=2048),
        train_tokens=21_000_000_000,
        batch_size=256,
        compute_dtype="bfloat16",
        execution=ExecutionConfig(micro_batches=4, remat="dots_no_batch", unroll=False),
        checkpoint=CheckpointConfig(every_steps=500),
    )


CONFIGS = {function.__name__: function for function in (tiny, gpt2_124m, llama_1b)}


def get_config(name: str = "tiny") -> RunConfig:
    """The configuration called `name`."""
    if name not in CONFIGS:
        near = difflib.get_close_matches(name, CONFIGS, n=1, cutoff=0.0)
        raise UserError(f"configs/decoder.py has no {name!r}; the nearest is {near[0]!r}, all are {', '.join(CONFIGS)}")
    return CONFIGS[name]()
