"""Language-model scaling experiments in JAX and Flax."""

from lm.platforms import set_default_platform

__version__ = "0.8.0"

set_default_platform()
