"""What the parts of a model are and cost: each part's options with its own formulas beside them (imports no jax)."""
