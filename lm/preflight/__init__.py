"""A run's step, compiled for hardware that is not there: whether it fits, and the least time that it can take."""
