"""The objectives that `data.objective` chooses from (imports no jax). Each has a file of its own, with all that is known of it."""

from typing import Union

from lm.data.objectives.bart import BartNoise
from lm.data.objectives.denoising import Denoising, SpanCorruption
from lm.data.objectives.fill_in_the_middle import FillInTheMiddle
from lm.data.objectives.masked import MaskedLM
from lm.data.objectives.next_token import NextToken
from lm.data.objectives.pairs import Pairs
from lm.data.objectives.prefix import PrefixLM
from lm.data.objectives.ul2 import MODES, SEVEN_DENOISERS, Denoiser, MixtureOfDenoisers

__all__ = [
    "MODES", "SEVEN_DENOISERS", "BartNoise", "Denoiser", "Denoising", "FillInTheMiddle", "MaskedLM", "MixtureOfDenoisers", "NextToken",
    "Objective", "Pairs", "PrefixLM", "SpanCorruption",
]  # fmt: skip

Objective = Union[NextToken, PrefixLM, Denoising, SpanCorruption, MaskedLM, BartNoise, MixtureOfDenoisers, FillInTheMiddle, Pairs]
