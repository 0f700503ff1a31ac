"""Compilation of a run's step for hardware that is not there: whether it fits, and the least time that it can take."""
