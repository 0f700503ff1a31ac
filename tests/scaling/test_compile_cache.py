"""The compilation cache of the commands: where it is, and that nothing depends on it."""

import os
import pathlib

import pytest

from lm.scaling import compile_cache


def test_the_cache_lies_in_the_folder_of_the_user(tmp_path):
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    compile_cache.switch_on(environ)
    folder = environ[compile_cache.DIRECTORY]
    assert folder.startswith(str(tmp_path / "cache"))
    again = {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    compile_cache.switch_on(again)
    assert again[compile_cache.DIRECTORY].startswith(str(tmp_path / ".cache"))
    assert float(environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) == 0


def test_settings_of_the_environment_stand(tmp_path):
    given = {compile_cache.DIRECTORY: "elsewhere", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "3", "HOME": str(tmp_path)}
    environ = dict(given)
    compile_cache.switch_on(environ)
    assert environ.items() >= given.items()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("home", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, home):
    (tmp_path / "file").write_text("")
    environ = {"XDG_CACHE_HOME": str(tmp_path / home)}
    compile_cache.switch_on(environ)
    assert compile_cache.DIRECTORY not in environ


def _switched(home):
    environ = {"XDG_CACHE_HOME": str(home)}
    compile_cache.switch_on(environ)
    return pathlib.Path(environ[compile_cache.DIRECTORY]) if compile_cache.DIRECTORY in environ else None


def test_programs_are_kept_where_no_one_else_can_write(tmp_path):
    folder = _switched(tmp_path)
    assert [place.stat().st_mode & 0o777 for place in (folder, folder.parent)] == [0o700, 0o700]
    for place in (folder, folder.parent):
        for mode in (0o770, 0o702):
            place.chmod(mode)
            assert _switched(tmp_path) is None
        place.chmod(0o755)
        assert _switched(tmp_path) == folder
    (tmp_path / "other").mkdir()
    folder.rmdir()
    folder.symlink_to(tmp_path / "other")
    assert _switched(tmp_path) is None


def test_a_folder_of_another_user_is_done_without(tmp_path, monkeypatch):
    assert _switched(tmp_path) is not None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert _switched(tmp_path) is None


def test_other_numbers_of_cores_have_other_programs(tmp_path, monkeypatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system binds no process to cores")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    one = _switched(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert _switched(tmp_path) != one


def test_the_oldest_programs_go_first(tmp_path):
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    compile_cache._trim(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
