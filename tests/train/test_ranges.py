"""Numbers that no run can have are refused before anything is made for each of them."""

import dataclasses

import pytest

from lm import config as config_lib
from lm.errors import UserError
from lm.train import checks, ranges, room
from lm.train.build import build
from lm.train.config import ExecutionConfig, RunConfig

HUGE = 10**9


@pytest.mark.parametrize("path", [*ranges.ONE_OR_MORE, *ranges.NONE_OR_MORE, "seed"])
def test_numbers_below_their_least(path):
    least = int(path in ranges.ONE_OR_MORE)
    with pytest.raises(UserError, match=path.replace(".", r"\.")):
        checks.check_config(config_lib.apply_overrides(RunConfig(), [f"{path}={least - 1}"]))


@pytest.mark.parametrize(
    "change", ["seed=4294967296", "model.num_layers=10**30", "model.vocab_size=10**30", "model.d_model=10**9", "model.attention.scale=0"]
)
def test_numbers_beyond_their_most(change):
    path, value = change.split("=")
    changes = [f"{path}={10**30 if '**30' in value else HUGE if '**9' in value else value}"]
    changes += ["model.num_layers=1000000"] if path == "model.d_model" else []
    with pytest.raises(UserError, match=path.rpartition(".")[2]):
        checks.check_config(config_lib.apply_overrides(RunConfig(), changes))


def test_a_model_that_the_devices_cannot_hold():
    """Nothing is compiled or made for each of 10^9 layers."""
    config = config_lib.apply_overrides(RunConfig(), [f"model.num_layers={HUGE}"])
    with pytest.raises(UserError, match="GB"):
        room.require_room(build(config))
    room.require_room(build(RunConfig()))


def test_moments_in_the_memory_of_the_host_take_none_of_a_device(monkeypatch):
    config = RunConfig()
    parts = build(config)
    weights = room.on_one_device(room.abstract_state(config, parts.model, parts.mesh).params)
    monkeypatch.setattr(room, "memory_of", lambda device, sharing: 1.5 * weights)
    with pytest.raises(UserError):
        room.require_room(parts)
    room.require_room(dataclasses.replace(parts, config=dataclasses.replace(config, execution=ExecutionConfig(offload_optimizer=True))))
