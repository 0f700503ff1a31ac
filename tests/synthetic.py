"""Studies made from a known law: rows as a study would have written them, with seed noise of a known size."""

import math

import numpy as np

from lm.analysis import runs
from lm.scaling.runs import Runs
from lm.study.rows import Row

LAW = (25.0, 88.0, 0.8, 0.35, 0.35)  # A, B, E, alpha, beta: about the scale of the default study, nats per byte
BUDGETS = (2e11, 5e11, 1.3e12, 3.2e12)
WIDTHS = ((16, 20, 24, 32, 40, 48, 56), (16, 24, 32, 40, 48, 64, 80), (24, 32, 40, 48, 64, 80, 96), (24, 40, 48, 64, 80, 96, 112))


def true_loss(law, n, d):
    a, b, e, alpha, beta = law
    return e + a / n**alpha + b / d**beta


def params_of(width):
    blocks, head = 32 * width**2, 256 * width
    return {"total": blocks + 2 * head + 5 * width, "non_embedding": blocks + head + 5 * width, "matmul": blocks + head, "head": head}


def row(width, budget, seed=0, *, law=LAW, sigma=0.0, role="grid", factor=1.0, random=None, stage=0, penalty=0.0, **changes):
    """One run. `penalty`: relative loss added."""
    params = params_of(width)
    per_token = {"6nd": 6.0 * params["total"], "matmul_causal": 6.0 * params["matmul"] + 12 * 2 * 64 * 2 * width}
    per_token["matmul_full"] = 6.0 * params["matmul"] + 12 * 2 * 128 * 2 * width
    tokens = math.floor(budget / per_token["matmul_causal"] / 512) * 512
    noise = 0.0 if random is None else sigma * random.standard_normal()
    loss = true_loss(law, params["matmul"], tokens) * math.exp(noise + penalty)
    curve = []
    for share in np.geomspace(0.02, 1, 16):
        d = tokens * float(share)
        point = {"step": int(d / 512), "tokens": d, "flops": d * per_token["matmul_causal"], "decayed": share > 0.7}
        curve.append(point | {"lr_ratio": 1.0 if share <= 0.7 else 0.5, "nats_per_byte": 1.02 * true_loss(law, params["matmul"], d)})
    fields = {
        "id": f"{role}-{width}-{budget:.3g}-{seed}-{factor:g}", "role": role, "stage": stage, "budget": budget, "seed": seed,
        "status": "completed", "reason": None, "params": params, "tokens": tokens, "bytes": tokens,
        "flops": {k: v * tokens for k, v in per_token.items()}, "loss": loss, "steps": tokens // 512, "batch_size": 4,
        "sequence_length": 128, "learning_rate": 0.01 * factor, "learning_rate_factor": factor, "curve": tuple(curve),
        "shape": {"d_model": width, "num_layers": 2, "num_heads": width // 8, "head_dim": 16},
    }  # fmt: skip
    return Row(**(fields | changes))


def study(law=LAW, sigma=0.0, seed=0, widths=WIDTHS, budgets=BUDGETS, replicas=True, brackets=False, classes=None):
    """Grid, three seeds at every cell of the smallest budget and three of the next, and brackets whose rule is 10% off the best rate."""
    random = np.random.default_rng(seed)
    rows = []
    for i, (budget, sizes) in enumerate(zip(budgets, widths, strict=True)):
        common = {"law": law, "sigma": sigma, "random": random, "stage": int(i == len(budgets) - 1)}
        extra = classes or {}
        rows += [row(w, budget, penalty=extra.get(w, 0.0), **common) for w in sizes]
        repeated = (sizes if i == 0 else sizes[2:5] if i == 1 else ()) if replicas else ()
        rows += [row(w, budget, s, role="seed", penalty=extra.get(w, 0.0), **common) for w in repeated for s in (1, 2)]
        chosen = {0: (sizes[0], sizes[-1]), 1: (sizes[3],)}.get(i, ()) if brackets else ()
        for w in chosen:
            for factor in (0.5, 2.0):
                gap = 0.03 * ((math.log(factor) - 0.2) ** 2 - 0.2**2)
                rows.append(row(w, budget, role="bracket", factor=factor, penalty=gap, **common))
    return rows


def table(rows, n="matmul", c="matmul_causal") -> Runs:
    """The table of runs of a study planned in matmul + causal attention."""
    return runs.runs_of(rows, n, c, "matmul_causal")


def cells(rows, n="matmul", c="matmul_causal") -> Runs:
    return table(rows, n, c).cells()
