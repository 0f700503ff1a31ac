"""Laws of the schedules: one function on host and device, warm-up, peak, end."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.optim.config import t5
from lm.optim.schedules import WSD, Cosine, Linear, Rsqrt, decay_start, is_decayed, rate_ratio, warmup_steps

ALL = [Cosine(), Cosine(final=0.0), WSD(), WSD(cooldown=0.2, final=0.1), WSD(cooldown=0.0), Linear(), Rsqrt(), Rsqrt(rising=False)]
DECAYING = [Cosine(), WSD(), WSD(cooldown=0.2, final=0.1), Linear()]


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_host_and_device_agree(schedule):
    compiled = jax.jit(functools.partial(rate_ratio, schedule, xp=jnp))
    for warmup, total in [(0, 1), (0, 50), (5, 50), (50, 50), (100, 1_000_000)]:
        steps = np.linspace(0, total, 40).astype(np.int32)
        host, device = rate_ratio(schedule, steps, warmup, total), compiled(steps, warmup, total)
        assert host.dtype == device.dtype == np.float32
        np.testing.assert_allclose(host, device, rtol=1e-5, atol=1e-6)
        assert np.all((host >= 0) & (host <= 1))


@pytest.mark.parametrize("schedule", [schedule for schedule in ALL if schedule != Rsqrt(rising=False)], ids=str)
def test_warmup_rises_in_equal_steps_to_the_peak(schedule):
    host = rate_ratio(schedule, np.arange(10), 10, 200)
    np.testing.assert_allclose(host, np.arange(1, 11) / 10, rtol=1e-6)
    assert rate_ratio(schedule, 0, 0, 200) == pytest.approx(1.0, abs=1e-3)  # without warm-up the first update has the peak rate


@pytest.mark.parametrize("schedule", DECAYING, ids=str)
def test_end_is_final_and_the_last_update_still_moves(schedule):
    assert rate_ratio(schedule, 200, 10, 200) == pytest.approx(schedule.final, abs=1e-6)
    assert rate_ratio(schedule, 199, 10, 200) > schedule.final
    falling = np.diff(rate_ratio(schedule, np.arange(10, 201), 10, 200))
    assert np.all(falling <= 0)


def test_wsd_is_constant_up_to_its_decay():
    for total in (24, 200, 997):
        start = decay_start(WSD(), 10, total)
        ratios = rate_ratio(WSD(), np.arange(total + 1), 10, total)
        assert np.all(ratios[10 : start + 1] == 1.0)
        assert ratios[start + 1] < 1.0


def test_rsqrt_is_the_inverse_square_root_and_never_decayed():
    ratios = rate_ratio(Rsqrt(), np.arange(100), 16, 100)
    np.testing.assert_allclose(ratios[15:], np.sqrt(16 / np.arange(16, 101)), rtol=1e-6)
    assert not is_decayed(Rsqrt(), 100, 100)
    assert is_decayed(WSD(), 100, 100)
    assert not is_decayed(WSD(), 99, 100)


def test_t5_has_one_over_the_root_of_the_update_or_of_warmup():
    """Raffel et al. 2020, section 3.1.2: 1 / sqrt(max(n, k)), constant for the first k updates; ours number them from 0."""
    recipe, n = t5(10_000, tokens_per_step=64), np.asarray([1, 500, 9_999, 10_000, 10_001, 20_000, 524_288])
    warmup = warmup_steps(recipe.warmup_fraction, recipe.warmup_tokens, 524_288, 64)
    assert warmup == 10_000
    rates = recipe.learning_rate * rate_ratio(recipe.schedule, n - 1, warmup, 524_288)
    np.testing.assert_allclose(rates, 1 / np.sqrt(np.maximum(n, 10_000)), rtol=1e-6)


def test_warmup_is_the_smaller_of_share_and_tokens():
    assert warmup_steps(0.1, None, 200, 1024) == 20
    assert warmup_steps(0.1, 5 * 1024, 200, 1024) == 5
    assert warmup_steps(0.1, 10**9, 200, 1024) == 20
    assert warmup_steps(0.1, None, 9, 1024) == 0


def test_a_horizon_is_an_argument():
    traces = []

    @jax.jit
    def rate(step, warmup, total):
        traces.append(1)
        return rate_ratio(WSD(), step, warmup, total, xp=jnp)

    for total in (100, 1000):
        np.testing.assert_allclose(rate(90, 10, total), rate_ratio(WSD(), 90, 10, total), rtol=1e-6)
    assert len(traces) == 1
