"""Finds the mesh, remat and micro-batches of every size of a study: `python -m experiments NAME plan --topology=... --search=FILE`.

The largest batch of each size is searched (lm.preflight.search); smaller batches take the same mesh and as many micro-batches as keep to
its rows. The largest size comes first, then the smallest, then the middle of what lies between: a size that the table lacks takes the next
larger one's entry, so that the table serves from the first size on. It is written after each that something fits, and the same command
goes on after an interruption.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm import files
from lm.data.objectives.shape import row_shape
from lm.errors import UserError, counted
from lm.preflight.job import Outcome, Say
from lm.preflight.search import AXES, CHANGED, Candidate, accept, compiled, in_words
from lm.preflight.topologies import Topology
from lm.study.execution import carried_out, matmul_params, tier
from lm.study.rules import Tiers
from lm.train.config import ExecutionConfig, RunConfig

MOST = 3  # candidates of a size that are compiled


@dataclasses.dataclass(frozen=True)
class Search:
    """A search over the sizes of a study, and the table where it keeps what it finds."""

    path: Path
    topology: Topology
    most: int = MOST
    timeout: float = 1800.0  # seconds for each compilation

    def run(self, configs: list[RunConfig], say: Say, progress: Say) -> int:
        """Searches every size; returns 0 if something fits for each of them, else 1.

        Args:
            configs: the runs of the study, whatever they say of mesh, remat and micro-batches
            say: takes a line for each size
            progress: takes lines of progress

        Raises: UserError where no mesh fits a size by formula.
        """
        sizes: dict[int, list[RunConfig]] = {}
        for config in configs:
            sizes.setdefault(matmul_params(config), []).append(config)
        asked = {params: self._asked(runs) for params, runs in sizes.items()}
        found = {entry["params"]: entry for entry in self._read() if entry["asked"] == asked.get(entry["params"])}
        for done, params in enumerate(outside_in(sorted(sizes)), 1):
            entry = found.get(params) or {"params": params, "asked": asked[params], **self._search(sizes[params], progress)}
            say(f"{done}/{len(sizes)} {_line(entry)}")
            if entry["fits"] and params not in found:
                found[params] = entry
                files.write_json(self.path, {"topology": self.topology.text, "sizes": [found[size] for size in sorted(found)]})
        return int(len(found) < len(sizes))

    def _read(self) -> list[dict[str, Any]]:
        """Returns the entries of an earlier search for this topology."""
        if not self.path.exists():
            return []
        try:
            table = json.loads(self.path.read_text(encoding="utf-8"))
            return list(table["sizes"]) if table["topology"] == self.topology.text else []
        except (ValueError, KeyError, TypeError):
            raise UserError(f"--search={self.path} holds something else: name a file that a search may write") from None

    def _asked(self, runs: list[RunConfig]) -> str:
        """Returns a hash of all that decides what a search of one size finds."""
        how = dataclasses.replace(runs[0].execution, **{name: _default(name) for name in (*CHANGED, "micro_batches")})
        batches = sorted({config.batch_size for config in runs})
        rest = {"topology": self.topology.text, "most": self.most, "batches": batches, "execution": dataclasses.asdict(how)}
        return config_lib.identity(dataclasses.replace(_largest(runs), seed=0), **rest)

    def _search(self, runs: list[RunConfig], progress: Say) -> dict[str, Any]:
        """Compiles the candidates of one size and returns the best one's entry."""
        largest = _largest(runs)
        others = list({(config.batch_size, config.data, config.model): config for config in runs if config != largest}.values())

        def check(candidate: RunConfig) -> None:
            accept(candidate)
            rule = Tiers((tier({"params": 1e30, **_settings(candidate)}, largest.execution),))
            for other in others:
                accept(carried_out(other, rule))

        options = {"most": self.most, "at_once": 1, "timeout": self.timeout, "say": progress}
        pruned, found = compiled(largest, self.topology, check, **options)  # type: ignore[arg-type]
        best, outcome = found[0]
        counts = {"batch": largest.batch_size, "compiled": len(found), "possible": len(pruned.kept)}
        seen = [{"name": candidate.name, "said": _said(other)} for candidate, other in found]
        return {"shape": _shape(largest), **_settings(best.config), **counts, **_measured(best, outcome), "candidates": seen}


def outside_in(ordered: Sequence[int]) -> list[int]:
    """Returns the last value, the first, the middle one, and then the middles of what lies between."""
    spans, found = [(0, len(ordered) - 1)], [len(ordered) - 1, 0]
    while spans:
        low, high = spans.pop(0)
        if high - low > 1:
            middle = (low + high) // 2
            found.append(middle)
            spans += [(middle, high), (low, middle)]
    return [ordered[index] for index in dict.fromkeys(found)]


def _default(name: str) -> Any:
    return ExecutionConfig.__dataclass_fields__[name].default


def _largest(runs: list[RunConfig]) -> RunConfig:
    """Returns the run whose batch has the most places in the model."""

    def places(config: RunConfig) -> int:
        row = row_shape(config.data, config.model.architecture)
        return config.batch_size * (row.length + row.encoder_length)

    return max(runs, key=places)


def _shape(config: RunConfig) -> str:
    return f"{config.model.d_model}x{config.model.num_layers}"


def _settings(config: RunConfig) -> dict[str, Any]:
    """Returns what a table says of how a run is carried out: axes of more than one device, remat and its like, and rows of a device."""
    mesh, how = config.mesh, config.execution
    changed = {name: getattr(how, name) for name in CHANGED if name != "micro_batches" and getattr(how, name) != _default(name)}
    sizes = {axis: getattr(mesh, axis) for axis in AXES if getattr(mesh, axis) > 1}
    return {"mesh": sizes, "execution": changed, "rows": config.batch_size // (mesh.data * mesh.fsdp * how.micro_batches)}


def _measured(candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    """Returns what the compiler says of a candidate."""
    result = outcome.result
    if result is None or not result["fits"]:
        return {"fits": False, "name": candidate.name}
    estimate, sizes = result["estimate"], result["bytes_per_device"]
    times = {"seconds": float(f"{estimate['step_seconds']:.3g}"), "bound_by": estimate["bound_by"]}
    return {"fits": True, "name": candidate.name, "peak": int(sizes["peak"]), "memory": int(sizes["memory"]), **times}


def _said(outcome: Outcome) -> Optional[str]:
    return outcome.error if outcome.result is None else in_words(outcome.result)


def _line(entry: dict[str, Any]) -> str:
    """Returns a size, what was found for it, and how much was tried."""
    first = entry["candidates"][0]
    tried = f"best of {entry['compiled']} compiled, {counted(entry['possible'], 'candidate')}"
    return f"{entry['shape']}, {counted(entry['batch'], 'row')}: {first['name']}: {first['said']} ({tried})"
