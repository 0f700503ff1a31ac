"""`python -m experiments NAME plan --topology=...`: each distinct shape once, in one table."""

import io

import pytest
import small_study

from experiments import __main__ as command
from experiments import preflight
from experiments.commands import Commands
from experiments.planning import Asked, Planning
from lm.errors import UserError
from lm.preflight.job import Outcome
from lm.preflight.topologies import parse
from lm.study import plan

RESULT = {
    "fits": True,
    "compile_seconds": 3.0,
    "bytes_per_device": {"peak": 2e9, "memory": 16e9},
    "estimate": {
        **{f"{name}_seconds": 0.5 for name in ("step", "compute", "memory", "network")},
        "mfu_bound": {"matmul_full": 0.25, "matmul_causal": 0.2},
    },
}
REFUSED = RESULT | {"fits": False, "estimate": None, "bytes_per_device": {"needed": 20e9, "memory": 16e9}}


def test_every_shape_is_compiled_once(monkeypatch, tmp_path):
    asked = []

    def run_all(requests, **options):
        asked.extend(requests)
        results = [Outcome(RESULT, None), Outcome(REFUSED, None), Outcome(None, "crashed")]
        return ((i, results[min(i, 2)]) for i in range(len(requests)))

    monkeypatch.setattr(preflight, "run_all", run_all)
    made = plan.make(small_study.small(), small_study.DATA)
    monkeypatch.setattr(Planning, "make", lambda self, verb: made)
    out = io.StringIO()
    study = Commands(small_study.small(), tmp_path / "study", tmp_path / "data", out=out, asked=Asked(topology=parse("tpu:v5e:1x1")))
    assert study.do("plan") == 1  # not all fit
    # cells of one size and batch differ in rate, seed and budget alone
    distinct = {(p.cell.config.model, p.cell.config.batch_size) for p in made.planned}
    assert len(asked) == len(distinct) < len(made.planned)
    said = out.getvalue()
    assert "20.0%" in said
    assert "does not fit" in said
    assert ": crashed" in said
    assert "estimates" in said


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("status", "--topology=tpu:v5e:1x1"), ("--topology", "plan")),
        (("plan", "--timeout=9"), ("--timeout", "--topology")),
    ],
)
def test_flags_belong_together(words, names):
    with pytest.raises(UserError) as refused:
        command.main(["chinchilla", *words])
    assert all(name in str(refused.value) for name in names)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_time_limit_is_above_zero(seconds):
    with pytest.raises(UserError, match=f"--timeout={seconds}"):
        command.main(["chinchilla", "plan", "--topology=tpu:v5e:1x1", f"--timeout={seconds}"])
