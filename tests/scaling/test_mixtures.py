"""Models of mixtures find what made their data."""

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling.__main__ import main
from lm.scaling.mixtures import optimum, table
from lm.scaling.mixtures.models import MODELS, Exponential, _evidence
from lm.scaling.results import from_json

WEIGHTS = np.array([-1.0, 0.3, 0.8])


@pytest.fixture
def few_candidates(monkeypatch):
    """Functions are drawn over 600 candidates: time grows with their cube, and three domains need fewer than RegMix's seventeen."""
    monkeypatch.setattr(optimum, "_DRAWN", 600)


def exponential(rows=60, sigma=0.0):
    """Mixtures of three domains under the exponential law with c = 2 and k = 1."""
    random = np.random.default_rng(0)
    share = random.dirichlet(np.ones(3), rows)
    loss = (2 + np.exp(share @ WEIGHTS)) * np.exp(sigma * random.standard_normal(rows))
    return table.Mixtures(("web", "code", "mail"), share, loss)


def bowl(rows=80):
    """The loss is least at shares (.6, .3, .1)."""
    random = np.random.default_rng(1)
    share = random.dirichlet(np.ones(3), rows)
    loss = 3 + np.sum((np.sqrt(share) - np.sqrt([0.6, 0.3, 0.1])) ** 2, axis=1)
    return table.Mixtures(("web", "code", "mail"), share, loss * np.exp(1e-2 * random.standard_normal(rows)))


def test_the_exponential_law_comes_back():
    data = exponential()
    fitted = Exponential().fit(data.share, data.loss)
    np.testing.assert_allclose(fitted.parameters, [np.log(2), *WEIGHTS], atol=1e-6)
    at = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_allclose(np.exp(fitted.predict(at)), 2 + np.exp(at @ WEIGHTS), rtol=1e-8)


def test_the_gradient_of_the_evidence_is_its_slope():
    data = bowl(30)
    root, y = np.sqrt(data.share), np.log(data.loss) - np.log(data.loss).mean()
    hyper = np.array([-0.3, 0.2, 0.1, -3.0, -3.5, -5.0])
    steps = 1e-5 * np.eye(6)
    slope = [(_evidence(hyper + step, root, y)[0] - _evidence(hyper - step, root, y)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(_evidence(hyper, root, y)[1], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize("model", MODELS)
def test_every_model_orders_mixtures_of_a_smooth_law(model):
    data = exponential(sigma=1e-3)
    made = optimum.best_mixture(data, model, "loss", {"held": exponential(rows=40)}, draws=20)
    assert made.held[0].spearman > 0.99
    assert max(made.shares, key=lambda name: made.shares[name].value) == "web"


class Bowls:
    """A fitted model that is least at `CENTRES[0]`, of which the data also allow bowls that are least at the others."""

    CENTRES = np.array([[0.5, 0.3, 0.2], [0.54, 0.3, 0.16], [0.48, 0.26, 0.26], [0.47, 0.34, 0.19]])

    def predict(self, share):
        return self.draws(share, 0, 0)[0]

    def draws(self, share, count, seed):
        return np.sum((share - self.CENTRES[1 if count else 0 :, None]) ** 2, axis=-1)


def test_every_function_has_its_own_best_mixtures():
    found, others = optimum.best(bowl(), Bowls(), seed=0, level=0.8, draws=3)
    np.testing.assert_allclose([found, *others], Bowls.CENTRES, atol=0.005)


@pytest.mark.usefixtures("few_candidates")
def test_the_process_finds_a_minimum_within_the_simplex_and_its_interval_holds_it():
    made = optimum.best_mixture(bowl(), "process", "loss", {}, level=0.95)
    for name, truth in (("web", 0.6), ("code", 0.3), ("mail", 0.1)):
        assert made.shares[name].low <= truth <= made.shares[name].high
        assert made.shares[name].high - made.shares[name].low < 0.2
    assert made.loss.value == pytest.approx(3.0, rel=1e-2)


def test_draws_of_the_process_have_its_mean_and_widen_away_from_the_data():
    data = bowl(40)
    inner = np.all(data.share > 0.15, axis=1)
    fitted = MODELS["process"].fit(data.share[inner], data.loss[inner])
    at = np.array([data.share[inner][0], [0.0, 0.0, 1.0]])
    drawn = fitted.draws(at, 2000, 0)
    np.testing.assert_allclose(drawn.mean(axis=0), fitted.predict(at), atol=5 * drawn.std(axis=0).max() / np.sqrt(2000))
    assert drawn.std(axis=0)[1] > 5 * drawn.std(axis=0)[0]


def test_the_verb_mixture_reads_two_tables_and_refuses_shares_that_are_none(tmp_path, capsys):
    data = exponential(sigma=1e-3)
    shares = ["index,mix_web,mix_code,mix_mail"] + [f"{i},{','.join(map(str, row))}" for i, row in enumerate(data.share.tolist())]
    losses = ["index,loss"] + [f"{i},{loss}" for i, loss in enumerate(data.loss.tolist())]
    files = {
        "mix.csv": shares, "loss.csv": losses, "other.csv": [losses[0], *losses[:0:-1]], "nan.csv": [*losses[:3], "2,nan", *losses[4:]],
        "few.csv": shares[:4], "few_losses.csv": losses[:4], "negative.csv": [shares[0], "0,1.1,-0.2,0.1", *shares[2:]],
    }  # fmt: skip
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    mix, loss = str(tmp_path / "mix.csv"), str(tmp_path / "loss.csv")
    options = ["--shares", "mix_*", "--loss", "loss", "--model", "exponential", "--draws", "20"]
    assert main(["mixture", mix, loss, *options, "--held-out", mix, loss, "--json"]) == 0
    made = from_json(capsys.readouterr().out)
    assert made.held[0].spearman > 0.999
    assert set(made.shares) == {"web", "code", "mail"}
    assert main(["mixture", mix, loss, *options]) == 0
    out, err = capsys.readouterr()
    assert "web" in out
    assert "caution" not in err
    assert main(["mixture", mix, loss, "--shares=mix_*", "--loss=loss", "--model=linear", "--draws=20"]) == 0
    assert "caution" in capsys.readouterr().err  # lowest at a corner, wherever the runs were
    for wrong, said in (
        ([mix, str(tmp_path / "other.csv"), *options], "'index'"),
        ([mix, loss, "--shares", "in*", "--loss", "loss"], "'in\\*'"),
        ([mix, str(tmp_path / "nan.csv"), *options], "mixture 3.*nan"),
        ([str(tmp_path / "few.csv"), str(tmp_path / "few_losses.csv"), *options], "3 mixtures of 3 domains"),
        ([str(tmp_path / "negative.csv"), loss, *options], "mixture 1.*-0.2"),
    ):
        with pytest.raises(UserError, match=said):
            main(["mixture", *wrong])
