"""Files and names from elsewhere run no code, and addresses are not taken for folders."""

import ast
import pathlib
import re

import pytest

import lm.errors
from lm import run
from lm.data.corpora import readers
from lm.errors import UserError
from lm.hf import __main__ as hf
from lm.scaling import __main__ as scaling
from lm.scaling.page import document, html
from lm.scaling.page.document import Document, Section, Table, Text
from lm.scaling.page.provenance import Provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNNING = {"eval", "exec", "compile", "__import__"}
UNPICKLING = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
WORDS = (*RUNNING, *UNPICKLING, "allow_pickle", "torch.load", "yaml", "unsafe_load")
# The first looks up the names of a list and no other, the second reads from its standard input what the process that starts it has written.
ALLOWED = {"experiments/replications/frames.py", "lm/data/shared_work.py"}


def _unsafe(path):
    """Yields what could run code of a file that is read: imports, calls and arguments."""
    text = path.read_text(encoding="utf-8")
    if not any(word in text for word in WORDS):  # most files need not be parsed
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from UNPICKLING & {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            yield from UNPICKLING & {str(node.module).split(".")[0]}
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                yield from RUNNING & {function.id}
            elif isinstance(function, ast.Attribute):
                whole = ast.unparse(function)
                yield from {whole} & {"torch.load", "yaml.load", "yaml.unsafe_load", "builtins.eval", "builtins.exec"}
                yield from {function.attr} & {"read_pickle", "unsafe_load"}
            if any(keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False" for keyword in node.keywords):
                yield "allow_pickle"


def test_nothing_that_is_read_is_run():
    paths = [path for top in ("lm", "launch", "experiments", "configs") for path in (ROOT / top).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): sorted(set(_unsafe(path))) for path in paths}
    assert {name: words for name, words in found.items() if words} == {name: ["pickle"] for name in ALLOWED}


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://bucket/x", "hdfs://name/x"])
def test_an_address_is_told_and_makes_no_folder(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    config, table = "--config=configs/decoder.py:tiny", str(ROOT / "docs" / "runs.csv")
    for command, words in (
        (run, [config, f"--workdir={address}"]),
        (run, [config, "--workdir=w", f"--config.data_dir={address}"]),
        (hf, ["import", address, "--workdir=w"]),
        (hf, ["export", address, "w"]),
        (scaling, ["fit", address]),
        (scaling, ["fit", table, f"--report={address}"]),
        (scaling, ["fit", table, f"--save={address}.json"]),
    ):
        with pytest.raises(UserError, match=address):
            command.main(words)
    with pytest.raises(UserError, match=address):
        readers.expand([address], print)
    with pytest.raises(UserError, match=address):
        lm.errors.require_local(pathlib.Path(address))  # which has lost a slash
    assert list(tmp_path.iterdir()) == []
    for name in ("runs/x", "a:b/c", "/gs:/x", "./gs:/x"):
        lm.errors.require_local(name)


@pytest.mark.parametrize(
    "error", [UserError("column \x1b[2J\x07\u202e\udcff of\na table"), OSError(2, "No such file", "\x1b[2J\x07\u202e\udcff")]
)
def test_an_error_does_not_steer_the_terminal(error):
    line = lm.errors.one_line(error)
    assert line.isprintable()
    assert r"\x1b[2J\x07\u202e\udcff" in line
    line.encode()


def test_pages_show_hostile_text_as_text(tmp_path):
    hostile = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
    made = Provenance("today", hostile, hostile, 1, hostile, (), (hostile,), hostile)
    table = Table((hostile, hostile), ((hostile, hostile),), hostile, (hostile,))
    section = Section(hostile, (table, Text(hostile), Text(hostile, verbatim=True)))
    page = Document(hostile, hostile, (hostile,), (hostile,), (section,), made, {hostile: hostile})
    text = document.write(tmp_path / "page.html", page).page.read_text(encoding="utf-8")
    assert text.count("alert(1)") >= 20
    assert "<script" not in text
    assert "<img src=x" not in text


@pytest.mark.parametrize("path", sorted(ROOT.glob("lm/**/*.html")), ids=lambda path: path.name)
def test_no_template_switches_escaping_off(path):
    assert html._template(path).environment.autoescape is True
    assert not re.search(r"\|\s*safe|autoescape|Markup", path.read_text(encoding="utf-8"))
