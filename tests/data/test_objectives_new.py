"""A new objective is its own class and one entry in the union: flags, shape, packing, stream, held-out rows and prompts follow."""

import dataclasses
from typing import ClassVar, Union

import numpy as np
import pytest
from objective_cases import VOCABULARY, ids, prepared

from lm import config as config_lib
from lm.data.config import DataConfig
from lm.data.held_out import held_out
from lm.data.objectives import config as C
from lm.data.objectives.base import Documents, Objective, exactly
from lm.data.objectives.ragged import Ragged, join, single
from lm.data.objectives.shape import row_shape
from lm.data.stream import TrainStream
from lm.errors import UserError
from lm.infer.prompts import prompt_ids

SIGN = VOCABULARY - 1


@dataclasses.dataclass(frozen=True)
class Reversed(Objective):
    """Predicts a chunk backwards, after a sign that stands behind it."""

    name: ClassVar[str] = "reversed"
    inputs_end: ClassVar[bool] = False

    share: float = 1.0
    examples_per_row: int = 1
    documents: Documents = "joined"

    def special_ids(self, own):
        return 1

    def require_options(self, chunk):
        self.require_between_0_and_1("share", ends=True)

    def lengths(self, chunk):
        return exactly(chunk + 1), exactly(chunk), exactly(2 * chunk + 1)

    def pairs(self, chunks, draws, ids, rows):
        backwards = chunks.values[(2 * chunks.starts + chunks.lengths - 1)[chunks.owner] - np.arange(len(chunks.values))]
        return join(chunks, single(ids.top(0), np.ones(len(chunks), bool))), Ragged(backwards, chunks.lengths)

    def blank(self, number, ids):
        return int(ids.top(0))


@dataclasses.dataclass(frozen=True)
class Config(DataConfig):
    """The registration: the union with one more member."""

    objective: Union[C.Objective, Reversed] = C.NextToken()


CONFIG = Config(sequence_length=64, objective=Reversed(examples_per_row=2), allow_epochs=True)


def test_flags_and_records_know_it():
    made = config_lib.apply_overrides(Config(), ["objective=reversed", "objective.examples_per_row=2"])
    assert made.objective == CONFIG.objective
    assert config_lib.from_dict(Config, config_lib.to_dict(CONFIG)) == CONFIG


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
@pytest.mark.parametrize("architecture", Reversed.architectures)
def test_rows_and_held_out_rows_are_made_of_its_pairs(architecture, packing):
    data_config = dataclasses.replace(CONFIG, packing=packing)
    shape, data = row_shape(data_config, architecture), prepared(data_config)
    batches = TrainStream(data, data_config, 4, 0, architecture=architecture, vocab_size=VOCABULARY)
    for batch in (batches[1], batches[10**6], held_out(data, data_config, architecture, VOCABULARY, 4)):
        assert batch.tokens.shape == (4, shape.length)
        assert batch.targets.shape == (4, shape.predicted or shape.length)
        seen = 0
        for row in range(4):
            for segment in range(1, batch.segments[row].max() + 1):
                at = batch.segments[row] == segment
                if architecture == "encoder_decoder":
                    inputs, targets = batch.encoder_tokens[row][batch.encoder_segments[row] == segment], batch.targets[row][at]
                else:
                    inputs = batch.tokens[row][at][1:][: (at.sum() + 1) // 2]
                    own = (batch.weights[row] > 0) & np.isin(batch.predict[row], np.flatnonzero(at))
                    targets = batch.targets[row][own]
                assert inputs[-1] == SIGN
                np.testing.assert_array_equal(inputs[:-1][::-1], targets)
                seen += len(targets)
        assert seen == batch.weights.sum() > 0


def test_its_refusals_and_vocabulary_are_asked_for():
    with pytest.raises(UserError, match=r"share=2.*reversed"):
        row_shape(dataclasses.replace(CONFIG, objective=Reversed(share=2.0)), "decoder")
    with pytest.raises(UserError, match=r"reversed .*encoder"):
        row_shape(CONFIG, "encoder")
    with pytest.raises(UserError, match="vocab_size=260"):
        TrainStream(prepared(CONFIG), CONFIG, 4, 0, vocab_size=259)


def test_prompts_follow_it():
    a = ord("a") + 3
    assert prompt_ids("a_", ids(Reversed()), "encoder_decoder", "_") == [a, SIGN]
