"""Imports point down only; each library has its place; plans and status load no accelerator library."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The longest prefix of a module's name decides its floor.
FLOORS = {
    "lm": 0,
    "lm.types": 0,
    "lm.errors": 0,
    "lm.interrupts": 0,
    "lm.files": 0,
    "lm.machine": 0,
    "lm.claims": 0,
    "lm.peers": 0,
    "lm.distributed": 0,
    "lm.fields": 0,
    "lm.overrides": 0,
    "lm.config": 0,
    "lm.mesh": 0,
    "lm.rows": 0,
    "lm.platforms": 0,
    "lm.sharding": 0,
    "lm.model": 1,
    "lm.data": 1,
    "lm.losses": 2,
    "lm.optim": 2,
    "lm.train": 3,
    "lm.infer.beams": 3,
    "lm.infer.decode": 3,
    "lm.infer.likelihood": 3,
    "lm.infer.penalties": 3,
    "lm.infer.prompts": 3,
    "lm.infer.sampling": 3,
    "lm.infer.speculative": 3,
    "lm.infer.strategy": 3,
    "lm.infer.text_model": 3,
    "lm.evals": 4,
    "lm.hf": 4,
    "lm.scaling": 0,
    "lm.study": 4,
    "lm.analysis": 5,
    "lm.report": 6,
    "lm.preflight": 5,
    "lm.init_from": 5,
    "lm.run": 5,
    "lm.runner": 5,
    "lm.replay": 5,
    "lm.usage": 5,
    "lm.describe": 5,
    "lm.infer": 5,  # load, and the command
    "lm.evals.__main__": 5,  # commands
    "lm.hf.__main__": 5,
    "lm.data.__main__": 5,
    "lm.__main__": 5,
    "configs": 7,
    "experiments": 7,
    "launch": 7,
}
NEVER = [("lm.model", "lm.data"), ("lm.data", "lm.model"), ("lm.infer", "lm.train")]

# The rooms of lm.scaling, from the ground up: a module imports from rooms before its own, or its own. Of lm they import lm.errors alone.
ROOMS = [
    ("compile_cache", "results", "settings", "words"),
    ("tables",),
    ("budgets", "runs"),
    ("laws",),
    ("fits",),
    ("intervals",),
    ("fitted_law",),
    ("law_error",),
    ("approaches",),
    (
        "allocation",
        "chain",
        "curve_fit",
        "coverage",
        "diagnostics",
        "filters",
        "mixtures",
        "multiplier",
        "prediction",
        "quality",
        "rolling",
        "saved",
        "scores",
        "sensitivity",
        "sweeps",
        "table_analysis",
    ),
    ("backtest",),
    ("planning", "table_summary"),
    ("page",),
    ("commands",),
    ("__main__",),
]

# Where a library may be imported; nowhere else under lm, configs, experiments or launch.
LIBRARIES = {
    "flax": ["lm.model"],
    "optax": ["lm.optim", "lm.train"],
    "orbax": ["lm.train.checkpoint"],
    "grain": ["lm.data"],
    "tensorflow_datasets": ["lm.data"],
    "sentencepiece": ["lm.data"],
    "tokenizers": ["lm.data"],
    "array_record": ["lm.data"],
    "ftfy": ["lm.data.curation"],
    "py3langid": ["lm.data.curation"],
    "datatrove": ["lm.data.curation.blocks"],
    "matplotlib": ["lm.scaling.page", "lm.report"],
    "jinja2": ["lm.scaling.page"],
    "safetensors": ["lm.hf"],
    "tensorflow": [],
    "torch": ["experiments.benchmarks"],
    "transformers": ["experiments.benchmarks"],
}

HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "tensorflow", "matplotlib", "scipy")
JAX_FREE = [
    "lm.platforms",
    "lm.errors",
    "lm.files",
    "lm.machine",
    "lm.claims",
    "lm.peers",
    "lm.distributed",
    "lm.fields",
    "lm.overrides",
    "lm.config",
    "lm.mesh",
    "lm.rows",
    "lm.model.flops",
    "lm.model.memory",
    "lm.model.refusals",
    "lm.data.info",
    "lm.run",
    "lm.usage",
    "lm.study.worker",
    "lm.train.checks",
    "lm.train.derived",
    "lm.train.sealed",
]
JAX_FREE += ["lm.model.parts." + name for name in ("attention", "heads", "mlp", "norm", "positions", "stacks")]
JAX_FREE += ["lm.preflight." + name for name in ("__main__", "topologies", "targets", "roofline", "job", "search", "table")]
JAX_FREE += ["experiments", "experiments.__main__", "experiments.benchmarks.commands", "launch.local", "launch.view"]
JAX_FREE += ["lm.scaling.__main__", "lm.scaling.runs", "lm.scaling.commands.table", "lm.scaling.table_summary"]
JAX_FREE += ["lm.study." + name for name in ("study", "plan", "rows", "status", "directory", "locks", "gate", "rules", "cell", "naming")]
JAX_FREE += ["lm.study.records"]
JAX_FREE += ["lm.study.comparison", "lm.analysis.paired", "lm.analysis.oracle", "experiments.replications.hoffmann_counts"]


@functools.cache
def modules():
    """Every module of the project: name -> path."""
    found = {}
    for top in ("lm", "configs", "experiments", "launch"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(name):
    """Full names of what a module imports, anywhere in its body, with their lines."""
    return tuple(_imports(name))


def _imports(name):
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield (inner if inner in modules() else source), node.lineno


def inside(name, prefix):
    return name == prefix or name.startswith(prefix + ".")


def floor(name):
    return FLOORS[max((prefix for prefix in FLOORS if inside(name, prefix)), key=len)]


def test_every_module_of_lm_stands_on_a_stated_floor():
    lost = [name for name in modules() if name != "lm" and not any(inside(name, prefix) for prefix in FLOORS if prefix != "lm")]
    assert lost == [], "add them to FLOORS"


def test_the_design_names_every_floor():
    """The table of docs/design.md is the one that is enforced."""
    told = {}
    for number, text in re.findall(r"^\| (\d) \| (.*) \|$", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), flags=re.MULTILINE):
        told |= {
            name.removesuffix(".py").replace("/", "."): int(number)
            for name in re.findall(r"`((?:lm/|configs|experiments|launch)[\w/.]*)`", text)
        }
    assert told == {name: at for name, at in FLOORS.items() if name != "lm" and not name.endswith("__main__")}


def test_imports_point_down():
    wrong = [
        f"{modules()[name].relative_to(ROOT)}:{line} imports {other} of floor {floor(other)} from floor {floor(name)}"
        for name in modules()
        for other, line in imports(name)
        if other in modules() and floor(other) > floor(name)
    ]
    assert wrong == []


def test_rooms_of_scaling_stand_on_one_another():
    order = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}

    def number(name):
        return order[name.split(".")[2]] if name != "lm.scaling" else 0

    arrows = [
        (name, other, f"{modules()[name].relative_to(ROOT)}:{line} imports {other}")
        for name in modules()
        if inside(name, "lm.scaling")
        for other, line in imports(name)
        if inside(other, "lm")
    ]
    wrong = [said for _, other, said in arrows if not inside(other, "lm.scaling") and other != "lm.errors"]
    wrong += [said for name, other, said in arrows if inside(other, "lm.scaling") and number(other) > number(name)]
    assert wrong == []
    targets = {}
    for name, other, _ in arrows:
        targets.setdefault(name, set()).add(other)
    list(graphlib.TopologicalSorter(targets).static_order())  # raises CycleError


def test_parts_that_never_meet():
    wrong = [
        f"{modules()[name].relative_to(ROOT)}:{line} imports {other}"
        for name in modules()
        for other, line in imports(name)
        for part, forbidden in NEVER
        if inside(name, part) and inside(other, forbidden) and floor(name) < 5
    ]
    assert wrong == []


def test_each_library_has_its_place():
    wrong = [
        f"{modules()[name].relative_to(ROOT)}:{line} imports {other}"
        for name in modules()
        for other, line in imports(name)
        if other.split(".")[0] in LIBRARIES and not any(inside(name, place) for place in LIBRARIES[other.split(".")[0]])
    ]
    assert wrong == []


def test_no_two_test_files_have_one_name():
    """pytest imports them by name alone, and refuses to collect the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_modules_of_plans_and_status_load_no_accelerator_library():
    names = [name for name in modules() if name.endswith(".config") or name in JAX_FREE]
    code = f"import sys\nfor n in {names!r}:\n __import__(n)\n bad=[h for h in {HEAVY!r} if h in sys.modules]\n assert not bad, (n, bad)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
