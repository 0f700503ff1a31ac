"""Candidates of a search: what divides, what fits by formula, what comes first."""

import dataclasses
import math

import pytest

from configs import decoder
from lm.config import apply_overrides
from lm.errors import UserError
from lm.preflight import search
from lm.preflight.formula import guess, with_mesh
from lm.preflight.job import Outcome
from lm.preflight.topologies import parse


def test_meshes_multiply_to_the_devices_and_none_is_left_out():
    found = list(search.meshes(8))
    assert all(math.prod(sizes) == 8 for sizes in found)
    assert len(found) == len(set(found)) == math.comb(3 + 4, 4)  # ways to hand 3 factors of 2 to 5 axes
    assert max(sizes[-1] for sizes in search.meshes(64)) == 16


def test_pruning_leaves_what_divides_and_may_fit():
    config, topology = decoder.get_config("8b"), parse("tpu:v5p:4x4x4")
    pruned = search.prune(config, topology, search.accept)
    assert pruned.tried == pruned.refused + pruned.too_large + len(pruned.kept)
    assert 0 < len(pruned.kept) < pruned.tried
    for candidate in pruned.kept:
        search.accept(candidate.config)
        assert candidate.guess.memory <= topology.chip.memory
        assert config.model.attention.num_kv_heads % candidate.config.mesh.tensor == 0
    first = [candidate.config.mesh for candidate in pruned.kept[:6]]
    assert len(set(first)) == 6  # of six meshes
    certain = [c.guess for c in pruned.kept if c.guess.memory < search.CERTAIN * topology.chip.memory]
    assert pruned.kept[0].guess in certain
    assert pruned.kept[0].guess.seconds == min(found.seconds for found in certain)


def test_meshes_whose_attention_is_not_fused_come_later():
    """Packed rows of 8,192 tokens: cuDNN takes them where neither stages nor the sequence are split."""
    for topology in "gpu:b200:1x8", "gpu:h200:1x8":
        best = search.prune(decoder.get_config("8b"), parse(topology), search.accept).kept[0].config.mesh
        assert (best.stage, best.context) == (1, 1)


def test_formulas_know_the_directions():
    config, topology = decoder.get_config("8b"), parse("gpu:h100:2x8")
    split = with_mesh(config, data=1, fsdp=16)
    assert guess(split, topology).memory < guess(with_mesh(config, data=16, fsdp=1), topology).memory
    full = dataclasses.replace(split, execution=dataclasses.replace(split.execution, remat="full"))
    assert guess(full, topology).memory < guess(split, topology).memory
    across, within = with_mesh(config, data=2, fsdp=8), with_mesh(config, data=1, fsdp=1, tensor=16)
    assert guess(across, topology).seconds < guess(within, topology).seconds  # tensor parallelism over nodes is slow

    tiny, chips = decoder.get_config("tiny"), parse("tpu:v5e:2x2")
    pipeline, rows = with_mesh(tiny, data=2, stage=2), with_mesh(tiny, data=4)
    assert guess(rows, chips).seconds < guess(pipeline, chips).seconds  # a stage sends states, and its part of the tables' gradients


def test_a_mesh_of_a_search_splits_over_no_axis_of_no_use():
    config = decoder.get_config("tiny")
    config = dataclasses.replace(config, batch_size=64, mesh=dataclasses.replace(config.mesh, expert=2))
    pruned = search.prune(config, parse("gpu:h100:1x8"), search.accept)
    assert pruned.kept
    assert all(math.prod(dataclasses.astuple(candidate.config.mesh)) == 8 for candidate in pruned.kept)


def test_the_flags_of_a_candidate_make_it():
    """Whatever the configuration that they are given with says of what a search changes."""
    config = dataclasses.replace(decoder.get_config("tiny"), batch_size=64)
    stages = dataclasses.replace(config.execution, pipeline_repeats=2, pipeline_micro_batches=4, remat="dots")
    config = dataclasses.replace(with_mesh(config, stage=2), execution=stages)
    for candidate in search.prune(config, parse("gpu:h100:1x8"), search.accept).kept:
        flags = search._entry(candidate, Outcome(None, None))["flags"].split()
        assert apply_overrides(config, [flag.removeprefix("--config.") for flag in flags]) == candidate.config


def test_no_candidate_is_one_line():
    config = dataclasses.replace(decoder.get_config("70b"), batch_size=1)
    with pytest.raises(UserError, match=r"fits by formula"):
        search.search(config, parse("tpu:v5e:2x2"), most=1, at_once=1, timeout=1, say=lambda line: None)


def outcome(fits, seconds):
    times = None if seconds is None else {"step_seconds": seconds}
    return Outcome({"fits": fits, "estimate": times, "bytes_per_device": {"peak": 1, "memory": 2}}, None)


def test_what_fits_comes_first_and_the_fastest_of_it(monkeypatch):
    outcomes = [Outcome(None, "crashed"), outcome(True, 2.0), outcome(False, 0.5), outcome(True, 1.0), outcome(False, None)]
    monkeypatch.setattr(search, "run_all", lambda requests, **options: enumerate(outcomes))
    lines: list[str] = []
    small = dataclasses.replace(decoder.get_config("tiny"), batch_size=64)
    found = search.search(small, parse("gpu:h100:1x8"), most=5, at_once=1, timeout=1, say=lines.append)
    assert [entry["result"]["estimate"]["step_seconds"] for entry in found["candidates"][:2]] == [1.0, 2.0]
    assert [entry["error"] for entry in found["candidates"]] == [None] * 4 + ["crashed"]
    assert all("--config.mesh.fsdp=" in entry["flags"] for entry in found["candidates"])
    assert any("crashed" in line for line in lines)


def test_the_check_is_that_of_a_run():
    config = with_mesh(decoder.get_config("tiny"), data=1, tensor=3)
    with pytest.raises(UserError, match=r"num_heads=4 .*mesh\.tensor=3"):
        search.accept(config)
