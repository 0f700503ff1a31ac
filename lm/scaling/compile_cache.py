"""Compiled programs kept between commands: a third of the time of a small fit is compilation, the same each time.

JAX reads these settings from the environment when it is imported, so that `switch_on` comes first and imports no jax itself.
"""

import hashlib
import os
import pathlib
import platform
from collections.abc import MutableMapping

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def switch_on(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets JAX's persistent compilation cache, unless the environment says where it is; goes without where no folder can be written.

    JAX_ENABLE_COMPILATION_CACHE=0 switches it off.
    """
    if DIRECTORY not in environ:
        folder = _folder(environ)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK | os.X_OK):
            return
        environ[DIRECTORY] = str(folder)
    for name, value in _ALL.items():
        environ.setdefault(name, value)


def _folder(environ: MutableMapping[str, str]) -> pathlib.Path:
    """Returns the folder of this machine's kind of processor: a home may be shared by machines whose programs differ."""
    home = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return pathlib.Path(home) / "lm-scaling" / f"jax-{hashlib.sha256(_processor().encode()).hexdigest()[:12]}"


def _processor() -> str:
    """Returns the processor's architecture and, on Linux, the instructions that it has."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join([platform.machine(), platform.processor(), features])
