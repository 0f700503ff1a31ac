"""Language-model scaling experiments in JAX and Flax."""

from lm.platforms import settle

__version__ = "0.3.0"

settle()
