"""Plans: what is printed, what is refused, and the directory that is written once."""

import copy
import dataclasses
import errno
import json
import os
import pathlib

import pytest
import small_study

from lm import config as config_lib
from lm.errors import UserError
from lm.scaling.words import si
from lm.study import directory, plan, plan_table
from lm.study.comparison import Variant
from lm.study.rows import read_rows
from lm.study.rules import PowerOfTwoBatch
from lm.study.study import Budget
from lm.train.config import RunConfig


def test_every_cell_is_printed_with_its_counts():
    made = plan.make(small_study.small(), small_study.DATA)
    assert made.refusals == []
    head, *lines = plan_table.render(made, workers=2).splitlines()
    assert max(map(len, lines)) <= plan_table.WIDTH == 120
    assert head.split()[:5] == ["id", "N", "D", "lr", "time"]
    assert len([line for line in lines if any(p.id in line for p in made.planned)]) == len(made.planned) == 19
    p = made.planned[0]
    line = next(line for line in lines if p.id in line)
    for text in (si(p.params["matmul"], 4, zeros=True), si(p.cell.config.train_tokens, 4, zeros=True), "2e11", f"{p.cell.steps:,}"):
        assert text in line.split()
    for shape in {p.cell.shape_key: p for p in made.planned}.values():
        (line,) = [line for line in lines if f" {shape.params['total']:,} " in line]
        assert f" {shape.params['matmul']:,} " in line
    assert "jump" not in "".join(lines)


def test_a_comparison_with_long_names_and_large_models_fits_the_width():
    name, models = "a variant of a name that goes on and on " * 3, small_study.comparison().variants
    grown = [dataclasses.replace(v, name=name + v.name, config=dataclasses.replace(v.config, train_tokens=64 * 10**12)) for v in models]
    made = plan.make(small_study.comparison(variants=tuple(grown), published=None), small_study.DATA)
    lines = plan_table.render(made, workers=1).splitlines()
    assert max(map(len, lines)) <= plan_table.WIDTH
    assert all(any(line.startswith(p.id) for line in lines) for p in made.planned)


def test_jumps_of_shape_are_marked():
    @dataclasses.dataclass(frozen=True)
    class Crooked:
        def model(self, base, dial):
            attention = dataclasses.replace(base.attention, num_heads=1 if dial < 3 else 2)
            return dataclasses.replace(base, d_model=16 * dial, num_layers=2 if dial < 4 else 3, attention=attention)

    study = small_study.small(shape=Crooked(), budgets=(Budget(2e11, (2, 3, 4)),))
    marks = {p.cell.dial: p.marks for p in plan.make(study, small_study.DATA).planned}
    assert marks[2] == ()
    assert marks[3] == ("heads 1->2", "feed-forward ratio")
    assert marks[4] == ("depth 2->3", "feed-forward ratio")
    shown = plan_table.render(plan.make(study, small_study.DATA), workers=1)
    assert "heads 1->2" in shown
    assert max(map(len, shown.splitlines())) <= plan_table.WIDTH


def _refusals(data=None, **changes):
    return plan.make(small_study.small(**changes), {**small_study.DATA, **(data or {})}).refusals


def test_cells_without_meaning_are_refused_with_one_line_each():
    big = PowerOfTwoBatch(sequences=4096, tokens=1, exponent=0, low=4096)
    (line,) = _refusals(budgets=(Budget(1e10, (4,)),), batch=big)
    assert "budget" in line
    (line,) = _refusals(budgets=(Budget(2e10, (8,)),))
    assert "limits.min_steps is 200" in line
    base = small_study.small().base
    slow = dataclasses.replace(base, optim=dataclasses.replace(base.optim, warmup_fraction=1.0))
    tiny = _refusals(base=slow, budgets=(Budget(2e10, (8,)),))
    assert any("warm-up" in line for line in tiny)
    lines = _refusals({"tokens_per_epoch": 1_000_000}, budgets=(Budget(2e11, (2, 8)),))
    assert len(lines) == 1
    assert "data.allow_epochs" in lines[0]
    epochs = dataclasses.replace(base, data=dataclasses.replace(base.data, allow_epochs=True))
    assert _refusals({"tokens_per_epoch": 1_000_000}, base=epochs, budgets=(Budget(2e11, (2, 8)),)) == []


def test_what_would_end_a_worker_is_refused():
    """Options of a model that contradict each other, and a corpus that nobody knows: before the first cell trains."""
    base = small_study.comparison().base
    attention = dataclasses.replace(base.model.attention, num_heads=2, num_kv_heads=3)
    corpus = dataclasses.replace(base.data.components[0], corpus="nothing")
    variants = {
        "num_kv_heads": dataclasses.replace(base, model=dataclasses.replace(base.model, attention=attention)),
        "nothing": dataclasses.replace(base, data=dataclasses.replace(base.data, components=(corpus,))),
    }
    for word, config in variants.items():
        study = small_study.comparison(variants=(Variant("group", "one", config),), published=None)
        assert any(word in refusal for refusal in plan.make(study, small_study.DATA).refusals)
    text = small_study.small().base  # whose losses have no entropy of targets to be held against
    with pytest.raises(UserError, match="next_token"):
        plan.make(small_study.comparison(variants=(Variant("group", "one", text),), published=None), small_study.DATA)


def test_tokens_that_lose_text_are_refused():
    (line,) = _refusals({"lost_bytes": {"train": 0.0, "validation": 0.64}})
    assert "64.00%" in line
    assert _refusals({"lost_bytes": {"train": 0.0005, "validation": 0.0}}) == _refusals() == []


def test_a_validation_split_that_train_knows_is_refused():
    components = copy.deepcopy(small_study.DATA["components"])
    components[0]["info"]["verbatim_share"] = 0.19
    (line,) = _refusals({"components": components})
    assert "19.0%" in line


def test_a_vocabulary_that_is_too_small_is_refused():
    (line,) = _refusals({"tokenizer": {"vocab_size": 1024}})
    assert "1024" in line
    assert "base.model.vocab_size is 259" in line


def test_a_run_that_is_planned_twice_is_refused():
    with pytest.raises(UserError, match="drop one"):
        plan.make(small_study.small(budgets=(Budget(2e11, (4,), brackets=(4,)),), bracket_factors=(1.0,)), small_study.DATA)


def test_the_directory_is_self_contained_and_its_rows_are_the_plan(tmp_path):
    study = small_study.planned(tmp_path / "s")
    made = plan.make(small_study.small(), small_study.DATA)
    for p in made.planned:
        text = (tmp_path / "s" / "cells" / p.id / "config.json").read_text(encoding="utf-8")
        assert config_lib.from_dict(RunConfig, json.loads(text)) == p.cell.config
    rows = read_rows(tmp_path / "s")
    assert [row.id for row in rows] == [cell["id"] for cell in study["cells"]]
    assert all(row.status == "pending" and not row.completed for row in rows)
    assert rows[0].c() == made.planned[0].flops["matmul_causal"]
    assert small_study.planned(tmp_path / "s") == study  # the second time nothing is written


def test_another_study_in_the_directory_is_refused_by_field(tmp_path):
    root = tmp_path / "s"
    small_study.planned(root)
    base = small_study.small().base
    edited = dataclasses.replace(base, optim=dataclasses.replace(base.optim, beta2=0.99))
    with pytest.raises(UserError, match=r"base\.optim\.beta2: 0\.98 -> 0\.99.*--dir"):
        small_study.planned(root, base=edited)
    with pytest.raises(UserError, match="data fingerprint: 0123456789abcdef -> other"):
        directory.write(plan.make(small_study.small(), small_study.DATA | {"fingerprint": "other"}), root, tmp_path)
    path = root / "study.json"
    older = [{**each, "info": {**each["info"], "version": "1.0.0"}} for each in small_study.DATA["components"]]
    newer = [{**each, "info": {**each["info"], "version": "1.1.0"}} for each in small_study.DATA["components"]]
    directory.write(plan.make(small_study.small(), small_study.DATA | {"components": older}), tmp_path / "old", tmp_path)
    made = plan.make(small_study.small(), small_study.DATA | {"fingerprint": "other", "components": newer})
    with pytest.raises(UserError, match=r"python_sources 1\.0\.0 -> 1\.1\.0"):
        directory.write(made, tmp_path / "old", tmp_path)
    written = json.loads(path.read_text(encoding="utf-8"))
    for group in ("analysis", "base"):  # what a version of the program wrote that knew fewer fields
        del written["definition"][group][min(written["definition"][group])]
    path.write_text(json.dumps(written), encoding="utf-8")
    assert small_study.planned(root) == written
    quiet = dataclasses.replace(base, data_dir="elsewhere")
    small_study.planned(root, base=quiet)  # how a run is carried out is no part of the study


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("text")
    with pytest.raises(UserError, match="--dir"):
        small_study.planned(tmp_path)
    with pytest.raises(UserError, match="plan"):
        read_rows(tmp_path)


def test_a_file_system_without_links_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    """As a mounted bucket has none; the line names file systems that have them."""

    def no_link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(UserError, match=r"links.*NFS.*JuiceFS.*clusters\.md"):
        small_study.planned(tmp_path / "s")
    assert not list((tmp_path / "s").iterdir())
    with pytest.raises(UserError, match=r"gs://bucket/s.*NFS.*JuiceFS"):
        small_study.planned(pathlib.Path("gs://bucket/s"))
