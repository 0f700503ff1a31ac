"""The compilation cache of the commands: where it is, and that nothing depends on it."""

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
