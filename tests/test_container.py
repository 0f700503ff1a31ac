"""The container file names what is here: the paths that it copies, the extras that it installs, the pinned versions."""

import importlib.metadata
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
# Instructions with their lines joined, without comments.
STEPS = [line.split(None, 1) for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", TEXT)).splitlines() if line.strip()]


def _of(name):
    return [rest for step, rest in STEPS if step == name]


def _ignored():
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_path_that_is_copied_is_there_and_not_ignored():
    copied = {path for rest in _of("COPY") for path in shlex.split(rest)[:-1]}
    for path in copied:
        assert (ROOT / path).exists(), path
        assert not any(Path(path).match(pattern) for pattern in _ignored()), path
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name for name in packages if "." not in name} | {"pyproject.toml", "constraints.txt", "README.md"} <= copied


@pytest.mark.parametrize("device", ["cpu", "cuda", "tpu", "gpu"])
def test_a_device_installs_what_there_is_with_the_pinned_versions(device, tmp_path):
    (step,) = _of("RUN")
    # the step itself, with pip and useradd that only say what they are asked
    for name, said in (("pip", 'echo "$PIP_CONSTRAINT"; printf "%s\\n" "$@"'), ("useradd", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / name).chmod(0o755)
    made = subprocess.run(["sh", "-c", step], env={"DEVICE": device, "PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True)
    if device == "gpu":
        assert made.returncode == 2
        return
    constraint, *words = made.stdout.split()
    assert constraint == f"{_of('WORKDIR')[0]}/constraints.txt"
    installed = [re.fullmatch(r"(\.|jax)(?:\[([\w,]+)\])?", word) for word in words if not word.startswith("-")][1:]  # after `install`
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    known = {".": set(extras), "jax": set(importlib.metadata.metadata("jax").get_all("Provides-Extra"))}
    assert installed[0][1] == "."
    for found in installed:
        assert not found[2] or set(found[2].split(",")) <= known[found[1]]


def test_nothing_runs_as_root_and_the_base_is_a_short_name():
    assert _of("USER") not in ([], ["root"], ["0"])
    assert all("/" not in image for image in _of("FROM"))
    assert max(STEPS.index(step) for step in STEPS if step[0] == "RUN") < next(i for i, step in enumerate(STEPS) if step[0] == "USER")
