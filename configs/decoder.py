"""Decoder-only language models: `--config=configs/decoder.py:NAME`. Each function states command, hardware, time and loss to expect.

Beside `tiny`, `gpt2_124m` and `llama_1b` these are published shapes, with their recipe where one is published, on English C4 (prepared
beforehand as a TFDS data set in array_record) with the family's tokenizer.json. Hardware, time and loss: not run. Their parameter counts
and where those come from are in configs/shapes/decoder.py; a test holds every one to its count.

    python -m lm.run --config=configs/decoder.py:llama3_8b --workdir=runs/llama3_8b --config.data.tokenizer.path=tokenizer.json
"""

import functools
from collections.abc import Callable

from configs.shapes import choose, decoder
from configs.shapes.encoder_decoder import T5, t5_alone
from configs.shapes.recipes import T5_NOISE, T5_PIECES, chinchilla_budget, cosine, on_c4
from lm.data.config import Component, DataConfig, HuggingFaceTokenizer, SentencePieceTokenizer
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.optim.config import WSD, Cosine, OptimConfig, t5
from lm.train.config import CheckpointConfig, EvalConfig, ExecutionConfig, RunConfig


def tiny() -> RunConfig:
    """A Qwen3 of 130,816 parameters on 1M bytes of installed Python sources: a first look at everything that a run writes.

    python -m lm.run --config=configs/decoder.py:tiny --workdir=runs/tiny

    Hardware: two CPU cores. Time: 40 s of processor time, 10 of them compilation; the first run also prepares the text, 20 s once.
    Held-out loss to expect: 1.63 nats/byte (2.35 bits/byte), with the text of JAX 0.10.2's dependencies.
    """
    return RunConfig(
        model=ModelConfig(
            vocab_size=259,
            d_model=64,
            num_layers=2,
            max_length=128,
            attention=AttentionConfig(num_heads=4, head_dim=16, qk_norm=True),
            mlp=MLPConfig(d_ff=168, activation="silu", gated=True),
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


# name: peak learning rate, rows of a batch. GPT-2's are GPT-3's of like size.
GPT2 = {"gpt2_small": (6e-4, 512), "gpt2_medium": (3e-4, 512), "gpt2_large": (2.5e-4, 512), "gpt2_xl": (2e-4, 512)}
GPT3 = {
    "gpt3_125m": (6e-4, 256),
    "gpt3_350m": (3e-4, 256),
    "gpt3_760m": (2.5e-4, 256),
    "gpt3_1_3b": (2e-4, 512),
    "gpt3_2_7b": (1.6e-4, 512),
    "gpt3_6_7b": (1.2e-4, 1024),
    "gpt3_13b": (1e-4, 1024),
    "gpt3_175b": (0.6e-4, 1600),
}
GOPHER = {
    "gopher_44m": (6e-4, 128),
    "gopher_117m": (6e-4, 128),
    "gopher_417m": (2e-4, 128),
    "gopher_1_4b": (2e-4, 128),
    "gopher_7_1b": (1.2e-4, 1024),
    "gopher_280b": (4e-5, 1536),
}
CHINCHILLA = {
    "chinchilla_74m": (2e-4, 256),
    "chinchilla_306m": (2e-4, 256),
    "chinchilla_552m": (2e-4, 256),
    "chinchilla_1_1b": (2e-4, 256),
    "chinchilla_1_6b": (2e-4, 256),
    "chinchilla_6_8b": (1.25e-4, 256),
    "chinchilla_70b": (1e-4, 768),
}
LLAMA2 = {"llama2_7b": 3e-4, "llama2_13b": 3e-4, "llama2_70b": 1.5e-4}
LLAMA3 = {"llama3_8b": 3e-4, "llama3_70b": 1.5e-4, "llama3_1_8b": 3e-4, "llama3_1_70b": 1.5e-4, "llama3_1_405b": 8e-5}
LLAMA32 = {"llama3_2_1b": 3e-4, "llama3_2_3b": 3e-4}
PYTHIA = {
    "pythia_70m": 1e-3,
    "pythia_160m": 6e-4,
    "pythia_410m": 3e-4,
    "pythia_1b": 3e-4,
    "pythia_1_4b": 2e-4,
    "pythia_2_8b": 1.6e-4,
    "pythia_6_9b": 1.2e-4,
    "pythia_12b": 1.2e-4,
}
OLMO2 = {"olmo2_7b": 1024, "olmo2_13b": 2048}  # rows of a batch
UNPUBLISHED = ("mistral_7b", *decoder.QWEN25, *decoder.QWEN3, *decoder.GEMMA, "olmo2_1b", "olmo2_32b")


def gpt2(name: str) -> RunConfig:
    """GPT-2 (Radford et al. 2019) as released, for 20 tokens per parameter: the paper states neither rates nor steps."""
    shape, (rate, rows) = decoder.SHAPES[name], GPT2[name]
    tokens = chinchilla_budget(shape.published)
    return on_c4(shape.model, length=1024, rows=rows, tokens=tokens, optim=cosine(rate, warmup=tokens / 20))


def gpt3(name: str) -> RunConfig:
    """GPT-3 (Brown et al. 2020, table 2.1, appendix B): 300B tokens. Every layer is dense here; theirs alternate with sparse ones."""
    rate, rows = GPT3[name]
    return on_c4(decoder.SHAPES[name].model, length=2048, rows=rows, tokens=300e9, optim=cosine(rate, warmup=375e6))


def gopher(name: str) -> RunConfig:
    """Gopher (Rae et al. 2021, table 1, section 3.2): 300B tokens, 1,500 steps of warm-up. The 280B model's batch doubles midway in theirs.

    Rotary positions stand for those of Transformer-XL, with their 5-9% of the published parameters (see configs.shapes.decoder.gopher).
    """
    rate, rows = GOPHER[name]
    return on_c4(decoder.SHAPES[name].model, length=2048, rows=rows, tokens=300e9, optim=cosine(rate, warmup=1500 * rows * 2048))


def chinchilla(name: str) -> RunConfig:
    """Shapes of Hoffmann et al. 2022: 1.4T tokens for 70B, and 20 per parameter for those of table A4. Positions as in `gopher`."""
    shape, (rate, rows) = decoder.SHAPES[name], CHINCHILLA[name]
    tokens = chinchilla_budget(shape.published)
    return on_c4(shape.model, length=2048, rows=rows, tokens=tokens, optim=cosine(rate, warmup=tokens / 50))


def llama2(name: str) -> RunConfig:
    """Llama 2 (Touvron et al. 2023, section 2.2): 2T tokens, batches of 4M, 2,000 steps of warm-up."""
    optim = cosine(LLAMA2[name], warmup=2000 * 1024 * 4096, epsilon=1e-5)
    return on_c4(decoder.SHAPES[name].model, length=4096, rows=1024, tokens=2e12, optim=optim)


def llama3(name: str) -> RunConfig:
    r"""Llama 3 and 3.1 (Grattafiori et al. 2024, section 3.4): 15T tokens, 8,000 steps of warm-up, decay to a hundredth.

    Batches are 8M tokens throughout, where theirs grow from 4M to 16M, and the stage with longer rows is left out.

    `8b` and `70b` compiled for TPUs that are not there (JAX 0.10.2; docs/preflight.md; times are bounds at peak rates):

    python -m lm.preflight --config=configs/decoder.py:8b --topology=tpu:v5p:4x4x4 --config.mesh.fsdp=64 \
        --config.execution.remat=full --config.execution.micro_batches=4
    fits, 32.7 of 102.8 GB, about 22.5 s a step at best: compute 22.5, memory 2.3, network 0.7; MFU at most 73%

    python -m lm.preflight --config=configs/decoder.py:70b --topology=tpu:v5p:8x8x4 --config.mesh.fsdp=64 --config.mesh.tensor=4 \
        --config.execution.remat=full --config.execution.micro_batches=16
    fits, 20.4 of 102.8 GB, about 45.3 s a step at best: compute 45.3, memory 6.6, network 12.3; MFU at most 76%
    """
    optim = cosine(LLAMA3[name], warmup=8000 * 1024 * 8192, final=0.01)
    return on_c4(decoder.SHAPES[name].model, length=8192, rows=1024, tokens=15e12, optim=optim)


def llama3_2(name: str) -> RunConfig:
    """The shapes of Llama 3.2, from nothing, for 20 tokens per parameter; the released ones are cut from larger models and distilled.

    `1b` compiled for TPUs that are not there (JAX 0.10.2; docs/preflight.md; times are bounds at peak rates):

    python -m lm.preflight --config=configs/decoder.py:1b --topology=tpu:v5e:4x4 --config.mesh.fsdp=16 --config.execution.remat=full
    fits, 15.9 of 16.9 GB, about 4.9 s a step at best: compute 4.9, memory 1.3, network 0.2; MFU at most 72%
    """
    shape = decoder.SHAPES[name]
    tokens = chinchilla_budget(shape.published)
    return on_c4(shape.model, length=8192, rows=128, tokens=tokens, optim=cosine(LLAMA32[name], warmup=tokens / 50))


def unpublished(name: str) -> RunConfig:
    """Shapes whose recipes are not published, or in part, for 20 tokens per parameter.

    Mistral 7B (Jiang et al. 2023), Qwen2.5 and Qwen3 (Yang et al. 2024, 2025), Gemma (Gemma team 2024), and the OLMo 2 of 1B and 32B.
    """
    shape = decoder.SHAPES[name]
    tokens = chinchilla_budget(shape.published)
    return on_c4(shape.model, length=8192, rows=128, tokens=tokens, optim=cosine(3e-4, warmup=tokens / 50))


def olmo2(name: str) -> RunConfig:
    """OLMo 2 (OLMo team 2025), first stage, as its released files of settings say: 5T tokens, 2,000 steps of 1,024 rows as warm-up."""
    optim = cosine(3e-4, warmup=2000 * 1024 * 4096)
    return on_c4(decoder.SHAPES[name].model, length=4096, rows=OLMO2[name], tokens=5e12, optim=optim)


def smollm3_3b() -> RunConfig:
    """SmolLM3 (Bakouch et al. 2025), its three stages of 4,096 tokens as one: 4.72M steps of 2.36M tokens, the last tenth a decay to 0."""
    per_step = 576 * 4096
    optim = OptimConfig(
        learning_rate=2e-4, weight_decay=0.1, beta2=0.95, schedule=WSD(cooldown=0.1, final=0.0), warmup_tokens=2000 * per_step
    )
    return on_c4(decoder.SHAPES["smollm3_3b"].model, length=4096, rows=576, tokens=4_720_000 * per_step, optim=optim)


def pythia(name: str) -> RunConfig:
    """Pythia (Biderman et al. 2023, section 2.2): 143,000 steps of 2M tokens, 1% of them warm-up."""
    tokens = 143_000 * 1024 * 2048
    return on_c4(
        decoder.SHAPES[name].model, length=2048, rows=1024, tokens=tokens, optim=cosine(PYTHIA[name], warmup=tokens / 100, decay=0.01)
    )


def gpt_neox_20b() -> RunConfig:
    """GPT-NeoX-20B (Black et al. 2022, section 2.2): 150,000 steps of 3.15M tokens."""
    tokens = 150_000 * 1536 * 2048
    optim = cosine(0.97e-4, warmup=tokens / 100, decay=0.01)
    return on_c4(decoder.SHAPES["gpt_neox_20b"].model, length=2048, rows=1536, tokens=tokens, optim=optim)


def t5_base_lm() -> RunConfig:
    """The language model of T5's comparison of architectures (Raffel et al. 2020, table 2), denoising: inputs and targets in one text."""
    model, optim = t5_alone("decoder", *T5["t5_base"][:-1]), t5(10_000, 128 * 512)
    return on_c4(model, length=512, rows=128, tokens=2**19 * 128 * 512, optim=optim, tokenizer=T5_PIECES, objective=T5_NOISE)


TABLES = (
    (GPT2, gpt2),
    (GPT3, gpt3),
    (GOPHER, gopher),
    (CHINCHILLA, chinchilla),
    (LLAMA2, llama2),
    (LLAMA3, llama3),
    (LLAMA32, llama3_2),
    (UNPUBLISHED, unpublished),
    (OLMO2, olmo2),
    (PYTHIA, pythia),
)
CONFIGS: dict[str, Callable[[], RunConfig]] = {f.__name__: f for f in (tiny, gpt2_124m, llama_1b, smollm3_3b, gpt_neox_20b, t5_base_lm)}
CONFIGS |= {name: functools.partial(family, name) for names, family in TABLES for name in names}
# Sizes alone are Llama 3's.
CONFIGS |= {"1b": CONFIGS["llama3_2_1b"], "8b": CONFIGS["llama3_8b"], "70b": CONFIGS["llama3_70b"]}


def get_config(name: str = "tiny") -> RunConfig:
    """Returns the configuration called `name`."""
    return choose("configs/decoder.py", CONFIGS, name)
