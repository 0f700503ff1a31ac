"""Recipes that the configurations of published shapes share: English C4, 16-bit arithmetic, and checkpoints. None of them has been run."""

from typing import Any, Optional

from lm.data.config import Component, DataConfig, HuggingFaceTokenizer, SentencePieceTokenizer
from lm.data.objectives.config import Denoising, NextToken
from lm.model.config import ModelConfig
from lm.optim.config import Cosine, OptimConfig
from lm.train.config import CheckpointConfig, EvalConfig, ExecutionConfig, RunConfig

T5_PIECES = SentencePieceTokenizer(vocab_size=32_000, model_type="unigram")
T5_NOISE = Denoising(sentinels=128)  # all ids that T5's table has above its pieces: 512 tokens may need more than its 100
PER_PARAMETER = 20  # tokens, of models whose budget nobody published: about what Hoffmann et al. 2022 find best


def on_c4(
    model: ModelConfig,
    *,
    length: int,
    rows: int,
    tokens: float,
    optim: OptimConfig,
    tokenizer: Any = HuggingFaceTokenizer(path="tokenizer.json"),
    objective: Any = NextToken(),
) -> RunConfig:
    """Returns a run over `tokens` of text in batches of `rows` x `length` tokens of text, whole documents behind one another."""
    return RunConfig(
        model=model,
        data=DataConfig(components=(Component(corpus="tfds:c4/en"),), tokenizer=tokenizer, sequence_length=length, objective=objective),
        optim=optim,
        evaluation=EvalConfig(documents_bytes=4_000_000, curve_bytes=400_000, stride=max(length // 2, 1)),
        train_tokens=int(tokens),
        batch_size=rows,
        compute_dtype="bfloat16",
        execution=ExecutionConfig(micro_batches=4, remat="dots_no_batch", unroll=False),
        checkpoint=CheckpointConfig(every_steps=1000),
    )


def cosine(rate: float, *, warmup: float, decay: float = 0.1, final: float = 0.1, epsilon: float = 1e-8) -> OptimConfig:
    """AdamW as GPT-3 and most after it: beta2 0.95, a cosine to `final` of the peak; `warmup` in tokens."""
    return OptimConfig(
        learning_rate=rate,
        weight_decay=decay,
        beta2=0.95,
        epsilon=epsilon,
        schedule=Cosine(final=final),
        warmup_tokens=int(warmup),
    )


def chinchilla_budget(parameters: Optional[int]) -> float:
    """Returns the training tokens for a model of published size."""
    return float(PER_PARAMETER * (parameters or 0))
