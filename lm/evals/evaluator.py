"""The evaluator of a run, by the kind of held-out likelihood that its configuration has."""

from typing import Any, Union

from jax.sharding import Mesh

from lm.data import round_trip
from lm.data.pipeline import Data
from lm.evals.loss import LossEvaluator
from lm.evals.pairs import PairEvaluator
from lm.train.config import RunConfig

Evaluator = Union[LossEvaluator, PairEvaluator]


def make_evaluator(config: RunConfig, model: Any, mesh: Mesh, data: Data) -> Evaluator:
    """Returns the evaluator of `config.likelihood`: of whole documents, or of the targets of the objective's pairs.

    Raises UserError where tokens lose a part of the text, whose likelihood per byte would then be too low.
    """
    if config.likelihood == "pairs":
        return PairEvaluator(config, model, mesh, data)
    round_trip.require(data.info)
    return LossEvaluator(config, model, mesh, data)
