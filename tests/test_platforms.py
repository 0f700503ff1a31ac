"""Compilers for accelerators, installed without any accelerator, leave ordinary commands silent."""

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
    platforms.settle(environment, devices=())
    assert environment == {"JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize("said", [{"JAX_PLATFORMS": "cuda"}, {"JAX_PLATFORMS": ""}, {"TPU_NAME": "here"}])
def test_what_the_user_says_stands(compilers, said):
    compilers.add("libtpu")
    environment = dict(said)
    platforms.settle(environment, devices=())
    assert environment == said


def test_a_device_is_left_to_jax(compilers, tmp_path):
    compilers.add("jax_plugins.xla_cuda13")
    (tmp_path / "nvidia0").touch()
    environment: dict[str, str] = {}
    platforms.settle(environment, devices=(str(tmp_path / "nvidia[0-9]*"),))
    assert environment == {}


def test_without_compilers_nothing_is_said(compilers):
    environment: dict[str, str] = {}
    platforms.settle(environment, devices=())
    assert environment == {}
