"""Corpora end to end: prepared once, atomic, fingerprinted by content, without jax; bad input is one clear line."""

import json
import os
import pathlib
import random
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from lm.data import corpora
from lm.data.config import Component
from lm.data.corpora import corpus
from lm.data.corpora.lines import PIECE
from lm.errors import UserError


def _texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return ["\n".join(f"line {i} {rng.randrange(10**12)} é" for _ in range(12)) for i in range(count)]


def _jsonl(path: pathlib.Path, texts: list[str]) -> Component:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Component("text_files", (str(path),))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpora")
    component = _jsonl(directory / "a.jsonl", [*_texts(60), _texts(1)[0]])
    lines: list[str] = []
    return component, str(directory / "data"), corpora.prepare(component, str(directory / "data"), lines.append), lines


def test_text_comes_back_whole_and_shuffled(made):
    _, _, result, lines = made
    splits = [result.split(name) for name in ("train", "validation")]
    back = [text for split in splits for text in split]
    assert sorted(back) == sorted(_texts(60))
    assert back != _texts(60)
    assert [len(split) for split in splits] == list(result.info["documents"].values())
    assert sum(result.info["bytes"].values()) == sum(len(text.encode()) for text in _texts(60))
    assert splits[0].name(0).startswith("0:a.jsonl:")
    assert splits[0][-1] == splits[0][len(splits[0]) - 1]
    with pytest.raises(IndexError):
        splits[0][len(splits[0])]
    assert result.info["dropped"]["exact duplicate"] == 1
    assert result.fingerprint in lines[-1]
    assert "exact duplicate 1" in lines[-1]
    assert not any("\n" in line for line in lines)


def test_second_call_reads_the_record_only(made, monkeypatch):
    component, data_dir, result, _ = made
    monkeypatch.setattr(corpora, "_write", lambda *_: pytest.fail("prepared twice"))
    assert corpora.prepare(component, data_dir, pytest.fail) == result


def test_fingerprint_is_of_the_content(made, tmp_path):
    _, _, result, _ = made
    texts = _texts(60)
    same = corpora.prepare(_jsonl(tmp_path / "b.jsonl", texts[::-1]), str(tmp_path), lambda _: None)
    assert same.fingerprint == result.fingerprint
    assert same.split("validation")[0] == result.split("validation")[0]
    other = corpora.prepare(_jsonl(tmp_path / "c.jsonl", [*texts[1:], texts[0] + "."]), str(tmp_path), lambda _: None)
    assert other.fingerprint != result.fingerprint


def test_txt_and_parquet(tmp_path):
    long = "\n".join(_texts(400, seed=1)) + "\n"
    (tmp_path / "long.txt").write_text(long)
    (tmp_path / "short.txt").write_text("short\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": _texts(20, seed=2), "n": list(range(20))}), tmp_path / "t.parquet")
    component = Component("text_files", tuple(str(tmp_path / name) for name in ("long.txt", "short.txt", "t.parquet")))
    result = corpora.prepare(component, str(tmp_path), lambda _: None)
    back = {result.split(split).name(i): result.split(split)[i] for split in corpus.SPLITS for i in range(len(result.split(split)))}
    pieces = [back[name] for name in sorted(back) if name.startswith("0:")]
    assert "".join(pieces) == long
    assert max(len(piece.encode()) for piece in pieces) <= PIECE
    assert back["1:short.txt:0"] == "short\n"
    assert {text for name, text in back.items() if name.startswith("2:")} == set(_texts(20, seed=2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "does not exist"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\n", "holds no text"),
        ("a.txt", b"one\n", "two or more documents"),
        ("a.txt", "é\n".encode("latin-1"), "byte 0"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "byte 24"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "line 2"),
        ("a.jsonl", b'{"content": "a"}\n', "line 1"),
        ("a.jsonl", b'{"text": 1}\n', "line 1"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "surrogate"),
        ("a.parquet", b"no", "parquet file"),
        ("a.csv", b"a,b\n", "field=a"),
        ("a.csv", b"text,b\nx,y,z\n", "line 2"),
        ("a.pdf", b"%PDF\x00", "NUL"),
        ("a.json", b"[{", "JSON"),
        ("a.jsonl", b'"text"\n', "line 1"),
        ("a.arrow", b"no", "arrow file"),
        ("a.jsonl.gz", b"no", "cannot read"),
        ("a.txt.zst", b"no", "cannot read"),
        ("a.txt.xz", b"no", "cannot read"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        corpora.prepare(Component("text_files", (str(tmp_path / name),)), str(tmp_path / "data"), lambda _: None)
    assert message in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component("python_source"), "python_sources"),
        (Component("text_files"), r"data\.components\.0\.paths"),
        (Component("python_sources", ("a.txt",)), "text_files"),
    ],
)
def test_bad_components(tmp_path, component, message):
    with pytest.raises(UserError, match=message):
        corpora.prepare(component, str(tmp_path))


def test_parquet_without_text_names_its_columns(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"content": ["a"], "id": [1]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="content, id"):
        corpora.prepare(Component("text_files", (str(tmp_path / "t.parquet"),)), str(tmp_path))


def test_changed_and_missing_source_files(tmp_path):
    component = _jsonl(tmp_path / "a.jsonl", _texts(20))
    first = corpora.prepare(component, str(tmp_path / "data"), lambda _: None)
    os.utime(tmp_path / "a.jsonl")
    assert corpora.prepare(component, str(tmp_path / "data")).fingerprint == first.fingerprint
    _jsonl(tmp_path / "a.jsonl", _texts(21))
    with pytest.raises(UserError, match=r"a\.jsonl"):
        corpora.prepare(component, str(tmp_path / "data"))
    (tmp_path / "a.jsonl").unlink()
    assert corpora.prepare(component, str(tmp_path / "data")).fingerprint == first.fingerprint


def _record(temporary: str) -> dict:
    pathlib.Path(temporary, "shard").write_bytes(b"12345")
    return {"fingerprint": "f", "info": {}, "parts": {"train": "train"}, "feature": "text", "files": {"shard": 5}}


def test_a_killed_preparation_is_neither_trusted_nor_left(tmp_path):
    program = (
        "import os, pathlib, sys; from lm.data.corpora import corpus\n"
        "def write(temporary):\n    pathlib.Path(temporary, 'shard').write_bytes(b'123'); os.kill(os.getpid(), 9)\n"
        "corpus.prepare(pathlib.Path(sys.argv[1]), write, print)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "x" / "c")], check=False)
    assert killed.returncode == -9
    assert len(list((tmp_path / "x").glob("c.tmp*"))) == 1
    assert corpus.load(tmp_path / "x" / "c") is None
    assert corpus.prepare(tmp_path / "x" / "c", _record, print).fingerprint == "f"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [".c.lock", "c"]


def test_a_failed_preparation_leaves_nothing(tmp_path):
    def interrupted(temporary: str) -> dict:
        _record(temporary)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.prepare(tmp_path / "c", interrupted, print)
    assert [path.name for path in tmp_path.iterdir()] == [".c.lock"]


def test_damage_is_noticed(tmp_path):
    corpus.prepare(tmp_path / "c", _record, print)
    (tmp_path / "c" / "shard").write_bytes(b"1234")
    with pytest.raises(UserError, match=r"shard.* 4 .* 5"):
        corpus.load(tmp_path / "c")
    (tmp_path / "c" / "shard").unlink()
    with pytest.raises(UserError, match="shard"):
        corpus.load(tmp_path / "c")


def test_unwritable_data_dir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="data_dir"):
        corpus.prepare(tmp_path / "file" / "c", _record, print)


def test_preparing_and_reading_never_imports_jax_or_tensorflow(made):
    component, data_dir, _, _ = made
    program = (
        "import sys; import lm.data.info; from lm.data import corpora; from lm.data.config import Component\n"
        "assert not {'grain', 'sentencepiece', 'tokenizers', 'tensorflow_datasets'} & set(sys.modules)\n"
        f"print(corpora.prepare(Component('text_files', {component.paths!r}), {data_dir!r}).split('train')[0][:4])\n"
        "assert not {'jax', 'tensorflow', 'flax'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "line\n"


@pytest.mark.parametrize("suffix", ["array_record-00000-of-00001", "dataset_info.json", "features.json", "corpus.json"])
def test_damage_of_a_prepared_corpus_is_one_line(tmp_path, suffix):
    """Bytes of its files are overwritten at 20 places each: what is read is what was written, or nothing."""
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": " ".join(f"{i * j}" for j in range(7, 60))}) for i in range(2, 30)))
    component, data_dir = Component("text_files", (str(path),)), str(tmp_path / "data")
    whole = list(corpora.prepare(component, data_dir, lambda _: None).split("train"))
    (damaged,) = (tmp_path / "data").rglob("*-train*" + suffix if suffix[0] == "a" else suffix)
    content, lines = damaged.read_bytes(), []
    used = [at for at, byte in enumerate(content) if byte]  # a shard is mostly padding
    for at in used[:: len(used) // 20]:
        damaged.write_bytes(content[:at] + b"#|~%" + content[at + 4 :])
        corpus._open.cache_clear()
        try:
            again = list(corpora.prepare(component, data_dir, lambda _: None).split("train"))
        except UserError as error:
            lines.append(str(error))
        else:
            assert again == whole
    assert len(lines) > 10
    assert all(str(damaged.parent) in line and "\n" not in line for line in lines)
