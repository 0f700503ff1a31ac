"""The Chinchilla study again at a SentencePiece vocabulary of 1,024: what does the tokenizer change?

    python -m experiments chinchilla_bpe

Same text, same shapes, same budgets; compared with `chinchilla` in bits per byte at equal C.
"""

import dataclasses

from experiments.chinchilla import study as bytes_study
from lm.data.config import SentencePieceTokenizer
from lm.study.study import Budget, Study

VOCABULARY = 1024


def get_study() -> Study:
    study = bytes_study.get_study()
    tokenizer = SentencePieceTokenizer(vocab_size=VOCABULARY, model_type="bpe", whitespace_pieces=True)
    base = dataclasses.replace(
        study.base,
        model=dataclasses.replace(study.base.model, vocab_size=VOCABULARY),
        data=dataclasses.replace(study.base.data, tokenizer=tokenizer),
        evaluation=dataclasses.replace(study.base.evaluation, window_bytes=study.base.data.sequence_length),  # the same bytes of context
    )
    return dataclasses.replace(
        study,
        name="chinchilla_bpe",
        question="What does a vocabulary of 1,024 change against bytes, at equal compute?",
        base=base,
        budgets=(
            Budget(4.2e11, (8, 12, 16, 24, 32, 48, 64), repeats=(12, 24, 48)),
            Budget(8.8e11, (12, 16, 24, 32, 48, 64, 80)),
            Budget(1.85e12, (16, 24, 32, 48, 64, 80, 96), stage=1),
        ),
        compare_with=("chinchilla",),
    )
