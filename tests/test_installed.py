"""What is installed, and that its commands work in any directory. tests/nightly/installed.py installs it and runs them."""

import fnmatch
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest

from experiments import studies
from lm import __main__ as listing
from lm.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHIPPED = ("lm", "configs", "experiments", "launch")


def test_every_folder_of_code_is_packaged_with_its_templates():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    include, data = settings["packages"]["find"]["include"], settings["package-data"]
    for path in (path for top in SHIPPED for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".html", ".json", ".csv")):
        package = ".".join(path.relative_to(ROOT).parent.parts)
        assert (path.parent / "__init__.py").is_file(), path
        assert any(fnmatch.fnmatchcase(package, pattern) for pattern in include), path
        assert path.suffix == ".py" or any(path.match(pattern) for pattern in data.get(package, ())), path


def test_the_list_of_commands_names_every_one(capsys):
    """Modules that are run by hand, for a page of the documentation, are no commands."""
    files = [path for top in SHIPPED for path in (ROOT / top).rglob("*.py")]
    tops = [path for path in files if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")]
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for path in tops}
    by_hand = ("experiments.replications.", "experiments.benchmarks.")
    for_pages = {"lm.preflight.child", "lm.data.shared_work", *(name for name in found if name.startswith(by_hand))}
    assert set(listing.COMMANDS) == found - for_pages - {"lm"}
    assert listing.main([]) == 0
    printed = capsys.readouterr().out
    for name, text in listing.COMMANDS.items():
        (line,) = (line for line in printed.splitlines() if f"python -m {name} " in line)
        assert text in line
        assert len(line) < 120
    with pytest.raises(UserError, match=r"lm\.run"):
        listing.main(["run"])


@pytest.mark.parametrize("decoy", [False, True])
def test_configurations_are_found_in_any_directory(tmp_path, decoy):
    """By the name that the pages use and by path, also where another package is called configs."""
    if decoy:
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "__init__.py").touch()
    code = (
        "from lm import run\n"
        f"a = run.load('configs/prefix_lm.py:tiny'), run.load({str(ROOT / 'configs' / 'prefix_lm.py')!r} + ':tiny')\n"
        "assert a[0] == a[1] and a[0].model.architecture == 'prefix_lm'\n"
        "from experiments import studies\n"
        "assert studies.load('experiments/t5_architectures/large.py') and studies.load('t5_architectures')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "said"), [("1 / 0", "ZeroDivisionError"), ("import no_such_module", "no_such_module"), ("get(", "SyntaxError")]
)
def test_a_study_that_fails_is_named_in_one_line(tmp_path, text, said):
    path = tmp_path / "study.py"
    path.write_text(f"def get_study():\n    {text}\n", encoding="utf-8")
    with pytest.raises(UserError, match=rf"study\.py: .*{said}"):
        studies.load(str(path))
