"""T5's comparison of architectures (Raffel et al. 2020, table 2) at small scale: which is best under which objective?

    python -m experiments t5_architectures

Two CPU cores, under 20 minutes; README.md has the numbers to expect. large.py is the same at T5's scale.
"""

import dataclasses
from typing import Literal

from configs.shapes.encoder_decoder import t5, t5_alone
from experiments.t5_architectures.published import TABLE_2
from lm.data.config import Component, DataConfig, SentencePieceTokenizer
from lm.data.objectives.config import Denoising, Objective, PrefixLM
from lm.mesh import MeshConfig
from lm.model.config import ModelConfig
from lm.optim.config import OptimConfig
from lm.optim.config import t5 as t5_recipe
from lm.study.cell import Limits, Speed
from lm.study.comparison import Comparison, Variant
from lm.train.config import CheckpointConfig, EvalConfig, ExecutionConfig, LogConfig, RunConfig


@dataclasses.dataclass(frozen=True)
class Scale:
    """The settings that all runs share. A row is one pair, made of `text` tokens."""

    d_model: int = 64
    d_ff: int = 256
    heads: int = 2
    layers: int = 3  # L; the encoder-decoder has two stacks of them
    half: tuple[int, int] = (2, 1)  # encoder and decoder layers of the variant with half of 2 L
    vocabulary: int = 512
    sentinels: int = 48  # more than 6 standard deviations above the runs of noise that a pair has
    text: int = 112
    pairs: int = 24_000
    batch: int = 4  # larger ones fall out of a CPU's cache: 8 take half as long again for a pair
    constant_steps: int = 1000  # T5's rate is 1 / sqrt(max(n, this)); there 10,000 of 524,288 steps
    dtype: Literal["float32", "bfloat16"] = "float32"
    held_out_bytes: int = 240_000
    corpus: str = "python_sources"
    tokenizer_bytes: int = 4_000_000  # of text that the pieces are learned from
    mesh: MeshConfig = MeshConfig()
    execution: ExecutionConfig = ExecutionConfig(steps_per_dispatch=16)
    checkpoint: CheckpointConfig = CheckpointConfig(keep=1)


def models(scale: Scale) -> dict[str, ModelConfig]:
    """Returns the five architectures of table 2, with T5's blocks."""
    shape = (scale.d_model, scale.d_ff, scale.d_model // scale.heads, scale.heads, scale.layers)
    both = dataclasses.replace(t5(*shape), vocab_size=scale.vocabulary, max_length=scale.text)
    alone = {name: dataclasses.replace(t5_alone(name, *shape), vocab_size=scale.vocabulary) for name in ("decoder", "prefix_lm")}
    encoder, decoder = scale.half
    return {
        "encoder-decoder": both,
        "shared": dataclasses.replace(both, shared_stacks=True),
        "half the layers": dataclasses.replace(both, encoder_layers=encoder, num_layers=decoder),
        "language model": alone["decoder"],
        "prefix LM": alone["prefix_lm"],
    }


def objectives(scale: Scale, name: str) -> dict[str, Objective]:
    """Returns the objectives for a variant: under the LM objective a language model predicts the whole text, the others its second part."""
    return {
        "Denoising": Denoising(sentinels=scale.sentinels),
        "LM objective": PrefixLM(loss_on_inputs=name == "language model"),
    }


def run(scale: Scale, model: ModelConfig, objective: Objective) -> RunConfig:
    pieces = SentencePieceTokenizer(vocab_size=scale.vocabulary - scale.sentinels, model_type="bpe", training_bytes=scale.tokenizer_bytes)
    return RunConfig(
        model=model,
        data=DataConfig(components=(Component(scale.corpus),), tokenizer=pieces, sequence_length=scale.text, objective=objective),
        optim=optimizer(scale),
        evaluation=EvalConfig(documents_bytes=scale.held_out_bytes, curve_bytes=scale.held_out_bytes // 16, points_per_decade=5),
        train_tokens=scale.pairs // scale.batch * scale.batch * scale.text,
        batch_size=scale.batch,
        compute_dtype=scale.dtype,
        mesh=scale.mesh,
        execution=scale.execution,
        checkpoint=scale.checkpoint,
        log=LogConfig(tensorboard=False),
    )


def optimizer(scale: Scale) -> OptimConfig:
    return t5_recipe(scale.constant_steps, scale.batch * scale.text)


def study(name: str, scale: Scale, speed: Speed) -> Comparison:
    return Comparison(
        name=name,
        question="Which architecture predicts targets best from inputs, at equal data, under denoising and under the LM objective?",
        variants=tuple(
            Variant(group, variant, run(scale, model, objective))
            for group in ("Denoising", "LM objective")
            for variant, model in models(scale).items()
            for objective in (objectives(scale, variant)[group],)
        ),
        published=TABLE_2,
        limits=Limits(min_steps=500),
        speed=speed,
    )


def get_study() -> Comparison:
    return study("t5_architectures", Scale(), Speed())
