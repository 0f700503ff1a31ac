"""The findings of a check: a Refusal where no number should stand, a Caution where one stands that needs care."""

from typing import Union

from lm.scaling.results import Caution, Refusal

Found = Union[Refusal, Caution]
