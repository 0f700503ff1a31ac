"""Names of hardware, and what is said of wrong ones."""

import pytest

from lm.errors import UserError
from lm.preflight.targets import GPUS, target_text
from lm.preflight.topologies import CHIPS, parse


@pytest.mark.parametrize(
    ("text", "kind", "devices"),
    [
        ("tpu:v5e:4x4", "tpu", 16),
        ("tpu:v5p:4x4x4", "tpu", 64),
        ("tpu:v4:2x2x1", "tpu", 4),
        ("tpu:v6e:1x1", "tpu", 1),
        ("tpu:tpu7x:2x2x2", "tpu", 16),  # two devices per chip
        ("gpu:h100:1x8", "gpu", 8),
        ("gpu:h200:2x8", "gpu", 16),
        ("gpu:b200:1x1", "gpu", 1),
    ],
)
def test_devices(text, kind, devices):
    topology = parse(text)
    assert (topology.kind, topology.devices) == (kind, devices)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v5p:4x4x4", "give a kind, a device and a shape"),
        ("tpu:v9:4x4", "no device tpu:v9 is known"),
        ("gpu:v5e:1x8", "no device gpu:v5e is known"),
        ("tpu:v5p:4x4", "has 3 dimensions"),
        ("tpu:v5e:4x4x4", "has 2 dimensions"),
        ("tpu:v5e:3x3", "must be even"),
        ("gpu:h100:8", "nodes x GPUs of a node"),
        ("gpu:h100:0x8", "nodes x GPUs of a node"),
        ("gpu:h100:1x16", "at most 8 GPUs"),
        ("gpu:h100:1x8x", "give a kind"),
    ],
)
def test_wrong_names_are_refused_in_one_line(text, says):
    with pytest.raises(UserError) as error:
        parse(text)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_every_gpu_has_a_description_with_its_memory():
    assert set(GPUS) == {name for name, chip in CHIPS.items() if chip.kind == "gpu"}
    for name in GPUS:
        text = target_text(name)
        assert f"device_memory_size: {CHIPS[name].memory}\n" in text
        assert text.count("{") == text.count("}") == 3
