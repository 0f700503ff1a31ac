"""Liu et al. 2024, RegMix: 512 models of 1M parameters on random mixtures order 256 further mixtures, and choose the best one.

The paper's model is LightGBM, stopped early by the held-out mixtures; ours is a Gaussian process that never sees them. The optimum is
the mean of the best 128 of 100,000 mixtures from a Dirichlet distribution about the Pile's tokens, as in the paper.
"""

import pathlib

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, at_least, within
from lm.scaling.mixtures import optimum, table
from lm.scaling.mixtures.models import MODELS, Fitted

NAME = "regmix"
TARGET = "pile_cc"
PUBLISHED = {  # Spearman's rank correlation on the held-out mixtures of 1M models, by validation set
    "arxiv": 0.9960, "freelaw": 0.9971, "pubmed_central": 0.9908, "wikipedia_en": 0.9945, "dm_mathematics": 0.9720, "github": 0.9977,
    "stackexchange": 0.9973, "gutenberg_pg_19": 0.9918, "pile_cc": 0.9892, "ubuntu_irc": 0.9687, "hackernews": 0.9851,
    "pubmed_abstracts": 0.9919, "uspto_backgrounds": 0.9912,
}  # fmt: skip
BEST_SHARE = 0.8909  # of Pile-CC in the published optimum
PILE = {  # share of tokens by domain
    "arxiv": 0.11328527, "freelaw": 0.07960865, "nih_exporter": 0.00391349, "pubmed_central": 0.1853759, "wikipedia_en": 0.05108136,
    "dm_mathematics": 0.01596293, "github": 0.10175077, "philpapers": 0.00370752, "stackexchange": 0.06652935,
    "enron_emails": 0.00175077, "gutenberg_pg_19": 0.02708548, "pile_cc": 0.23686921, "ubuntu_irc": 0.01184346, "europarl": 0.00792997,
    "hackernews": 0.00803296, "pubmed_abstracts": 0.03882595, "uspto_backgrounds": 0.04644696,
}  # fmt: skip


def mixtures(data: pathlib.Path, part: str, target: str) -> table.Mixtures:
    """Reads the mixtures of a part, such as `train` and `1m`, with the losses on one validation set."""
    kind, size = part.split()
    folder = data / "regmix"
    shares, losses = (tables.read(folder / f"{kind}_{what}_{size}.csv") for what in ("mixture", "pile_loss"))
    return table.mixtures(table.joined(shares, losses, part), "train_the_pile_*", f"metric/the_pile_{target}_val_loss", part)


def correlation(data: pathlib.Path, target: str, model: str, part: str = "test 1m") -> float:
    """Returns the rank correlation of predicted and measured losses over held-out mixtures."""
    train = mixtures(data, "train 1m", target)
    return optimum.rank_correlation(MODELS[model].fit(train.share, train.loss), mixtures(data, part, target))


def rank_of(fitted: Fitted, data: pathlib.Path, size: str) -> float:
    """Returns the rank correlation over the held-out mixtures of models of another size."""
    return optimum.rank_correlation(fitted, mixtures(data, f"test {size}", TARGET))


def run(data: pathlib.Path) -> Replication:
    ranks = {name: correlation(data, name, "process") for name in PUBLISHED}
    checks: list[Check] = [at_least(f"{name}: rank correlation", ranks[name], value, value) for name, value in PUBLISHED.items()]
    train = mixtures(data, "train 1m", TARGET)
    fitted = MODELS["process"].fit(train.share, train.loss)
    larger = [f"{rank_of(fitted, data, size):.4f} at {size}" for size in ("60m", "1B")]
    linear = correlation(data, TARGET, "linear")
    made = optimum.best_mixture(train, "process", TARGET, {}, level=0.95, centre=table.about(train, PILE))
    share = made.shares[TARGET]
    checks += [
        within(f"{TARGET}: its share of the optimum", share.value, BEST_SHARE, 0.05, BEST_SHARE),
        at_least(f"{TARGET}: the published share less the 95% interval's lower end", BEST_SHARE - (share.low or np.nan), 0.0),
    ]
    low, high = share.low or np.nan, share.high or np.nan
    notes = (
        f"the order of losses on {TARGET} by the 1M models' process holds for larger ones: {' and '.join(larger)}; linear {linear:.4f}",
        f"the optimum has {share.value:.3f} of {TARGET} ({low:.3f} to {high:.3f} at 95%)",
        "a linear model puts the optimum on a domain of which the runs held less than 1%: it orders mixtures and does not find the best",
    )
    return Replication(NAME, checks=tuple(checks), notes=notes)
