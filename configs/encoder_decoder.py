"""Encoder-decoders: `--config=configs/encoder_decoder.py:NAME`: T5 1.0 and 1.1 and its variants, BART, and the original Transformer.

Beside `tiny` these are published shapes. T5 and BART read English C4, prepared beforehand as a TFDS data set in array_record. Hardware,
time and loss: not run. Dropout, which most of these recipes have, is left out. Their parameter counts and where those come from are in
configs/shapes/encoder_decoder.py; a test holds every one to its count.

    python -m lm.run --config=configs/encoder_decoder.py:t5_base --workdir=runs/t5_base
"""

import functools
from collections.abc import Callable

from configs.shapes import choose
from configs.shapes import encoder_decoder as shapes
from configs.shapes.recipes import T5_NOISE, T5_PIECES, on_c4
from lm.data.config import Component, DataConfig, HuggingFaceTokenizer, SentencePieceTokenizer
from lm.data.objectives.config import BartNoise, Pairs, SpanCorruption
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.optim.config import Cosine, OptimConfig, Rsqrt, t5
from lm.train.config import CheckpointConfig, ExecutionConfig, RunConfig

RAW = 568  # tokens of text that span corruption turns into 512 of inputs and 114 of targets


def tiny() -> RunConfig:
    """A T5 of 267,968 parameters under span corruption, on 1M bytes of installed Python sources: a first look.

    python -m lm.run --config=configs/encoder_decoder.py:tiny --workdir=runs/tiny_t5

    Hardware: two CPU cores. Time: about a minute of processor time. Held-out loss to expect: 2.64 nats per target.
    """
    return RunConfig(
        model=ModelConfig(
            architecture="encoder_decoder",
            vocab_size=292,  # 259 bytes and control ids, 33 sentinels
            d_model=64,
            num_layers=2,
            max_length=256,
            attention=AttentionConfig(num_heads=4, head_dim=16, qk_norm=True),
            mlp=MLPConfig(d_ff=256, activation="squared_relu"),
            positions="relative",
            zero_init_outputs=True,
        ),
        data=DataConfig(sequence_length=256, objective=SpanCorruption(sentinels=33)),
        optim=OptimConfig(learning_rate=1e-2, warmup_tokens=130_000),
        train_tokens=1_000_000,
        batch_size=4,
    )


def t5_family(name: str) -> RunConfig:
    """T5 1.0 (Raffel et al. 2020, section 3.7) and 1.1: span corruption, 2^20 steps of 2,048 rows, Adafactor with its own rates."""
    optim = t5(10_000, 2048 * RAW)
    model, tokens = shapes.SHAPES[name].model, 2**20 * 2048 * RAW
    return on_c4(model, length=RAW, rows=2048, tokens=tokens, optim=optim, tokenizer=T5_PIECES, objective=SpanCorruption())


def mt5(name: str) -> RunConfig:
    """mT5 (Xue et al. 2021, section 3.2): span corruption, 1M steps of 1,024 rows of 1,024 tokens; theirs are of 101 languages."""
    model, tokens = shapes.SHAPES[name].model, 1_000_000 * 1024 * 1024
    pieces = SentencePieceTokenizer(vocab_size=250_000, model_type="unigram")
    return on_c4(model, length=1024, rows=1024, tokens=tokens, optim=t5(10_000, 2**20), tokenizer=pieces, objective=SpanCorruption())


def t5_table_2(shape: str) -> RunConfig:
    """The comparison of architectures (Raffel et al. 2020, table 2): the base model, with shared stacks, and with half the layers.

    i.i.d. denoising of 512 tokens, 2^19 steps of 128 rows. Its language model and prefix LM are decoder.py:t5_base_lm and
    prefix_lm.py:t5_base; `--config.data.objective=prefix` is its language-model objective.
    """
    optim = t5(10_000, 128 * 512)
    model, tokens = shapes.SHAPES[shape].model, 2**19 * 128 * 512
    return on_c4(model, length=512, rows=128, tokens=tokens, optim=optim, tokenizer=T5_PIECES, objective=T5_NOISE)


def bart(name: str) -> RunConfig:
    """BART (Lewis et al. 2020, section 5): infilling and permuted sentences, 500,000 steps of 8,000 rows.

    The paper gives no rates; 4e-4 with 2% of warm-up stands here. `data.tokenizer.path` is GPT-2's tokenizer.json, as in the paper.
    """
    tokens = 500_000 * 8000 * 512
    optim = OptimConfig(learning_rate=4e-4, weight_decay=0.01, beta2=0.98, schedule=Cosine(final=0.0), warmup_tokens=tokens // 50)
    return on_c4(shapes.SHAPES[name].model, length=512, rows=8000, tokens=tokens, optim=optim, objective=BartNoise())


def transformer(name: str) -> RunConfig:
    """The original Transformer (Vaswani et al. 2017, section 5): English to German, about 25,000 tokens of each language a step.

    `pairs.tsv` has a sentence, a tab and its translation on each line. Base: 100,000 steps; big: 300,000. The rate is
    d_model^-1/2 min(step^-1/2, step x 4000^-3/2).

    python -m lm.run --config=configs/encoder_decoder.py:transformer_base --workdir=runs/base --config.data.components.0.paths=pairs.tsv
    """
    model, per_step = shapes.SHAPES[name].model, 96 * 512
    steps = 100_000 if name == "transformer_base" else 300_000
    return RunConfig(
        model=model,
        data=DataConfig(
            components=(Component(corpus="text_files", paths=("pairs.tsv",)),),
            tokenizer=HuggingFaceTokenizer(path="tokenizer.json"),
            sequence_length=512,
            packing="best_fit",
            objective=Pairs(),
            allow_epochs=True,
        ),
        optim=OptimConfig(
            learning_rate=model.d_model**-0.5 * 4000**-0.5,
            beta2=0.98,
            epsilon=1e-9,
            clip_norm=None,
            schedule=Rsqrt(),
            warmup_tokens=4000 * per_step,
        ),
        train_tokens=steps * per_step,
        batch_size=96,
        compute_dtype="bfloat16",
        label_smoothing=0.1,
        execution=ExecutionConfig(micro_batches=4, unroll=False),
        checkpoint=CheckpointConfig(every_steps=1000),
    )


VARIANTS = {"t5_base_denoising": "t5_base", "t5_base_shared": "t5_base_shared", "t5_base_half": "t5_base_half"}
CONFIGS: dict[str, Callable[[], RunConfig]] = {"tiny": tiny}
for _names, _family in (
    (shapes.T5, t5_family),
    (shapes.T5_V1_1, t5_family),
    (shapes.MT5, mt5),
    (shapes.BART, bart),
    (shapes.ORIGINAL, transformer),
):
    CONFIGS |= {name: functools.partial(_family, name) for name in _names}
CONFIGS |= {name: functools.partial(t5_table_2, shape) for name, shape in VARIANTS.items()}


def get_config(name: str = "tiny") -> RunConfig:
    """Returns the configuration called `name`."""
    return choose("configs/encoder_decoder.py", CONFIGS, name)
