"""UL2's mixture of denoisers (Tay et al. 2023, table 1)."""

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np

from lm.data.objectives.base import Documents, Objective, SpecialIds, Spread
from lm.data.objectives.denoising import around, require_sentinels, runs, span_counts, span_lengths, span_noise
from lm.data.objectives.draws import Draws
from lm.data.objectives.ragged import Ragged, join, single
from lm.data.own_ids import OwnIds
from lm.errors import UserError

Mode = Literal["R", "S", "X"]
MODES: tuple[Mode, ...] = ("R", "S", "X")  # in the order of their tokens' ids


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """One denoiser of the mixture."""

    mode: Mode = "R"  # R and X: span corruption; S: the end of the chunk is predicted
    mean_span: float = 3.0  # mean tokens of a span; not read by S
    noise_density: float = 0.15  # share of the tokens that is predicted
    rate: float = 1.0  # share of the examples, relative to the other denoisers'


SEVEN_DENOISERS = (
    Denoiser("R", 3.0, 0.15),
    Denoiser("R", 8.0, 0.15),
    Denoiser("S", 0.0, 0.25),
    Denoiser("X", 3.0, 0.5),
    Denoiser("X", 8.0, 0.5),
    Denoiser("X", 64.0, 0.15),
    Denoiser("X", 64.0, 0.5),
)


@dataclasses.dataclass(frozen=True)
class MixtureOfDenoisers(Objective):
    """UL2: each chunk goes through one of several denoisers, and a mode token at the inputs' start says of which kind.

    The published seven are mixed evenly. The sentinels are the tokenizer's own, or
    V-1, V-2, ... of a vocabulary V; the modes R, S, X lie below them, or at V-1, V-2, V-3.
    """

    name: ClassVar[str] = "ul2"
    continues_text: ClassVar[bool] = True

    denoisers: tuple[Denoiser, ...] = SEVEN_DENOISERS  # the mixture
    mode_tokens: bool = True  # whether the inputs begin with a mode token
    sentinels: int = 100  # ids kept for sentinels, one for each span of a chunk
    examples_per_row: int = 1  # equal chunks that a row is cut into
    documents: Documents = "joined"  # whether a chunk joins documents, or is cut where one ends
    loss_on_inputs: bool = False  # whether a decoder predicts the inputs too

    def special_ids(self, own: OwnIds) -> int:
        return self.sentinels * (not own.sentinels) + len(MODES) * self.mode_tokens

    def require_options(self, chunk: int) -> None:
        for each in self.denoisers:
            if not (0 < each.noise_density < 1 and each.rate > 0 and (each.mode == "S" or each.mean_span > 0)):
                raise UserError("a denoiser of objective ul2 needs 0 < noise_density < 1, a positive rate and a positive mean_span")
        if not self.denoisers:
            raise UserError("objective ul2 needs at least one denoiser")
        require_sentinels(self, chunk)

    def needed_sentinels(self, chunk: int) -> int:
        spans = [int(span_counts(chunk, each.noise_density, each.mean_span)[1]) for each in self.denoisers if each.mode != "S"]
        return max(spans, default=0)

    def lengths(self, chunk: int) -> tuple[Spread, Spread, Spread]:
        rates = [denoiser.rate / sum(each.rate for each in self.denoisers) for denoiser in self.denoisers]
        pairs = [self.denoiser_lengths(chunk, denoiser) for denoiser in self.denoisers]

        def spread(lengths: list[int]) -> Spread:
            mean = sum(rate * length for rate, length in zip(rates, lengths, strict=True))
            variance = sum(rate * (length - mean) ** 2 for rate, length in zip(rates, lengths, strict=True))
            return Spread(mean, math.sqrt(variance), max(lengths))

        return spread([a for a, _ in pairs]), spread([b for _, b in pairs]), spread([a + b for a, b in pairs])

    def denoiser_lengths(self, chunk: int, denoiser: Denoiser) -> tuple[int, int]:
        """Returns the exact lengths of (inputs, targets) under one denoiser."""
        if denoiser.mode == "S":
            noise = int(span_counts(chunk, denoiser.noise_density, 1.0)[0])
            return chunk - noise + 1 + self.mode_tokens, noise + 1
        inputs, targets = span_lengths(chunk, denoiser.noise_density, denoiser.mean_span)
        return inputs + self.mode_tokens, targets

    def pairs(self, chunks: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> tuple[Ragged, Ragged]:
        """Sends each chunk through one denoiser. Under S the end of the chunk is the target, and no sentinel stands for it."""
        which = self.choose(draws)
        density, span = (np.asarray([getattr(each, name) for each in self.denoisers])[which] for name in ("noise_density", "mean_span"))
        mode = np.asarray([MODES.index(each.mode) for each in self.denoisers])[which]
        sequential = mode == MODES.index("S")
        tokens, spans = span_counts(chunks.lengths, density, np.where(sequential, 1.0, span))
        noise = span_noise(chunks, tokens, np.where(sequential, 1, spans), draws)
        noise = np.where(sequential[chunks.owner], chunks.position >= (chunks.lengths - tokens)[chunks.owner], noise)
        first, ordinal = runs(noise, chunks)
        inputs, targets = around(noise, first & ~sequential[chunks.owner], ordinal, chunks, ids)
        every = np.ones(len(chunks), bool)
        end, start = single(ids.eos, every), single(self.mode_ids(mode, ids), every & self.mode_tokens)
        return join(start, inputs, end), join(targets, end)

    def choose(self, draws: Draws) -> np.ndarray:
        """Draws the denoiser of each chunk, as its index: int64 [n]."""
        shares = np.cumsum([each.rate for each in self.denoisers])
        return np.searchsorted(shares[:-1] / shares[-1], draws.each("denoiser"), side="right")

    def mode_ids(self, mode: np.ndarray, ids: SpecialIds) -> np.ndarray:
        """Returns the ids of modes, given by their place in MODES."""
        return ids.top(mode if ids.tokenizer.own.sentinels else self.sentinels + mode)

    def blank(self, number: int, ids: SpecialIds) -> int:
        return int(ids.sentinel(number)) if number < ids.count_of_sentinels(self.sentinels) else super().blank(number, ids)

    def prompt(self, parts: list[list[int]], ids: SpecialIds) -> list[int]:
        """Begins text with blanks with the mode that fills them in (R), and other text with the mode that continues it (S)."""
        mode = MODES.index("S" if len(parts) == 1 else "R")
        start = [int(self.mode_ids(np.asarray(mode), ids))] if self.mode_tokens else []
        return [*start, *super().prompt(parts, ids)]
