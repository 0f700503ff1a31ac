"""Compilers for accelerators, installed without any accelerator, leave ordinary commands silent."""

import os
import sys
from pathlib import Path

import jax
import pytest

from lm import platforms


@pytest.fixture
def compilers(monkeypatch):
    """Says that the named ones are installed, and hides the jax of this process."""
    found: set[str] = set()
    monkeypatch.setattr(platforms, "installed", lambda name: name in found)
    monkeypatch.delitem(platforms.sys.modules, "jax")
    return found


def test_a_compiler_without_a_device_means_the_cpu(compilers):
    compilers.add("libtpu")
    environment: dict[str, str] = {}
    platforms.set_default_platform(environment, devices=())
    assert environment == {"JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize("said", [{"JAX_PLATFORMS": "cuda"}, {"JAX_PLATFORMS": ""}, {"TPU_NAME": "here"}])
def test_what_the_user_says_stands(compilers, said):
    compilers.add("libtpu")
    environment = dict(said)
    platforms.set_default_platform(environment, devices=())
    assert environment == said


def test_a_device_is_left_to_jax(compilers, tmp_path):
    compilers.add("jax_plugins.xla_cuda13")
    (tmp_path / "nvidia0").touch()
    environment: dict[str, str] = {}
    platforms.set_default_platform(environment, devices=(str(tmp_path / "nvidia[0-9]*"),))
    assert environment == {}


def test_without_compilers_nothing_is_said(compilers):
    environment: dict[str, str] = {}
    platforms.set_default_platform(environment, devices=())
    assert environment == {}


@pytest.mark.parametrize(
    ("said", "threads"),
    [
        ({}, None),
        ({"JAX_NUM_CPU_DEVICES": "1"}, None),
        ({"JAX_NUM_CPU_DEVICES": "8"}, "32"),
        ({"JAX_NUM_CPU_DEVICES": "2"}, "20"),
        ({"XLA_FLAGS": "--xla_dump_to=d --xla_force_host_platform_device_count=64"}, "256"),
        ({"JAX_NUM_CPU_DEVICES": "8", "PJRT_NPROC": "9"}, "9"),
    ],
)
def test_virtual_devices_have_threads_to_spare(compilers, monkeypatch, said, threads):
    monkeypatch.setattr(platforms.os, "cpu_count", lambda: 20)
    environment = dict(said)
    platforms.set_default_platform(environment, devices=())
    assert environment == said | ({"PJRT_NPROC": threads} if threads else {})


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads in /proc")
def test_xla_makes_as_many_threads_as_it_is_told():
    """This process's own client was made so (tests/conftest.py): were PJRT_NPROC not read any more, calls could wait for ever again."""
    names = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    assert sum("XLAEigen" in name for name in names) == platforms.threads(jax.device_count())
