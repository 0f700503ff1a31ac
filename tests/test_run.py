"""The command line of a single run: flags, files, refusals, and what it leaves behind."""

import json

import pytest

from lm import run
from lm.config import from_dict
from lm.errors import UserError
from lm.train.config import RunConfig

TINY = "--config=configs/decoder.py:tiny"


def test_both_spellings_of_a_flag_and_overrides_in_order():
    arguments = run.parse(["--config", "a.py:b", "--workdir=w", "--config.seed", "3", "--config.seed=4", "--dry_run"])
    assert arguments == ({"config": "a.py:b", "workdir": "w"}, {"dry_run"}, ["seed=3", "seed=4"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--confg=x"], "--config"),
        (["--optim.learning_rate=1"], "--config.optim.learning_rate"),
        (["--learning_rate=1"], "--config.optim.learning_rate"),
        (["--config"], "--config"),
        (["--workdir", "--dry_run"], "--workdir"),
        (["tiny"], "tiny"),
        (["--dry_run=false"], "--dry_run"),
    ],
)
def test_bad_flags(words, message):
    with pytest.raises(UserError, match=message):
        run.parse(words)


@pytest.mark.parametrize("text", ["5", "a:b", "5:5", "-1:3", "3:"])
def test_bad_profile_steps(text):
    with pytest.raises(UserError, match="--profile"):
        run.profile_steps(text)


FILES = {
    "config_dict.py": "from lm.config import to_config_dict\nfrom lm.train.config import RunConfig\ndef get_config(name='a'):\n"
    "  c = to_config_dict(RunConfig())\n  c.seed = 7\n  return c\n",
    "number.py": "def get_config():\n  return 3\n",
    "broken.py": "def get_config(:\n",
    "failing.py": "def get_config():\n  return 1 / 0\n",
    "nothing.py": "x = 1\n",
    "good.json": '{"seed": 7}',
    "bad.json": "{",
    "typo.json": '{"sed": 7}',
}


@pytest.mark.parametrize("spec", ["config_dict.py", "config_dict.py:a", "good.json"])
def test_a_configuration_file_may_return_a_config_dict_or_be_json(tmp_path, spec):
    (tmp_path / spec.partition(":")[0]).write_text(FILES[spec.partition(":")[0]])
    assert run.load(f"{tmp_path}/{spec}") == RunConfig(seed=7)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("number.py", "int"),
        ("broken.py", "SyntaxError"),
        ("failing.py", "ZeroDivisionError.*LM_TRACEBACK"),
        ("nothing.py", "get_config"),
        ("bad.json", "JSON"),
        ("typo.json", "'seed'"),
    ],
)
def test_bad_configuration_files(tmp_path, spec, message):
    (tmp_path / spec).write_text(FILES[spec])
    with pytest.raises(UserError, match=message):
        run.load(f"{tmp_path}/{spec}")


def test_an_unknown_file_or_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"configs/decoder\.py"):
        run.load("configs/decodr.py:tiny")
    with pytest.raises(UserError, match="'tiny'"):
        run.load("configs/decoder.py:tinny")


def test_print_config_prints_what_config_reads(tmp_path, capsys):
    assert run.main([TINY, "--config.optim.schedule.final=0.1", "--config.optim.schedule=linear", "--print_config"]) == 0
    printed = capsys.readouterr().out
    config = from_dict(RunConfig, json.loads(printed))
    assert (config.optim.schedule.name, config.optim.schedule.final) == ("linear", 0.1)
    (tmp_path / "c.json").write_text(printed)
    assert run.load(str(tmp_path / "c.json")) == config


@pytest.mark.parametrize(("words", "name"), [([], "--config"), ([TINY], "--workdir"), ([TINY, "--config.model.d_mdel=3"], "model.d_model")])
def test_what_is_missing_or_unknown_is_named(words, name):
    with pytest.raises(UserError, match=name):
        run.main(words)


def test_a_dry_run_describes_and_trains_nothing(tmp_path, capsys):
    assert run.main([TINY, "--dry_run", f"--config.data_dir={tmp_path}"]) == 0
    assert "parameters  " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
