"""Studies and cells: values that unroll into the runs they promise."""

import dataclasses
import json

import pytest
import small_study

from lm import files
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.model.flops import ledger
from lm.study import directory, plan, records
from lm.study.rules import HeadsShape, PowerLawRate, PowerOfTwoBatch, Tier, Tiers
from lm.study.study import Budget
from lm.train.config import ExecutionConfig

FINGERPRINT = small_study.DATA["fingerprint"]


def test_a_cell_spends_its_budget_in_whole_steps():
    for cell in small_study.small().cells():
        per_token = ledger(cell.config.model, 128).flops_per_token["matmul_causal"]
        spent = per_token * cell.config.train_tokens
        assert cell.config.train_tokens == cell.steps * cell.tokens_per_step
        assert cell.budget - per_token * cell.tokens_per_step < spent <= cell.budget


def test_the_grid_unrolls_to_sizes_seeds_and_brackets():
    cells = small_study.small().cells()
    assert [sum(c.role == role for c in cells) for role in ("grid", "seed", "bracket")] == [13, 2, 4]
    assert {c.learning_rate_factor for c in cells if c.role == "bracket"} == {0.5, 2.0}
    assert all(c.stage == (c.budget == 1e12) for c in cells)
    by_size = {(c.budget, c.dial): c for c in cells if c.role == "grid"}
    for c in cells:
        twin = by_size[c.budget, c.dial]
        assert c.config.optim.learning_rate == pytest.approx(twin.config.optim.learning_rate * c.learning_rate_factor, rel=1e-5)
        assert c.shape_key == twin.shape_key  # a seed or a learning rate compiles nothing new


def test_ids_name_the_run_and_the_data_and_nothing_else():
    cells = small_study.small().cells()
    ids = [c.id(FINGERPRINT) for c in cells]
    assert len(set(ids)) == len(ids)
    assert ids == [c.id(FINGERPRINT) for c in small_study.small(name="other", question="?").cells()]
    assert not set(ids) & {c.id("another text") for c in cells}
    elsewhere = dataclasses.replace(cells[0].config, data_dir="elsewhere")
    assert dataclasses.replace(cells[0], config=elsewhere).id(FINGERPRINT) == ids[0]


def test_a_study_is_hashable_and_its_definition_is_json_that_shows_every_change():
    study = small_study.small()
    assert hash(study) == hash(small_study.small())
    text = json.dumps(study.definition())
    assert json.loads(text) == study.definition()
    for changes in ({"seeds": (5,)}, {"shape": HeadsShape(head_dim=32)}, {"budgets": (Budget(2e11, (3, 4)),)}):
        assert json.dumps(small_study.small(**changes).definition()) != text


def test_one_dial_keeps_every_ratio():
    models = [HeadsShape().model(small_study.small().base.model, dial) for dial in (1, 2, 3, 5, 8, 13)]
    assert {(m.attention.head_dim, m.num_layers, m.d_model / m.attention.num_heads, m.mlp.d_ff / m.d_model) for m in models} == {
        (16, 2, 8.0, 4.0)
    }


def test_rate_and_batch_rules():
    rule = PowerLawRate(1.2e-2, 4, 0.5, 33e3, -0.15, 1.2e6, -0.15)
    assert rule.peak(33e3, 1.2e6, 4) == 1.2e-2
    assert rule.peak(33e3, 1.2e6, 16) == 2.4e-2
    assert rule.peak(66e3, 1.2e6, 4) == pytest.approx(1.2e-2 * 2**-0.15, rel=1e-5)
    batch = PowerOfTwoBatch(sequences=4, tokens=1e6, exponent=0.5, low=2, high=16, min_steps=200)
    assert [batch.batch_size(d, 128, 1e4) for d in (1e5, 1e6, 4.1e6, 1e9)] == [2, 4, 8, 16]
    assert batch.batch_size(204_800, 512, 1e4) == 2  # fewer sequences rather than fewer steps than 200


def test_a_budget_that_names_sizes_it_lacks_is_refused():
    with pytest.raises(UserError, match=r"brackets of budget 2e\+11 .*\[5\]"):
        small_study.small(budgets=(Budget(2e11, (3, 4), brackets=(5,)),)).cells()


def test_large_models_have_a_mesh_of_their_own_and_stay_the_same_runs(tmp_path):
    """How a run is carried out may change while the study is in progress; what has ended stays as it was."""
    plain = small_study.small()
    sizes = sorted({cell.config.model.d_model for cell in plain.cells()})
    largest = max(ledger(cell.config.model, cell.row).params["matmul"] for cell in plain.cells())
    tiers = Tiers((Tier(largest - 1), Tier(largest, MeshConfig(fsdp=2), ExecutionConfig(remat="full"))))
    split = small_study.small(execution=tiers)
    assert [c.id("f") for c in split.cells()] == [c.id("f") for c in plain.cells()]
    assert {c.devices for c in split.cells() if c.config.model.d_model == sizes[-1]} == {2}
    assert {c.devices for c in split.cells() if c.config.model.d_model < sizes[-1]} == {1}
    rows = [
        Tier(1, MeshConfig(data=2, fsdp=4), rows=most).micro_batches(batch) for batch, most in ((64, 8), (64, 4), (64, 3), (96, 5), (8, 1))
    ]
    assert rows == [1, 2, 4, 3, 1]
    with pytest.raises(UserError, match="tier"):
        small_study.small(execution=Tiers((Tier(largest - 1),))).cells()
    root = tmp_path / "s"
    directory.write(plan.make(plain, small_study.DATA), root, tmp_path / "data")
    large = [cell["id"] for cell in directory.open_study(root)["cells"] if cell["shape"]["d_model"] == sizes[-1]]
    ended, failed = (root / "cells" / cell_id for cell_id in large[:2])
    before = (ended / "config.json").read_text()
    files.write_json(ended / "run.json", records.sealed({"status": "completed"}, 1))
    files.write_json(
        failed / "run.json", records.sealed({"status": "failed", "reason": "no memory"}, 1)
    )  # the advice is to change the mesh
    directory.write(plan.make(split, small_study.DATA), root, tmp_path / "data")
    assert {cell["id"] for cell in directory.open_study(root)["cells"] if cell["devices"] == 2} == set(large)
    meshes = {cell_id: json.loads((root / "cells" / cell_id / "config.json").read_text())["mesh"]["fsdp"] for cell_id in large[1:]}
    assert set(meshes.values()) == {2}
    assert (ended / "config.json").read_text() == before


def test_the_data_are_found_where_the_directory_of_studies_is_a_link(tmp_path):
    (tmp_path / "scratch" / "deep").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch" / "deep")
    root = tmp_path / "runs" / "s"
    directory.write(plan.make(small_study.small(), small_study.DATA), root, tmp_path / "data")
    assert directory.data_dir(root) == directory.data_dir(root.resolve()) == (tmp_path / "data").resolve()
    old = directory.open_study(root) | {"data_dir": "../../data"}  # as versions before 0.7 wrote it, from the link
    files.write_json(root / "study.json", old)
    assert directory.data_dir(root).resolve() == (tmp_path / "data").resolve()
