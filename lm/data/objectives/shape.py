"""The places in a row of every objective under every architecture (imports no jax).

Lengths that a draw decides get room for the mean and 4 standard deviations of a row's sum, or for the most there can be if that is
less; what exceeds the room is cut off the row's end, as T5 does (lm.data.objectives.layout.trimmed counts it; below 1e-3 of the targets).
Isolated documents get further room, enough where they average 64 tokens.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Union

import numpy as np

from lm.data.objectives import config as C
from lm.data.objectives.config import Objective
from lm.errors import UserError
from lm.rows import RowShape

if TYPE_CHECKING:
    from lm.data.config import DataConfig

Number = Union[float, np.ndarray]
STREAMS = ("decoder", "prefix_lm", "encoder_decoder")
LEGAL: dict[type, tuple[str, ...]] = {
    C.NextToken: ("decoder",),
    C.FillInTheMiddle: ("decoder",),
    C.MaskedLM: ("encoder",),
    **dict.fromkeys((C.PrefixLM, C.Denoising, C.SpanCorruption, C.BartNoise, C.MixtureOfDenoisers, C.Pairs), STREAMS),
}


@dataclasses.dataclass(frozen=True)
class Spread:
    """Of a length that a draw decides: mean, standard deviation, the most there can be."""

    mean: float
    deviation: float
    most: int

    def room(self, examples: int) -> int:
        return min(examples * self.most, math.ceil(examples * self.mean + 4 * math.sqrt(examples) * self.deviation))


@dataclasses.dataclass(frozen=True)
class Room:
    """Tokens of a row's examples at most: of their inputs, of their targets, and of both."""

    inputs: int
    targets: int
    total: int
    mean_inputs: float  # tokens that a row's inputs hold


def exactly(length: int) -> Spread:
    return Spread(length, 0.0, length)


def spans(length: Number, density: Number, mean_span: Number) -> tuple[np.ndarray, np.ndarray]:
    """(noise tokens, noise spans) of T5's span corruption of `length` >= 2 tokens, int64.

    In float32 with ties to even, as T5's TensorFlow code rounds: 70 tokens have 10 of noise, 190 have 29 (0.15 x 190 is above 28.5 there).
    """
    exact = np.asarray(length, np.float32) * np.asarray(density, np.float32)
    noise = np.clip(np.round(exact).astype(np.int64), 1, np.asarray(length) - 1)
    runs = np.round(noise.astype(np.float32) / np.asarray(mean_span, np.float32)).astype(np.int64)
    return noise, np.clip(runs, 1, np.minimum(noise, length - noise))


def raw_length(inputs_length: int, density: float = 0.15, mean_span: float = 3.0) -> int:
    """The longest chunk whose corrupted inputs, end of document included, fill at most `inputs_length`: 512 -> 568."""
    length = inputs_length
    while sum(_span_lengths(length + 1, density, mean_span)[:1]) <= inputs_length:
        length += 1
    return length


def _span_lengths(length: int, density: float, mean_span: float) -> tuple[int, int]:
    noise, runs = (int(each) for each in spans(length, density, mean_span))
    return length - noise + runs + 1, noise + runs + 1


def _denoising(n: int, p: float) -> tuple[Spread, Spread, Spread]:
    """inputs = n - C + 1, targets = 2 D - C + 2, where D tokens are dropped and C of them follow a dropped one."""
    dropped, follow = n * p * (1 - p), (n - 1) * (p**2 * (1 - p**2) + 2 * p**3 * (1 - p))  # variances
    covariance = 2 * (n - 1) * p**2 * (1 - p)
    mean_follow = (n - 1) * p**2
    return (
        Spread(n - mean_follow + 1, math.sqrt(follow), n + 1),
        Spread(2 * n * p - mean_follow + 2, math.sqrt(4 * dropped + follow - 4 * covariance), n + 3),
        Spread(n + 3 + 2 * (n * p - mean_follow), 2 * math.sqrt(dropped + follow - 2 * covariance), n + 3 + 2 * -(-n // 2)),
    )


def denoiser_lengths(n: int, denoiser: C.Denoiser, mode_tokens: bool) -> tuple[int, int]:
    """(inputs, targets) of one of UL2's denoisers; exact."""
    if denoiser.mode == "S":
        noise = int(spans(n, denoiser.noise_density, 1.0)[0])
        return n - noise + 1 + mode_tokens, noise + 1
    inputs, targets = _span_lengths(n, denoiser.noise_density, denoiser.mean_span)
    return inputs + mode_tokens, targets


def _mixture(n: int, objective: C.MixtureOfDenoisers) -> tuple[Spread, Spread, Spread]:
    rates = [denoiser.rate / sum(each.rate for each in objective.denoisers) for denoiser in objective.denoisers]
    pairs = [denoiser_lengths(n, denoiser, objective.mode_tokens) for denoiser in objective.denoisers]

    def spread(lengths: list[int]) -> Spread:
        mean = sum(rate * length for rate, length in zip(rates, lengths, strict=True))
        variance = sum(rate * (length - mean) ** 2 for rate, length in zip(rates, lengths, strict=True))
        return Spread(mean, math.sqrt(variance), max(lengths))

    return spread([a for a, _ in pairs]), spread([b for _, b in pairs]), spread([a + b for a, b in pairs])


def infilled(n: int, share: float) -> int:
    """Tokens that BART's spans replace."""
    return round(n * share)


def most_spans(masked: int, mean_span: float) -> int:
    """Spans that are drawn at most: 6 standard deviations of the number that a Poisson law needs."""
    return math.ceil(masked / mean_span + 1 + 6 * (math.sqrt(masked) / mean_span + 1)) if masked else 0


def _bart(n: int, objective: C.BartNoise) -> tuple[Spread, Spread, Spread]:
    """A renewal process of Poisson(m) steps crosses k after about k/m + 1 of them, with variance k/m^2."""
    masked = infilled(n, objective.infilling)
    runs = masked / objective.mean_span + 1 if masked else 0.0
    keep, removed = 1 - objective.deletion, n * objective.deletion * (1 - objective.deletion)
    deviation = math.sqrt((math.sqrt(masked) / objective.mean_span + 0.5 * (masked > 0)) ** 2 + removed)
    most = n - masked + most_spans(masked, objective.mean_span) + 1
    inputs = Spread((n - masked) * keep + runs + 1, deviation, most)
    return inputs, exactly(n + 1), Spread(inputs.mean + n + 1, deviation, most + n + 1)


def _lengths(n: int, objective: Objective) -> tuple[Spread, Spread, Spread]:
    """Of the inputs, the targets and both, for a chunk of `n` tokens."""
    if isinstance(objective, C.PrefixLM):
        half = Spread(n / 2, math.sqrt(max((n - 1) ** 2 - 1, 0) / 12), n - 1)
        return half, half, exactly(n)
    if isinstance(objective, C.Denoising):
        return _denoising(n, objective.noise_density)
    if isinstance(objective, C.MixtureOfDenoisers):
        return _mixture(n, objective)
    if isinstance(objective, C.BartNoise):
        return _bart(n, objective)
    assert isinstance(objective, C.SpanCorruption)
    inputs, targets = _span_lengths(n, objective.noise_density, objective.mean_span)
    return exactly(inputs), exactly(targets), exactly(inputs + targets)


def room(config: "DataConfig") -> Room:
    """For the objectives that make pairs."""
    objective, length = config.objective, config.sequence_length
    if isinstance(objective, C.Pairs):
        return Room(length, length, length, length / 2)
    assert not isinstance(objective, (C.NextToken, C.FillInTheMiddle, C.MaskedLM))
    examples = objective.examples_per_row
    inputs, targets, total = _lengths(length // examples, objective)
    slack = length // 16 + 8 if objective.documents == "isolated" else 0
    room_in, room_out = inputs.room(examples) + slack, targets.room(examples) + slack
    return Room(room_in, room_out, min(total.room(examples) + 2 * slack, room_in + room_out), examples * inputs.mean)


def masked_per_example(n: int, objective: C.MaskedLM) -> int:
    """Tokens that are predicted in a chunk of `n`: never none."""
    return min(n, max(1, round(n * objective.mask_rate)))


def row_shape(config: "DataConfig", architecture: str) -> RowShape:
    """The places in one row. Raises UserError for an objective that cannot train the architecture, and for options out of range."""
    require(config, architecture)
    objective, length = config.objective, config.sequence_length
    if isinstance(objective, C.NextToken):
        return RowShape(length)
    if isinstance(objective, C.FillInTheMiddle):
        return RowShape(length + 4 * objective.documents_per_row, document_tokens=length)
    if isinstance(objective, C.MaskedLM):
        examples, pair = objective.examples_per_row, objective.next_sentence
        return RowShape(
            length + examples * (3 if pair else 2),
            predicted=examples * masked_per_example(length // examples, objective),
            sequences=examples if pair else 0,
            document_tokens=length,
            fields=("predict", "token_types", "sequence_positions", "labels", "label_weights") if pair else ("predict",),
        )
    space = room(config)
    if architecture == "encoder_decoder":
        fields = ("encoder_tokens", "encoder_segments", "encoder_positions")
        return RowShape(space.targets, space.inputs, document_tokens=length, fields=fields)
    predicted = None if objective.loss_on_inputs else space.targets
    if architecture == "decoder":
        return RowShape(space.total, predicted=predicted, document_tokens=length, fields=() if predicted is None else ("predict",))
    examples = 1 if isinstance(objective, C.Pairs) else objective.examples_per_row
    visible = min(_one_prefix(space.mean_inputs / examples + 1, examples), space.total)  # the token that opens a sequence is visible too
    return RowShape(space.total, predicted=predicted, prefix=visible, document_tokens=length, fields=("prefix", "predict"))


def _one_prefix(length: float, count: int) -> float:
    """The length of the one prefix in which as many queries see a later key as in `count` prefixes of this length: x(x-1) = c l(l-1)."""
    return 0.5 + math.sqrt(0.25 + count * length * (length - 1))


def require(config: "DataConfig", architecture: str) -> None:
    """Raises UserError unless the objective can train the architecture on rows of this length."""
    objective = config.objective
    legal = LEGAL[type(objective)]
    if architecture not in legal:
        others = ", ".join(cls.__dict__["name"] for cls, names in LEGAL.items() if architecture in names)
        raise UserError(
            f"objective {objective.name} trains {' or '.join(legal)}, not {architecture}; set data.objective to one of {others or 'none'}"
        )
    if getattr(objective, "loss_on_inputs", False) and architecture != "decoder":
        raise UserError(f"loss_on_inputs is for a decoder; a model of architecture {architecture} sees its inputs: set it to False")
    if isinstance(objective, C.Pairs) and config.packing != "best_fit":
        raise UserError("objective pairs needs rows of whole documents; set data.packing=best_fit")
    examples = getattr(objective, "examples_per_row", 1)
    if examples < 1 or config.sequence_length % examples:
        raise UserError(f"data.sequence_length={config.sequence_length} cannot be cut into {examples} chunks; make it a multiple of them")
    if config.sequence_length // examples < 2 and not isinstance(objective, C.NextToken):
        raise UserError("a chunk has fewer than 2 tokens; raise data.sequence_length or lower examples_per_row")
    _require_options(objective, config.sequence_length // examples)


def _require_options(objective: Objective, n: int) -> None:
    for field in ("noise_density", "mask_rate"):
        if not 0 < getattr(objective, field, 0.5) < 1:
            raise UserError(f"{field}={getattr(objective, field)} of objective {objective.name} must lie between 0 and 1")
    for field in ("rate", "spm", "infilling", "deletion", "rotation", "replace_by_mask", "replace_by_random"):
        if not 0 <= getattr(objective, field, 0.0) <= 1:
            raise UserError(f"{field}={getattr(objective, field)} of objective {objective.name} must lie in 0..1")
    if getattr(objective, "mean_span", 1.0) < 0.5:  # BART draws as many spans as its mean asks for
        raise UserError(f"mean_span of objective {objective.name} must be 0.5 or more")
    if isinstance(objective, C.Pairs) and not objective.separator:
        raise UserError("objective pairs needs a separator, such as a tab")
    if isinstance(objective, C.MaskedLM) and objective.replace_by_mask + objective.replace_by_random > 1:
        raise UserError("replace_by_mask and replace_by_random of objective masked sum to more than 1; lower one")
    if isinstance(objective, C.MixtureOfDenoisers):
        _require_denoisers(objective)
    needed = sentinels_needed(objective, n)
    if needed > getattr(objective, "sentinels", needed):
        raise UserError(
            f"chunks of {n} tokens need {needed} sentinels; raise sentinels of objective {objective.name} or shorten the chunks"
        )


def _require_denoisers(objective: C.MixtureOfDenoisers) -> None:
    for each in objective.denoisers:
        if not (0 < each.noise_density < 1 and each.rate > 0 and (each.mode == "S" or each.mean_span > 0)):
            raise UserError("a denoiser of objective ul2 needs 0 < noise_density < 1, a positive rate and a positive mean_span")
    if not objective.denoisers:
        raise UserError("objective ul2 needs at least one denoiser")


def sentinels_needed(objective: Objective, n: int) -> int:
    """Of one chunk: exact for spans; for i.i.d. noise a number that 4 standard deviations of the runs and the final sentinel fit in."""
    if isinstance(objective, C.Denoising):
        both = _denoising(n, objective.noise_density)[2]  # n + 3 and two for each run
        return math.ceil((both.mean - n - 3 + 4 * both.deviation) / 2) + 1
    if isinstance(objective, C.SpanCorruption):
        return int(spans(n, objective.noise_density, objective.mean_span)[1])
    if isinstance(objective, C.MixtureOfDenoisers):
        return max((int(spans(n, d.noise_density, d.mean_span)[1]) for d in objective.denoisers if d.mode != "S"), default=0)
    return 0
