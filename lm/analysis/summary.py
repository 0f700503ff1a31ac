"""Renders a study's results in a few lines of text, from what `fit --json` prints (imports no jax)."""

from typing import Any, Optional

from lm.scaling.words import answer

NAMES = {"envelope": "approach 1 (envelope)", "isoflop": "approach 2 (IsoFLOP)", "parametric": "approach 3 (parametric)"}


def render(made: dict[str, Any]) -> str:
    """Renders the exponents by the three approaches, sigma(C), the forecast's error, exclusions and cautions."""
    lines = [f"{made['study']}: N* ~ C^a, D* ~ C^b"]
    for name, title in NAMES.items():
        found = made["exponents"][name]
        exponents = f"a {answer(found['a'])}   b {answer(found['b'])}" if "a" in found else answer(found)
        lines.append(f"  {title:24s} {exponents}")
    lines += [f"  sigma at C {float(budget):.3g}: {answer(sigma, percent=True)}" for budget, sigma in made["sigma"].items()]
    lines.append(f"  forecast: {_forecast(made['forecast'])}")
    lines += _oracle(made["oracle"]) if "oracle" in made else []
    lines += [f"  excluded: {_words(item)}" for item in made["excluded"]]
    lines += [f"  caution: {item['message']}" for item in made["cautions"]]
    return "\n".join(lines)


def _oracle(made: dict[str, Any]) -> list[str]:
    """Sets E against the oracle's loss, and the exponents beside those of ideal learners."""
    lines = [f"  {made['verdict']}"]
    for name in ("alpha", "beta"):
        above = answer(made["reducible"][name])
        lines.append(f"  {name} {answer(made[name])}; of the loss less the oracle's {above}; of an ideal learner {made['ideal'][name]:.2f}")
    return lines


def _forecast(made: Optional[dict[str, Any]]) -> str:
    if made is None:
        return "none, or not scored yet"
    if made.get("type") == "Refusal":
        return answer(made)
    error = f"mean error {made['mean_absolute_error']:.2%} over {made['cells']} cells, aim {made['aim']:.2%}"
    return f"{error}; {made['covered']} inside their intervals; baselines: {_baselines(made)}"


def _baselines(made: dict[str, Any]) -> str:
    return f"power law of L* {made['power_law_error']:.2%}, last budget {made['last_budget_error']:.2%}"


def _words(item: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in item.items() if key != "type" and value is not None)
