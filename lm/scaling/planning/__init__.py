"""Planning from a fitted or a prior law: budgets, iso-loss curves, serving, the runs to make next, the power of a design."""
