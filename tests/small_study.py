"""A small study for tests, and the data it is planned on."""

import dataclasses
import io
import pathlib

import fake_train

from experiments import planning
from experiments.commands import Commands
from experiments.training import How
from launch.local import LocalWorkers
from lm.data.config import DataConfig
from lm.data.objectives.config import Denoising
from lm.model.config import ModelConfig
from lm.scaling.settings import AnalysisSettings
from lm.study import directory, plan, status, worker
from lm.study.comparison import Comparison, Published, Variant
from lm.study.rules import HeadsShape, PowerLawRate, PowerOfTwoBatch
from lm.study.study import Budget, Study
from lm.train.config import RunConfig

TRAIN = "fake_train:train"  # with tests/ on PYTHONPATH
DATA = {
    "fingerprint": "0123456789abcdef",
    "tokenizer": {"name": "bytes", "vocab_size": 259, "fingerprint": "bytes"},
    "documents": {"train": 1000, "validation": 100},
    "tokens": {"train": 30_000_000, "validation": 300_000},
    "bytes": {"train": 29_999_000, "validation": 299_900},
    "tokens_per_epoch": 29_900_000,
    "rows_per_epoch": 233_593,
    "components": [
        {"corpus": "python_sources", "weight": 1.0, "info": {"verbatim_share": 0.012, "verbatim_shares": {"20": 0.0604, "40": 0.012}}}
    ],
}
SIZES = (2, 3, 4, 6, 8)


def small(**changes) -> Study:
    """Two budgets and a third behind the forecast; 19 cells."""
    fields = {
        "name": "small",
        "question": "does the machinery work?",
        "base": RunConfig(model=ModelConfig(vocab_size=259), data=DataConfig(sequence_length=128)),
        "shape": HeadsShape(),
        "learning_rate": PowerLawRate(1.2e-2, 4, 0.5, 33e3, -0.15, 1.2e6, -0.15),
        "batch": PowerOfTwoBatch(sequences=4, tokens=1.2e6, exponent=0.5, low=2, high=8, min_steps=200),
        "budgets": (
            Budget(2e11, SIZES, repeats=(3, 6), brackets=(4,)),
            Budget(5e11, SIZES, brackets=(4,)),
            Budget(1e12, (3, 4, 6), stage=1),
        ),
        "seeds": (1,),
        "analysis": AnalysisSettings(draws=60, table_draws=10),
    }
    return Study(**(fields | changes))


def comparison(**changes) -> Comparison:
    """Three architectures under one objective, with an opinion of them in print; 9 cells."""
    data = DataConfig(sequence_length=64, objective=Denoising(sentinels=30))
    model = ModelConfig(vocab_size=289, d_model=32, num_layers=2, positions="relative")
    base = RunConfig(model=model, data=data, train_tokens=64 * 4 * 300, batch_size=4)
    variants = tuple(
        Variant("denoising", name, dataclasses.replace(base, model=dataclasses.replace(model, architecture=name)))
        for name in ("encoder_decoder", "prefix_lm", "decoder")
    )
    scores = (("denoising", "encoder_decoder", (80.0, 20.0, 30.0)), ("denoising", "decoder", (70.0, 19.0, 30.1)))
    published = Published("a paper", ("quality", "speed", "price"), (0.5, 0.1, 0.1), scores)
    fields = {"name": "trio", "question": "which is best?", "variants": variants, "published": published}
    return Comparison(**(fields | changes))


def planned(root: pathlib.Path, **changes) -> dict:
    """Writes the directory of `small(...)` and returns study.json's content."""
    return directory.write(plan.make(small(**changes), DATA), root, root.parent / "data")


def train_here(launcher, root, before_stage_1, view):
    """Stands for LocalWorkers.run: trains in this process, without workers."""
    wanted = worker.Wanted(only=frozenset(launcher.only) or None)
    for _ in range(2):
        worker.work(root, fake_train.train, wanted=wanted, log=lambda line: None)
        state = status.read_status(root)
        if state.finished == len(state.cells) or state.forecast or not before_stage_1():
            break
    view.start(dataclasses.replace(state, cells=()))
    view.update(state)
    view.close()
    return status.read_status(root)


def commands_on(study, root: pathlib.Path, patch, run=train_here) -> Commands:
    """The verbs of a study whose data are prepared; cells are trained by `run`."""
    patch.setattr(planning.data_info, "info", lambda config, data_dir: DATA)
    patch.setattr(LocalWorkers, "run", run)
    return Commands(study, root, root.parent / "data", How(train=TRAIN), io.StringIO())
