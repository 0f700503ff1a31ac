"""The parts of a model: the options of each part, and beside them the formulas of what it costs (imports no jax)."""
