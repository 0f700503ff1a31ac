"""What an error advises can be pasted: `--config.KEY=VALUE` in a message names a key that there is, and takes the error away."""

import ast
import contextlib
import re
from pathlib import Path

import pytest

import lm
from lm import config as C
from lm import fields
from lm.data.mixture import require_unique
from lm.errors import UserError
from lm.evals.loss import span_and_stride
from lm.train.build import build
from lm.train.config import RunConfig
from lm.train.derived import total_steps

ROOTS = "data|model|optim|mesh|execution|evaluation|checkpoint|log"
FLAGS = re.compile(rf"--config\.((?:{ROOTS}|train_|batch_)[\w.]*)")
PASTED = re.compile(r"--config\.([\w.]+=[\w.]*\w)")
PATHS = set(fields._paths(RunConfig, ""))
BARE = re.compile(rf"(?:set|or|lower|raise|use|change|in|correct|make) ({ROOTS})\.[a-z_]+")


def texts():
    """Yields (place, text) of every string of lm, with {} for what a formatted string fills in, and without docstrings."""
    for path in sorted(Path(lm.__file__).parent.rglob("*.py")):
        source = path.read_text()
        if not ("--config." in source or BARE.search(source)):  # parsing is slow
            continue
        tree = ast.parse(source)
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield path.name, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                yield path.name, node.value


def test_every_flag_in_a_message_is_one():
    said = list(texts())
    flags = {(place, flag) for place, text in said for flag in FLAGS.findall(text)}
    assert len(flags) > 30
    assert [each for each in flags if each[1].rstrip(".") not in PATHS] == []
    assert [each for each in said if BARE.search(each[1]) and len(each[1]) < 300] == []


def rows(config):
    require_unique(config.data, total_steps(config) * config.batch_size, 40)


def stride(config):
    span_and_stride(config.evaluation, config.data.sequence_length, 1.0)


ENCODER = ("model.architecture=encoder", "data.objective=masked", "model.positions=learned", "model.vocab_size=300")


@pytest.mark.parametrize(
    ("check", "flags"),
    [
        (rows, ("train_tokens=1M",)),
        (total_steps, ("train_tokens=100",)),
        (stride, ("data.sequence_length=32",)),
        (build, ("data.sequence_length=4096", "model.positions=learned", "model.max_length=64")),
        (build, (*ENCODER, "model.max_length=64", "data.sequence_length=64", "data.objective.next_sentence=false")),
        (build, (*ENCODER, "model.max_length=64", "data.sequence_length=32")),
        (build, (*ENCODER, "model.max_length=64", "model.outputs.0.name=next_sentence", "model.token_types=1", "data.sequence_length=32")),
        (build, ("data.objective=span_corruption", "data.objective.examples_per_row=3")),
        (build, ("data.objective=span_corruption", "data.objective.sentinels=1")),
        (build, ("data.objective=pairs",)),
        (build, ("data.objective=prefix", "data.objective.loss_on_inputs=true", "model.architecture=prefix_lm")),
    ],
)
def test_advice_can_be_pasted(check, flags):
    config = C.apply_overrides(RunConfig(), list(flags))
    with pytest.raises(UserError) as caught:
        check(config)
    pasted = PASTED.findall(str(caught.value))
    assert pasted
    with contextlib.suppress(UserError):  # the next fault of the configuration is another
        check(C.apply_overrides(config, pasted[:1]))
        return
    with pytest.raises(UserError) as again:
        check(C.apply_overrides(config, pasted[:1]))
    assert str(again.value) != str(caught.value)
