"""Encoder-only models: `--config=configs/encoder.py:NAME`.

Hardware, time and loss of all but `tiny`: not run. Parameter counts and where they come from: configs/shapes/encoder.py.
"""

import functools
from collections.abc import Callable

from configs.shapes import choose
from configs.shapes.encoder import BERT, ROBERTA, SHAPES
from configs.shapes.recipes import on_c4
from lm.data.config import DataConfig, SentencePieceTokenizer
from lm.data.objectives.config import MaskedLM
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.outputs import next_sentence
from lm.optim.config import Linear, OptimConfig
from lm.train.config import RunConfig

RATES = {"bert_base": 1e-4, "bert_large": 1e-4}
ROBERTA_RATES = {"roberta_base": (6e-4, 24_000), "roberta_large": (4e-4, 30_000)}  # peak learning rate, steps of warm-up


def tiny() -> RunConfig:
    """An encoder of 136,514 parameters that fills masks and tells following text from other, on 1M bytes of installed Python sources.

    python -m lm.run --config=configs/encoder.py:tiny --workdir=runs/tiny_bert

    Hardware: two CPU cores. Time: 40 s of processor time. Held-out loss to expect: 2.00 nats per target; the next sentence is not learned.
    """
    return RunConfig(
        model=ModelConfig(
            architecture="encoder",
            vocab_size=261,  # 259 bytes and control ids, and those that open and part the two texts
            d_model=64,
            num_layers=2,
            attention=AttentionConfig(num_heads=4, head_dim=16, qk_norm=True),
            mlp=MLPConfig(d_ff=256, activation="squared_relu"),
            token_types=2,
            outputs=(next_sentence(),),
            zero_init_outputs=True,
        ),
        data=DataConfig(sequence_length=128, objective=MaskedLM()),
        optim=OptimConfig(learning_rate=1e-2, warmup_tokens=130_000),
        train_tokens=1_000_000,
        batch_size=8,
    )


def bert(name: str) -> RunConfig:
    """BERT (Devlin et al. 2019, appendix A.2): 1M steps of 256 rows of 512, masks and next sentences. Masks are drawn anew in each epoch.

    Nine tenths of the paper's steps read rows of 128; all read 512 here (509 of text). The pieces leave room for the special ids.

    python -m lm.run --config=configs/encoder.py:bert_base --workdir=runs/bert_base
    """
    per_step = 256 * 509
    optim = OptimConfig(
        learning_rate=RATES[name],
        weight_decay=0.01,
        beta2=0.999,
        epsilon=1e-6,
        schedule=Linear(),
        warmup_tokens=10_000 * per_step,
    )
    tokenizer = SentencePieceTokenizer(vocab_size=30_000)
    model, tokens = SHAPES[name].model, 1_000_000 * per_step
    return on_c4(model, length=509, rows=256, tokens=tokens, optim=optim, tokenizer=tokenizer, objective=MaskedLM())


def roberta(name: str) -> RunConfig:
    """RoBERTa (Liu et al. 2019, table 9): masks alone, 500,000 steps of 8,000 rows, whole rows of running text.

    `data.tokenizer.path` is GPT-2's tokenizer.json, as in the paper.
    """
    (rate, warmup), length, rows = ROBERTA_RATES[name], 510, 8000
    optim = OptimConfig(
        learning_rate=rate, weight_decay=0.01, beta2=0.98, epsilon=1e-6, clip_norm=None, schedule=Linear(),
        warmup_tokens=warmup * rows * length,
    )  # fmt: skip
    objective = MaskedLM(next_sentence=False)
    return on_c4(SHAPES[name].model, length=length, rows=rows, tokens=500_000 * rows * length, optim=optim, objective=objective)


CONFIGS: dict[str, Callable[[], RunConfig]] = {"tiny": tiny}
CONFIGS |= {name: functools.partial(bert, name) for name in BERT} | {name: functools.partial(roberta, name) for name in ROBERTA}


def get_config(name: str = "tiny") -> RunConfig:
    """Returns the configuration called `name`."""
    return choose("configs/encoder.py", CONFIGS, name)
