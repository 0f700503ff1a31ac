"""Comparisons: known differences are found, others at the stated rate only, and nothing is said of what has not trained."""

import dataclasses
import json
import random
import re

import fake_train
import pytest
import small_study

from lm.analysis import paired
from lm.analysis.paired import Run, compare
from lm.errors import UserError
from lm.report import comparison as page_of
from lm.scaling import results
from lm.study import directory, plan, worker
from lm.study.comparison import Judgement, Published

SEEDS = (0, 1, 2)
JUDGEMENT = Judgement(factor=2.0, margin=0.5)


def runs(losses: dict[str, list[float]], group="g", entropy=5.0, **changes) -> list[Run]:
    """A run for each loss of each variant; the seeds count from 0."""
    shared = {"targets": 1000, "params": {"total": 10}, "flops": {"matmul_causal": 100.0, "xla": None}, "pairs": 50.0, "steps": 5}
    shared |= {"status": "completed", "reason": None, "seconds": {"total": 1.0}, "curve": (), "environment": {}, "entropy": entropy}
    return [
        Run(**(shared | {"id": f"{name}{seed}", "group": group, "variant": name, "seed": seed, "loss": loss} | changes))
        for name, members in losses.items()
        for seed, loss in enumerate(members)
    ]


def noisy(generator, means, sd, shared=0.0, seeds=SEEDS):
    """Losses of variants with means, noise of their own, and noise that a seed gives all of them."""
    common = [generator.gauss(0, shared) for _ in seeds]
    return {name: [mean + c + generator.gauss(0, sd) for c in common] for name, mean in means.items()}


def test_a_known_difference_is_found_with_its_size_and_sign():
    generator = random.Random(1)
    found = [compare(runs(noisy(generator, {"a": 2.0, "b": 2.3}, 0.02)), JUDGEMENT).pairs[0] for _ in range(200)]
    assert sum(pair.better == "a" for pair in found) > 195
    assert sum(pair.better == "b" for pair in found) == 0
    assert sum(pair.difference for pair in found) / len(found) == pytest.approx(-0.3, abs=0.005)
    # sd of a difference is sqrt(2) times that of a run; the mean of a sample's sd of three is 0.886 of it
    assert sum(pair.paired_sd for pair in found) / len(found) == pytest.approx(0.02 * 2**0.5 * 0.886, rel=0.1)


def test_noise_that_variants_share_leaves_their_differences():
    generator = random.Random(2)
    (pair,) = compare(runs(noisy(generator, {"a": 2.0, "b": 2.1}, 0.001, shared=0.03)), JUDGEMENT).pairs
    assert pair.paired_sd < 0.005 < pair.seed_sd
    assert pair.difference == pytest.approx(-0.1, abs=0.005)
    assert pair.noise == pair.seed_sd  # and yet an order inside two standard deviations of the runs themselves is not claimed
    (near,) = compare(runs(noisy(generator, {"a": 2.0, "b": 2.01}, 0.001, shared=0.03)), JUDGEMENT).pairs
    assert near.state == "not resolved"


@pytest.mark.parametrize("seeds", [3, 5])
def test_without_a_difference_orders_are_resolved_at_the_stated_rate_and_no_more(seeds):
    generator = random.Random(3)
    names = ("a", "b")
    losses = [noisy(generator, dict.fromkeys(names, 2.0), 0.1, seeds=range(seeds)) for _ in range(2000)]
    made = [compare(runs(each, entropy=9.0), JUDGEMENT) for each in losses[:1]]
    stated = made[0].false_rate
    assert stated == paired.false_rate(seeds, 2.0)
    called = sum(abs(d) > 2 * max(p, s) for d, p, s in (paired.spread(each["a"], each["b"]) for each in losses))
    assert called / len(losses) == pytest.approx(stated, abs=4 * (stated / len(losses)) ** 0.5)
    assert stated <= {3: 0.074, 5: 0.011}[seeds] + 0.001  # of differences alone: 2 P(t > 2 sqrt(n))


def test_of_what_has_not_trained_no_order_is_claimed():
    losses = {"a": [2.0, 2.0, 2.01], "b": [4.2, 4.2, 4.51]}
    made = compare(runs(losses), JUDGEMENT)
    assert [v.trained for v in made.variants] == [True, False]  # one run of b is less than half a nat below 5
    assert [(pair.state, pair.better) for pair in made.pairs] == [("not trained", None)]
    assert paired.sentences(made, made.groups[0]) == ["Not trained: b. No order is claimed."]
    assert "(not trained)" in paired.render(made, None)
    losses["b"][2] = 4.49
    assert compare(runs(losses), JUDGEMENT).pairs[0].better == "a"


def test_groups_do_not_mix():
    made = compare(runs({"a": [2.0, 2.01]}) + runs({"a": [1.0, 1.01], "b": [1.5, 1.51]}, group="h", entropy=4.0), JUDGEMENT)
    assert [(pair.group, pair.a, pair.b) for pair in made.pairs] == [("h", "a", "b")]
    assert [group.entropy for group in made.groups] == [5.0, 4.0]


def test_losses_on_other_targets_are_refused():
    other = runs({"b": [2.0, 2.0]}, entropy=4.9)
    with pytest.raises(UserError, match="group g"):
        compare(runs({"a": [2.0, 2.0]}) + other, JUDGEMENT)
    with pytest.raises(UserError, match="group g"):
        compare(runs({"a": [2.0]}, status="failed"), JUDGEMENT)


def test_seeds_that_one_variant_lacks_are_left_out_and_one_seed_decides_nothing():
    found = runs({"a": [2.0, 2.1, 2.2], "b": [2.5, 2.6, 2.7]})
    found[4] = dataclasses.replace(found[4], status="diverged", reason="loss is nan")
    made = compare(found, JUDGEMENT)
    assert made.pairs[0].seeds == 2
    assert made.pairs[0].difference == pytest.approx(-0.5)
    assert [(e.variant, e.seed, e.reason) for e in made.excluded] == [("b", 1, "diverged: loss is nan")]
    assert compare(runs({"a": [2.0], "b": [2.5]}), JUDGEMENT).pairs[0].state == "too few seeds"


def test_orders_are_set_beside_the_published_ones():
    scores = {"a": (9.0, 9.0, 9.0), "b": (8.0, 8.0, 9.1), "c": (8.1, 7.9, 9.0), "d": (9.0, 9.0, 9.0)}
    published = Published("p", ("x", "y", "z"), (0.2, 0.2, 0.2), tuple(("g", *row) for row in scores.items()))
    losses = {"a": [2.0, 2.0, 2.0], "b": [2.5, 2.5, 2.51], "c": [1.5, 1.5, 1.51], "d": [2.0, 2.01, 1.99]}
    made = compare(runs(losses), JUDGEMENT, published)
    found = {(pair.a, pair.b): (paired.verdict(pair), pair.wins) for pair in made.pairs}
    assert found["a", "b"] == ("agrees", (2, 0))
    assert found["a", "c"] == ("disagrees", (2, 0))
    assert found["b", "c"] == ("only here", (0, 0))
    assert found["a", "d"] == ("in neither", (0, 0))
    assert found["b", "d"] == ("agrees", (0, 2))
    words = paired.render(made, published)
    assert "Against what is published: c over a" in words
    assert results.from_json(results.to_json(made)) == made


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A comparison planned, and trained by one worker."""
    root = tmp_path_factory.mktemp("comparison") / "s"
    directory.write(plan.make(small_study.comparison(), small_study.DATA), root, root.parent / "data")
    worker.work(root, fake_train.train, log=lambda line: None)
    return root


def test_variants_differ_in_their_configuration_and_share_seeds_and_text():
    cells = small_study.comparison().cells()
    assert len({cell.id("text") for cell in cells}) == len(cells) == 9
    by_seed = {seed: [cell for cell in cells if cell.config.seed == seed] for seed in SEEDS}
    assert all(len(members) == 3 for members in by_seed.values())
    assert len({cell.shape_key for cell in cells}) == 3  # a seed compiles nothing new
    text_of = {json.dumps(dataclasses.asdict(cell.config.data), default=str) for cell in cells}
    assert len(text_of) == 1


def test_runs_are_read_from_the_directory(finished):
    made = compare(paired.read(finished), JUDGEMENT, small_study.comparison().published)
    assert [v.variant for v in made.variants] == ["encoder_decoder", "prefix_lm", "decoder"]
    for v in made.variants:
        assert v.loss == pytest.approx(fake_train.PAIRS[v.variant], abs=0.08)
        assert v.flops_per_pair["matmul_causal"] > 1e6
    assert {(pair.a, pair.b): pair.better for pair in made.pairs}["encoder_decoder", "decoder"] == "encoder_decoder"


def test_other_text_and_equal_names_are_refused():
    study = small_study.comparison()
    first, second, third = study.variants
    twice = dataclasses.replace(study, variants=(first, dataclasses.replace(second, name=first.name), third))
    with pytest.raises(UserError, match="encoder_decoder of group denoising"):
        twice.cells()
    data = dataclasses.replace(third.config.data, sequence_length=32)
    other = dataclasses.replace(third, config=dataclasses.replace(third.config, data=data))
    with pytest.raises(UserError, match=r"decoder .*encoder_decoder .*sequence_length: 64 -> 32"):
        dataclasses.replace(study, variants=(first, second, other)).cells()


def test_a_grid_is_no_comparison(tmp_path):
    small_study.planned(tmp_path / "s")
    with pytest.raises(UserError, match="grid small"):
        paired.read(tmp_path / "s")


def test_the_page_stands_alone_and_holds_every_run_and_figure(finished):
    published = small_study.comparison().published
    found = paired.read(finished)
    found[0] = dataclasses.replace(found[0], status="diverged", reason="loss is nan", loss=None)
    page = page_of.write(finished, compare(found, JUDGEMENT, published), found, published).read_text(encoding="utf-8")
    assert all(page.count(f"<td>{run.id}</td>") == 1 for run in found)
    assert "<td>diverged: loss is nan</td>" in page
    assert page.count("<figure ") == len(list((finished / "figures").glob("*.png"))) == 3
    visible = re.sub(r"data:image[^\"]*|<pre>.*?</pre>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(?:nan|None|inf|True|False)\b(?!</td>)", visible.replace("loss is nan", ""))
    assert not re.search(r"https?://|<link|<script|@import", visible)
    assert "a paper: scores after fine-tuning" in visible
    assert "80.00" in visible
