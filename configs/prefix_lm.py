"""Prefix language models: `--config=configs/prefix_lm.py:NAME`. A decoder's weights, and a prefix that every later token sees whole.

Hardware, time and loss of all but `tiny`: not run. Parameters are those of the decoder of the same shape.
"""

import dataclasses
from collections.abc import Callable

from configs import decoder
from configs.shapes import choose
from configs.shapes.encoder_decoder import T5, t5_alone
from configs.shapes.recipes import T5_NOISE, T5_PIECES, on_c4
from lm.data.config import SentencePieceTokenizer
from lm.data.objectives.config import MixtureOfDenoisers, PrefixLM
from lm.data.own_ids import OwnIds
from lm.optim.config import t5
from lm.train.config import RunConfig


def tiny() -> RunConfig:
    """decoder.py:tiny, which reads a prefix of random length and predicts the rest of each row.

    python -m lm.run --config=configs/prefix_lm.py:tiny --workdir=runs/tiny_prefix

    Hardware: two CPU cores. Time: 33 s of processor time. Held-out loss to expect: 2.17 nats per target.
    """
    config = decoder.tiny()
    model = dataclasses.replace(config.model, architecture="prefix_lm")
    return dataclasses.replace(config, model=model, data=dataclasses.replace(config.data, objective=PrefixLM()))


def t5_base() -> RunConfig:
    """The prefix LM of T5's comparison of architectures (Raffel et al. 2020, table 2), denoising; see encoder_decoder.py:t5_table_2.

    python -m lm.run --config=configs/prefix_lm.py:t5_base --workdir=runs/t5_base_prefix
    """
    model, optim = t5_alone("prefix_lm", *T5["t5_base"][:-1]), t5(10_000, 128 * 512)
    return on_c4(model, length=512, rows=128, tokens=2**19 * 128 * 512, optim=optim, tokenizer=T5_PIECES, objective=T5_NOISE)


def ul2_1b() -> RunConfig:
    """decoder.py:llama_1b as a prefix LM under UL2's mixture of denoisers (Tay et al. 2023), its pieces fewer by the special ids.

    python -m lm.run --config=configs/prefix_lm.py:ul2_1b --workdir=runs/ul2_1b --config.mesh.fsdp=8
    """
    config, objective = decoder.llama_1b(), MixtureOfDenoisers(examples_per_row=4)
    pieces = SentencePieceTokenizer(vocab_size=config.model.vocab_size - objective.special_ids(OwnIds()))
    data = dataclasses.replace(config.data, tokenizer=pieces, objective=objective, packing="concatenate", sequence_length=2048)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, architecture="prefix_lm"), data=data)


CONFIGS: dict[str, Callable[[], RunConfig]] = {f.__name__: f for f in (tiny, t5_base, ul2_1b)}


def get_config(name: str = "tiny") -> RunConfig:
    """Returns the configuration called `name`."""
    return choose("configs/prefix_lm.py", CONFIGS, name)
