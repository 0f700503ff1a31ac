"""The steps at which a run is evaluated (imports no jax)."""

from lm.optim.schedules import Schedule, decay_start

FIRST = 10  # steps; earlier points only show the initial weights


def evaluation_steps(total_steps: int, points_per_decade: int, schedule: Schedule, warmup: int) -> tuple[int, ...]:
    """Returns log-spaced steps, the same for every run, with the last step before the rate falls and the run's end; ascending.

    The step before the fall is the longest constant-rate point of the run: what approach 1 reads.
    """
    grid = set()
    if points_per_decade > 0:
        index = 0
        while (step := round(FIRST * 10 ** (index / points_per_decade))) < total_steps:
            grid.add(step)
            index += 1
        if 0 < (fall := decay_start(schedule, warmup, total_steps)) < total_steps and fall > warmup:
            grid.add(fall)
    return (*sorted(grid), total_steps)
