"""Renders a study's results in a few lines of text, from what `fit --json` prints (imports no jax)."""

from typing import Any, Optional

from lm.errors import counted
from lm.scaling.words import aligned, answer, digits, short, si

# rows of the table of exponents: key in "exponents", and the ending of the names of a and b there
APPROACHES = {
    "1, envelope of curves": ("envelope", ""),
    "2, IsoFLOP minima": ("isoflop", ""),
    "3, law, C = k N D": ("parametric", ""),
    "3, law, C as counted": ("parametric", "_counted"),
}
Json = Optional[dict[str, Any]]  # of an Estimate or a Refusal


def render(made: dict[str, Any]) -> str:
    """Renders the exponents by the three approaches, what to train next, sigma(C), the forecast's error, exclusions and cautions."""
    reasons = _Reasons()
    exponents, recommended = _exponents(made["exponents"], reasons), _recommended(made["recommended"], reasons)
    lines = [f"{made['study']}: N* ~ C^a, D* ~ C^b", *exponents, *recommended, *reasons.lines()]
    lines += _sigma(made["sigma"])
    lines.append(f"  forecast: {_forecast(made['forecast'])}")
    lines += _oracle(made["oracle"]) if "oracle" in made else []
    lines += [f"  excluded: {_words(item)}" for item in made["excluded"]]
    messages = dict.fromkeys(item["message"] for item in made["cautions"])
    lines += [f"  caution: {text}" for text in messages if not any(text in line for line in lines)]  # a refusal may have said it
    return "\n".join(short(line) for line in lines)


def _exponents(found: dict[str, Any], reasons: "_Reasons") -> list[str]:
    """Returns a table of a and b by each approach with their intervals of both kinds."""
    rows, levels = [], set()
    for name, (key, ending) in APPROACHES.items():
        made = found[key]
        a, b = (made if made.get("type") == "Refusal" else made[exponent + ending] for exponent in ("a", "b"))
        for exponent, value in (("a, b", a),) if a == b else (("a", a), ("b", b)):
            own = made.get(f"{exponent}{ending}_with_error")
            reasons.add(f"approach {name[0]}", value)
            levels |= {one["level"] for one in (value, own) if one and one["type"] == "Estimate" and one["low"] is not None}
            rows.append(["" if exponent == "b" else name, exponent, _number(value), _ends(value), _number(own, _ends(own))])
    level = f" ({levels.pop():.0%})" if len(levels) == 1 else ""
    head = ["approach", "exponent", "value", f"statistical{level}", f"with the law's own error{level}"]
    return aligned(head, rows, left=(0, 1))


def _recommended(found: list[dict[str, Any]], reasons: "_Reasons") -> list[str]:
    """Returns a table of the models to train beyond the largest budget, with the intervals that hold the law's own error."""
    if not found:
        return []
    rows = []
    for one in found:
        for name in ("n", "d", "loss"):
            reasons.add("to train next", one[name])
        counts = (_number(one[name], _ends(one[name], _count), _count) for name in ("n", "d"))
        loss = _number(one["loss"], _ends(one["loss"], _four), _four)
        rows.append([f"{one['factor']:g} times the largest budget", f"{one['flops']:.3g}", *counts, loss])
    head = ["to train next, at", "C", "N*", "D*", "loss of one run"]
    by = next((one for one in found if one["by"]), None)
    methods = [] if by is None else [f"N* by approach {by['by']} ({_method(by['n'])}); loss by {_method(by['loss'])}"]
    return [*aligned(head, rows, left=(0,)), *(f"    {method}" for method in methods)]


def _method(value: dict[str, Any]) -> str:
    return value.get("method", "none")


def _sigma(found: dict[str, Any]) -> list[str]:
    """Returns a line for each budget; one for all where they are refused for one reason."""
    said = {budget: answer(sigma, percent=True) for budget, sigma in found.items()}
    if len(set(said.values())) == 1 and next(iter(found.values()))["type"] == "Refusal":
        return [f"  sigma: {next(iter(said.values()))}"]
    return [f"  sigma at C {float(budget):.3g}: {text}" for budget, text in said.items()]


class _Reasons:
    """The reasons why numbers or intervals are missing, each once, with what it holds for."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, None]] = {}

    def add(self, name: str, value: Json) -> None:
        refused = value if value and value["type"] == "Refusal" else value and value["refused"]
        if refused:
            self._found.setdefault(refused["reason"], {})[name] = None

    def lines(self) -> list[str]:
        every = list(self._found)
        kept = [reason for reason in every if not any(reason != other and other in reason for other in every)]
        return [f"  {', '.join(self._found[reason])}: {reason}" for reason in kept]


def _number(value: Json, ends: str = "", form: Any = digits) -> str:
    if value is None:
        return "-"
    if value["type"] == "Refusal":
        return "refused"
    return form(value["value"]) + (f" ({ends})" if ends and ends != "-" else "")


def _ends(value: Json, form: Any = digits) -> str:
    if value is None or value["type"] == "Refusal" or value["low"] is None:
        return "-"
    return f"{form(value['low'])} to {form(value['high'])}"


def _count(value: float) -> str:
    return si(value, 3, zeros=True)


def _four(value: float) -> str:
    return digits(value, 4)


def _oracle(made: dict[str, Any]) -> list[str]:
    """Sets E against the oracle's loss, and the exponents beside those of ideal learners."""
    lines = [f"  {made['verdict']}"]
    for name in ("alpha", "beta"):
        above = answer(made["reducible"][name])
        lines.append(f"  {name} {answer(made[name])}; of the loss less the oracle's {above}; of an ideal learner {made['ideal'][name]:.2f}")
    return lines


def _forecast(made: Json) -> str:
    if made is None:
        return "none, or not scored yet"
    if made.get("type") == "Refusal":
        return answer(made)
    error = f"mean error {made['mean_absolute_error']:.2%} over {counted(made['cells'], 'cell')}, aim {made['aim']:.2%}"
    known = {by: value if isinstance(value, (int, float)) else None for by, value in ((3, made["regret"]), (2, made["regret_isoflop"]))}
    return f"{error}; {made['covered']} inside their intervals; baselines: {_baselines(made)}; {regrets(known)}"


def regrets(found: dict[int, Optional[float]]) -> str:
    """Says by how much the loss is higher at a forecast N* than at the measured one, for each approach; None is not known."""
    shown = [f"{_little(value)} by approach {by}" for by, value in found.items() if value is not None]
    cost = " and ".join(shown) if shown else "an amount that is not known"
    return f"training at the forecast N* instead of the measured one raises the loss by {cost} (regret)"


def _little(value: float) -> str:
    return f"{value:.2%}" if value >= 1e-4 else "less than 0.01%"


def _baselines(made: dict[str, Any]) -> str:
    return f"power law of L* {made['power_law_error']:.2%}, last budget {made['last_budget_error']:.2%}"


def _words(item: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in item.items() if key != "type" and value is not None)
