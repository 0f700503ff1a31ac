"""The usual heads beside the vocabulary's, by name (imports no jax). They go on any stack: `ModelConfig(outputs=(reward(),))`."""

from lm.model.config import OutputConfig


def next_sentence() -> OutputConfig:
    """Returns BERT's head that tells whether the second text follows the first (Devlin et al. 2019, section 3.1)."""
    return OutputConfig("next_sentence", labels=2, pooled=True)


def sequence_classes(labels: int, *, last: bool = False, pooled: bool = False) -> OutputConfig:
    """Returns a head of classes of whole sequences, read at the first token; a causal stack has read everything only at the `last`."""
    return OutputConfig("sequence_classes", labels=labels, token="last" if last else "first", pooled=pooled)


def token_classes(labels: int) -> OutputConfig:
    """Returns a head of a class for every token, as in named-entity recognition."""
    return OutputConfig("token_classes", per="token", labels=labels)


def answer_span() -> OutputConfig:
    """Returns the head of extractive question answering: logits of an answer's start (0) and end (1) (Devlin et al. 2019, section 4.2)."""
    return OutputConfig("answer_span", per="token", labels=2)


def reward() -> OutputConfig:
    """Returns the head of a reward model: a scalar for the whole sequence, at its last token (Ouyang et al. 2022, section 3.5)."""
    return OutputConfig("reward", labels=1, token="last", bias=False)
