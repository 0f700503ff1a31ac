"""A small Chinchilla study on text with a known entropy: does the fitted law find an irreducible loss that is known?

    python -m experiments known_entropy

Two CPU cores, about 5 minutes; README.md has the numbers to expect.
"""

import dataclasses

from experiments.chinchilla import study as bytes_study
from lm.data.config import Component, WordChain
from lm.study.study import Budget, Study
from lm.train.config import EvalConfig

# Large enough that no learner here comes near the end of the list, where a power law ends too.
CHAIN = WordChain(words=65_536, exponent=1.5, successor=0.5, train_documents=5_000, validation_documents=200)


def get_study() -> Study:
    study = bytes_study.get_study()
    base = dataclasses.replace(
        study.base,
        data=dataclasses.replace(study.base.data, components=(Component("word_chain", chain=CHAIN),)),
        evaluation=EvalConfig(documents_bytes=98_304, curve_bytes=8_192, points_per_decade=6),
    )
    return dataclasses.replace(
        study,
        name="known_entropy",
        question="Does the fitted law find the entropy of a text that was made with a known one?",
        base=base,
        budgets=(
            Budget(1.2e11, (12, 16, 24, 32, 40, 48, 64), repeats=(16, 32, 48), brackets=(24,)),
            Budget(3e11, (16, 24, 32, 40, 48, 64, 80), repeats=(32,)),
            Budget(8e11, (16, 24, 32, 48, 64, 96, 128)),
            Budget(2e12, (24, 32, 48, 64, 96, 128)),
        ),
    )
