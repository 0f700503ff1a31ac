"""The doctor names what is there, what a backend lacks and what is wrong, each with what mends it."""

import os
import stat

import pytest

from launch import doctor


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A PATH with nothing but what a test puts there."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(doctor, "JAX", "print('0.10|gpu|NVIDIA H100|8')")
    return tmp_path / "bin"


def _command(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def _states(looks):
    return {finding.what: finding.state for finding in looks}


def test_without_any_scheduler_only_this_machine_is_good(alone, tmp_path):
    found = {finding.what: finding for finding in doctor.look(tmp_path / "runs")}
    for backend in ("slurm", "kubernetes", "tpu"):
        assert found[f"--backend={backend}"].state == "lacks"
        assert found[f"--backend={backend}"].mend
    for what in ("--backend=local", "jax", "hard links", "clock"):
        assert found[what].state == "good", found[what]
    assert not list(tmp_path.glob(".doctor-*"))  # nothing stays


def test_a_cluster_whose_controller_is_silent_is_lacking(alone):
    _command(alone, "sbatch", "echo slurm 22.05.8")
    _command(alone, "sinfo", "exit 1")
    assert _states(doctor.slurm()) == {"--backend=slurm": "lacks"}
    _command(alone, "sinfo", "echo 'main* 2 nodes, gpu:h100:8, up to infinite'")
    (finding,) = doctor.slurm()
    assert finding.state == "good"
    assert "h100" in finding.said


def test_what_kubernetes_needs_beside_a_cluster_is_named(alone):
    _command(alone, "kubectl", 'case "$*" in *current-context) echo ours;; *readyz*) echo ok;; *jobsets*x-k8s.io) exit 1;; esac')
    found = {finding.what: finding for finding in doctor.kubernetes()}
    assert found["jobsets.jobset.x-k8s.io"].state == "bad"
    assert "installation" in found["jobsets.jobset.x-k8s.io"].mend


def test_gpus_that_jax_does_not_use_are_to_be_mended(alone, monkeypatch):
    _command(alone, "nvidia-smi", 'case "$*" in *query*) echo "NVIDIA H100, 570.1, 81559 MiB";; *) echo "GPU0 X NV18";; esac')
    assert _states(doctor.devices()) == {"driver": "good", "interconnect": "good", "jax": "good"}
    monkeypatch.setattr(doctor, "JAX", "print('0.10|cpu|cpu|1')")
    assert _states(doctor.devices())["jax"] == "bad"
    monkeypatch.setattr(doctor, "JAX", "raise SystemExit(1)")
    assert _states(doctor.devices())["jax"] == "bad"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o555)
    assert _states(doctor.directory(tmp_path)) == {"directory": "bad"}


def test_the_command_ends_with_1_where_something_is_to_be_mended(monkeypatch, capsys):
    findings = [doctor.Finding("good", "a", "x"), doctor.Finding("lacks", "b", "y", "do this"), doctor.Finding("bad", "c", "z", "do that")]
    monkeypatch.setattr(doctor, "look", lambda folder: iter(findings[:2]))
    assert doctor.main([]) == 0
    monkeypatch.setattr(doctor, "look", lambda folder: iter(findings))
    assert doctor.main([]) == 1
    assert "do that" in capsys.readouterr().out
