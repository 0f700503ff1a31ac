"""The compilers that are installed, of the optional groups `tpu` and `gpu` of this package (imports no jax)."""

from lm.errors import UserError
from lm.platforms import installed

MODULES = {"tpu": ("libtpu",), "gpu": ("jax_plugins.xla_cuda13", "nvidia.cudnn", "nvidia.cu13")}


def require(kind: str) -> None:
    """Raises UserError, with what to install, if the compiler for this kind of device is missing."""
    missing = [name for name in MODULES[kind] if not installed(name)]
    if missing:
        raise UserError(
            f"the compiler for {kind.upper()}s is not installed ({', '.join(missing)} is missing):"
            f" pip install -c constraints.txt -e '.[{kind}]'"
        )
