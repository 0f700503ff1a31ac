"""What each objective is the minimum of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.scaling.fits.objectives import OBJECTIVES, AbsoluteLog, QuantileLog, SquaredLog, SquaredRaw

LOSS = np.array([1.0, 1.1, 1.3, 1.7, 2.9, 3.1, 4.0])


@pytest.mark.parametrize(
    ("objective", "centre"),
    [
        (SquaredRaw(), LOSS.mean()),
        (SquaredLog(), np.exp(np.log(LOSS).mean())),
        (AbsoluteLog(), np.median(LOSS)),
        (QuantileLog(0.2), 1.1),  # the second of seven: one below, five above
        (QuantileLog(0.8), 3.1),
    ],
    ids=repr,
)
def test_a_constant_is_fitted_to_the_centre_of_its_objective(objective, centre):
    """The total cost of a constant is least at the centre among 2,001 places around it, 1 in 2,000 apart, and the losses themselves."""
    places = np.sort(np.append(centre * np.exp(np.linspace(-0.5, 0.5, 2001)), LOSS))
    with jax.enable_x64(True):
        observed, predicted = jnp.log(jnp.array(LOSS)), jnp.log(jnp.array(places))
        totals = jax.vmap(lambda at: jnp.sum(objective.cost(objective.residual(jnp.full(7, at), observed))))(predicted)
    assert places[int(np.argmin(totals))] == pytest.approx(centre, rel=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pull_is_the_slope_of_the_cost_over_the_residual(name):
    objective = OBJECTIVES[name]()
    with jax.enable_x64(True):
        r = jnp.array([-0.3, -2e-3, -5e-7, 7e-7, 5e-4, 0.1], jnp.float64)
        slope = jax.vmap(jax.grad(lambda x: objective.cost(x[None])[0]))(r)
        np.testing.assert_allclose(slope, objective.pull(r) * r, rtol=1e-12)
