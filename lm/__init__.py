"""Language-model scaling experiments in JAX and Flax."""

from lm.platforms import settle

__version__ = "0.2.0"

settle()
