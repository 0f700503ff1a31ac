"""Settings of the analysis (imports no jax). A study names those that differ from these defaults."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class AnalysisSettings:
    """Settings of a study's fits. Everything drawn at random follows from `seed`."""

    n: str = "matmul"  # the convention of N: total, non_embedding or matmul
    c: str = "matmul_causal"  # the convention of C: 6nd, matmul_full, matmul_causal or xla
    planned_c: str = "matmul_causal"  # the convention in which the budgets are planned
    level: float = 0.8  # level of every interval
    draws: int = 1000  # bootstrap draws behind the headline numbers
    table_draws: int = 300  # bootstrap draws of approach 1, and of approach 3 under the other conventions of N
    seed: int = 0
    delta: float = 1e-3  # delta of Huber's cost of log loss (Hoffmann et al. 2022, eq. 3)
    max_lost: float = 0.1  # share of draws without an interior minimum above which an interval is refused
    noise_slope_sd: float = 0.25  # prior standard deviation of d log sigma / d log C about 0
    min_span: float = 8.0  # factor that N and D each have to span for five parameters
    min_points: int = 5  # fewest sizes of a profile
    curve: str = "parabola"  # curve through a profile: parabola, cubic or akima
    regression: str = "plain"  # regression of the minima on compute: plain, or weighted by the inverse variance of their draws
    min_envelope_sizes: int = 6  # fewest distinct interior sizes on the envelope of approach 1
    noise_factor: float = 2.0  # sizes closer than this many standard deviations are tied
    class_factor: float = 3.0  # a shape class further off than this many standard deviations is warned of
