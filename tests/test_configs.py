"""Configurations: every leaf survives flag -> dataclass -> JSON -> dataclass; bad input is one clear line."""

import importlib
import json
import typing
from pathlib import Path
from typing import Literal

import pytest
from small_config import Square, Whole

from lm import config as C
from lm import fields
from lm.errors import UserError
from lm.train.config import RunConfig


def set_flags(config, *overrides):
    return C.apply_overrides(config, list(overrides))


# ---- every leaf, there and back -------------------------------------------------------------------------------------------------


def named_configs():
    """Every named configuration of configs/."""
    for file in sorted(Path("configs").glob("*.py")):
        module = importlib.import_module(f"configs.{file.stem}")
        for name in getattr(module, "CONFIGS", ()):
            yield f"{file}:{name}", module.get_config(name)


def all_configs():
    """Every RunConfig that can be reached by choosing strategies, and the named ones of every shape: sizes of one family are alike."""
    yield "default", RunConfig()
    for path, choices in strategies(RunConfig, ""):
        for choice in choices:
            yield f"{path}={choice}", set_flags(RunConfig(), f"{path}={choice}")
    seen = set()
    for name, config in named_configs():
        kind = tuple((leaf.path, type(leaf.value)) for leaf in C.leaves(config))
        if kind not in seen:
            yield name, config
        seen.add(kind)
    yield "every kind of field", set_flags(Whole(), "shapes.0=square", "spare=circle", "parts.1.labels=x,y")


def strategies(cls, prefix):
    for field in fields.of(cls).values():
        path, options = fields.join(prefix, field.name), fields.alternatives(field.hint)
        if len(options) > 1:
            yield path, [option.name for option in options]
        elif fields.is_group(field.hint):
            yield from strategies(options[0], path)


CONFIGS = dict(all_configs())


def other_value(leaf, hint):
    """A text for the leaf that is not its present value, and what it should become."""
    kind = fields.alternatives(hint)[0]
    if typing.get_origin(kind) is Literal:
        choice = next((c for c in typing.get_args(kind) if c != leaf.value), leaf.value)
        return str(choice), choice
    if fields.is_tuple(hint):
        scalars = {str: ("x", "x"), int: ("7", 7), float: ("2.5", 2.5)}
        length = len(leaf.value) if fields.element_hints(hint, 99)[98:] == () else 2
        pairs = [scalars[h] for h in fields.element_hints(hint, length)]
        return ",".join(text for text, _ in pairs), tuple(value for _, value in pairs)
    if kind is bool:
        return str(not leaf.value).lower(), not leaf.value
    return {int: ("1e5", 100_000), float: ("3e-4", 3e-4), str: ("some/where", "some/where")}[kind]


def leaves_to_set():
    """Returns, for each configuration, its leaves that no earlier one has with a value of the same type."""
    seen, found = set(), {}
    for name, config in CONFIGS.items():
        found[name] = []
        for leaf in C.leaves(config):
            key = type(config), leaf.path, leaf.owner, type(leaf.value)
            if key not in seen:
                found[name].append(leaf)
            seen.add(key)
    return found


LEAVES = leaves_to_set()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_leaf_survives_flag_dataclass_json_dataclass(name):
    config = CONFIGS[name]
    assert C.from_dict(type(config), json.loads(json.dumps(C.to_dict(config)))) == config
    assert C.from_config_dict(type(config), C.to_config_dict(config)) == config
    for leaf in LEAVES[name]:
        hint = fields.of(leaf.owner)[leaf.path.rpartition(".")[2]].hint if not leaf.path[-1].isdigit() else None
        if hint is None or len(fields.alternatives(hint)) > 1 or fields.is_group(hint):
            continue  # a strategy's name: chosen in `all_configs`
        if fields.is_tuple(hint) and fields.is_group(fields.element_hints(hint, 1)[0]):
            continue  # an empty list of groups
        text, value = other_value(leaf, hint)
        changed = set_flags(config, f"{leaf.path}={text}")
        assert (lookup(changed, leaf.path), type(lookup(changed, leaf.path))) == (value, type(value)), leaf.path
        back = C.from_dict(type(config), json.loads(json.dumps(C.to_dict(changed))))
        assert back == changed
        assert C.from_config_dict(type(config), C.to_config_dict(changed)) == changed
        if changed != config:
            assert [line.split(":")[0] for line in C.differences(config, changed)] == [leaf.path]
            assert (C.identity(changed) == C.identity(config)) == (leaf.part == "execution"), leaf.path
        if fields.is_optional(hint):
            assert lookup(set_flags(changed, f"{leaf.path}=none"), leaf.path) is None


def test_every_named_config_survives_json():
    for name, config in named_configs():
        assert C.from_dict(RunConfig, json.loads(json.dumps(C.to_dict(config)))) == config, name


def lookup(config, path):
    for key in path.split("."):
        config = config[int(key)] if isinstance(config, tuple) else getattr(config, key)
    return config


# ---- flags ----------------------------------------------------------------------------------------------------------------------


def test_a_strategy_and_its_fields_come_in_any_order():
    flags = ["optim.schedule=wsd", "optim.schedule.cooldown=0.2", "optim.learning_rate=1e-3"]
    one, other = (set_flags(set_flags(RunConfig(), "optim.schedule=cosine"), *order) for order in (flags, flags[::-1]))
    assert one == other
    assert one.optim.schedule.cooldown == 0.2
    assert one.optim.schedule.name == "wsd"


def test_naming_the_present_strategy_keeps_its_fields_and_another_starts_from_its_defaults():
    config = set_flags(RunConfig(), "optim.schedule.cooldown=0.2")
    assert set_flags(config, "optim.schedule=wsd") == config
    assert set_flags(config, "optim.schedule=cosine", "optim.schedule=wsd").optim.schedule == RunConfig().optim.schedule


def test_the_last_setting_of_a_path_wins():
    assert set_flags(Whole(), "count=4", "count=5").count == 5


def test_elements_of_a_tuple_are_set_by_index_and_the_next_index_appends():
    config = set_flags(RunConfig(), "data.components.0.corpus=text_files", "data.components.0.paths=a.txt,b.txt")
    assert config.data.components[0].paths == ("a.txt", "b.txt")
    config = set_flags(RunConfig(), "data.components.1.corpus=tfds:lm1b", "data.components.1.weight=2")
    assert [c.corpus for c in config.data.components] == ["python_sources", "tfds:lm1b"]
    assert config.data.components[1].weight == 2.0
    whole = set_flags(RunConfig(), 'data.components=[{"corpus": "text_files", "paths": ["with,comma.txt"]}]')
    assert whole.data.components[0].paths == ("with,comma.txt",)


def test_an_optional_group_is_turned_on_by_its_name_and_off_by_none():
    config = set_flags(Whole(), "spare.side=2", "spare=square")
    assert config.spare == Square(side=2.0)
    assert set_flags(config, "spare=none").spare is None


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("optim.lerning_rate=1", ["unknown key '--config.optim.lerning_rate'", "'--config.optim.learning_rate'"]),
        ("learning_rate=1", ["'--config.optim.learning_rate'"]),
        ("model.attention.heads=1", ["'--config.model.attention.num_heads'"]),
        ("optim.schedul=wsd", ["'--config.optim.schedule'"]),
        ("optim.schedule=wds", ["optim.schedule takes one of cosine, wsd, linear, rsqrt, not 'wds'", "did you mean 'wsd'"]),
        ("optim.schedule.coldown=1", ["'--config.optim.schedule.cooldown'"]),
        ("model.norm=rmsnorn", ["'rmsnorm'"]),
        ("model.d_model=wide", ["model.d_model takes an integer, not 'wide'"]),
        ("model.d_model=1.5", ["model.d_model takes an integer, not 1.5"]),
        ("optim.learning_rate=nan", ["takes a number"]),
        ("log.tensorboard=maybe", ["log.tensorboard takes true or false, not 'maybe'"]),
        ("optim.clip_norm=off", ["takes a number (or none), not 'off'"]),
        ("model.d_model=none", ["takes an integer, not 'none'"]),
        ("model=big", ["model is a group", "d_model"]),
        ("data.components=a", ["data.components.0.KEY"]),
        ("data.components.5.corpus=a", ["has 1 elements"]),
        ("data.components.0.corps=a", ["'--config.data.components.0.corpus'"]),
        ("data.components=[", ["not JSON"]),
        ("model.d_model.x=1", ["unknown key"]),
        ("seed", ["seed needs a value"]),
    ],
)
def test_a_bad_flag_is_one_line_that_names_the_nearest_valid_key(flag, words):
    with pytest.raises(UserError) as caught:
        set_flags(RunConfig(), flag)
    assert [word for word in [*words, "\n"] if word not in str(caught.value)] == ["\n"], str(caught.value)


def test_a_field_of_another_strategy_is_an_error_that_says_which():
    with pytest.raises(UserError, match=r"field of wsd, but optim.schedule is cosine; set --config.optim.schedule=wsd or drop cooldown"):
        set_flags(RunConfig(), "optim.schedule.cooldown=0.1", "optim.schedule=cosine")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("100M", 10**8), ("1.5B", 1_500_000_000), ("20k", 20_000), ("3T", 3 * 10**12), ("5GB", 5 * 10**9), ("2 M", 2_000_000)),
        *(("1e8", 10**8), ("1.28e2", 128), ("1,000,000", 10**6), ("1_000", 1000), ("-1", -1), ("0.1K", 100), ("1.1M", 1_100_000)),
    ],
)
def test_counts_are_written_as_people_write_them(text, value):
    assert fields.count(text) == value
    assert set_flags(RunConfig(), f"train_tokens={text}").train_tokens == value
    assert set_flags(RunConfig(), f"data.unique_tokens={text}").data.unique_tokens == value
    assert C.from_dict(RunConfig, {"train_tokens": text, "data": {"unique_tokens": text}}).data.unique_tokens == value


@pytest.mark.parametrize("text", ["", "M", "1.5", "100Mio", "1,00", "1,0000", "BB", "1BB", "nan", "1e999", "1__0", "1 0", "2**3"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError, match="whole number"):
        fields.count(text)
    with pytest.raises(UserError, match="train_tokens"):
        set_flags(RunConfig(), f"train_tokens={text}")
    with pytest.raises(UserError, match="train_tokens"):
        C.from_dict(RunConfig, {"train_tokens": text})


# ---- JSON -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"cuont": 1}, "nearest valid key is 'count'"),
        ({"count": "one"}, "count takes an integer, not 'one'"),
        ({"count": True}, "count takes an integer, not True"),
        ({"part": {"sise": 1}}, "nearest valid key is 'part.size'"),
        ({"parts": [{"size": 1}, {"sizes": 1}]}, "parts.1.sizes"),
        ({"shape": {"side": 1.0}}, "shape takes one of circle, square, not None"),
        ({"shape": {"name": "circle", "side": 1.0}}, "shape.side"),
        ({"pair": [1]}, "pair takes a list"),
        ({"loud": 1}, "loud takes true or false"),
    ],
)
def test_bad_json_is_refused(tree, words):
    with pytest.raises(UserError, match=words):
        C.from_dict(Whole, tree)


def test_parts_split_a_configuration_and_make_it_again():
    config = set_flags(RunConfig(), "mesh.fsdp=8", "optim.schedule=linear", "log.every_steps=3")
    experiment, execution = C.experiment_part(config), C.execution_part(config)
    assert "mesh" not in experiment
    assert "optim" not in execution
    assert execution["mesh"]["fsdp"] == 8
    assert C.from_parts(RunConfig, experiment, execution) == config


def test_a_config_dict_is_typed_and_locked():
    tree = C.to_config_dict(RunConfig())
    with pytest.raises(AttributeError):
        tree.modle = 1
    with pytest.raises(TypeError):
        tree.model.d_model = "wide"
    with pytest.raises(TypeError):
        tree.model.attention.window = "wide"  # a placeholder knows its type
    tree.model.attention.window = 64
    assert C.from_config_dict(RunConfig, tree).model.attention.window == 64
