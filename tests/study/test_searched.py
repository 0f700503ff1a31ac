"""How runs are carried out by a table that a search wrote: each size's mesh, remat, and micro-batches that keep to its rows."""

import dataclasses
import json

import pytest
import small_study

from experiments import search as search_lib
from experiments import studies
from experiments.commands import Commands
from experiments.planning import Asked
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.preflight import search
from lm.preflight.job import Outcome
from lm.preflight.topologies import parse
from lm.study import plan
from lm.study.execution import Searched, matmul_params
from lm.study.rules import Tier, Tiers
from lm.train import memory
from lm.train.config import ExecutionConfig


def result(fits, seconds):
    sizes = {"peak": 2e9, "memory": 16e9}
    return {"fits": fits, "bytes_per_device": sizes, "estimate": {"step_seconds": seconds, "bound_by": "compute"}}


@pytest.fixture
def compiled(monkeypatch):
    """What would be compiled; the last candidate of each search is the fastest, and the first does not fit."""
    asked = []

    def run_all(requests, **options):
        asked.append(requests)
        return ((i, Outcome(result(i > 0, 1.0 / (1 + i)), None)) for i in range(len(requests)))

    monkeypatch.setattr(search, "run_all", run_all)
    return asked


def test_a_search_writes_a_table_that_carries_out_every_run_and_goes_on(tmp_path, compiled):
    small, topology, path = small_study.small(), parse("gpu:h100:1x2"), tmp_path / "table.json"
    ruled = dataclasses.replace(small, execution=Searched(str(path), ExecutionConfig(), "make it"))
    with pytest.raises(UserError, match="make it"):
        ruled.cells()
    asked = Asked(topology=topology, search=search_lib.Search(path, topology, most=3))
    commands = Commands(ruled, tmp_path / "s", tmp_path / "data", asked=asked)
    assert commands.do("plan") == 0
    sizes = sorted({matmul_params(cell.config) for cell in small.cells()})
    entries = json.loads(path.read_text())["sizes"]
    assert [entry["params"] for entry in entries] == sizes
    assert [matmul_params(requests[0].config) for requests in compiled] == search_lib.outside_in(sizes)
    for requests in compiled:  # the candidate that fits and is fastest is what the runs of that size do
        best = requests[-1].config
        for cell in ruled.cells():
            if cell.config.model == best.model and cell.config.batch_size == best.batch_size:
                assert (cell.config.mesh, cell.config.execution) == (best.mesh, best.execution)
    assert [cell.id("f") for cell in ruled.cells()] == [cell.id("f") for cell in small.cells()]
    # what is in the table is not compiled again; what is not is
    path.write_text(json.dumps({"topology": topology.text, "sizes": entries[1:]}))
    compiled.clear()
    assert commands.do("plan") == 0
    assert [matmul_params(requests[0].config) for requests in compiled] == sizes[:1]
    assert json.loads(path.read_text())["sizes"] == entries


def test_a_size_that_the_table_lacks_takes_the_next_larger_one_s(tmp_path):
    path = tmp_path / "table.json"
    more = {"execution": {"remat": "dots"}, "rows": 4}
    entries = [{"params": params, "mesh": {"data": 2, "fsdp": ways}, **more} for params, ways in ((200, 4), (100, 2))]
    path.write_text(json.dumps({"topology": "gpu:h100:1x8", "sizes": entries}))
    rule = Searched(str(path), ExecutionConfig(unroll=False), "make it")
    for params, ways in ((50, 2), (100, 2), (101, 4)):
        mesh, execution = rule.settings(params, 1e9, 64)
        assert mesh == MeshConfig(data=2, fsdp=ways)
        assert (execution.remat, execution.unroll, execution.micro_batches) == ("dots", False, 64 // (2 * ways * 4))
    with pytest.raises(UserError, match="201"):
        rule.settings(201, 1e9, 64)
    path.write_text("[]  ")
    with pytest.raises(UserError, match="table"):
        rule.settings(50, 1e9, 64)


def test_a_plan_s_memory_is_of_one_device_of_the_mesh():
    """Weights, gradients and moments, 16 bytes a parameter, are divided by fsdp and not by data; activations by both."""
    whole = small_study.small()
    cell, params = whole.cells()[0], plan.make(whole, small_study.DATA).planned[0].params["total"]

    def of(**axes):
        made = plan.make(dataclasses.replace(whole, execution=Tiers((Tier(1e12, MeshConfig(**axes)),))), small_study.DATA)
        return made.planned[0].memory - plan.PROCESS_BYTES

    assert of(data=1) == pytest.approx(memory.device_bytes(dataclasses.replace(cell.config, mesh=MeshConfig(data=1))))
    assert of(data=-1) == of(data=1) > 16 * params
    assert of(data=2) - of(fsdp=2, data=1) == pytest.approx(8 * params, rel=1e-6)


def test_the_middles_follow_the_ends():
    for count in (1, 2, 3, 12):
        order = search_lib.outside_in(list(range(count)))
        assert sorted(order) == list(range(count))
        assert order[:2] == [count - 1, 0][:count]


@pytest.mark.parametrize("path", ["chinchilla_c4", "experiments/chinchilla_c4/tpu.py"])
def test_every_cell_of_the_large_study_can_run_on_its_mesh(path):
    cells = studies.load(path).cells()
    assert {cell.devices for cell in cells} == {8 if path == "chinchilla_c4" else 16}
    for cell in cells:
        search.accept(cell.config)
