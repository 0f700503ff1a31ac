"""A training function that takes no time: its losses follow a known law, so that the machinery around it can be tested.

Environment variables make it misbehave: FAKE_SECONDS (of one run), FAKE_DIVERGE and FAKE_RAISE (d_model of the runs that do), FAKE_DEAF
(to SIGTERM). FAKE_ONCE is "stop" or "hang": what the first worker does that makes the file FAKE_FILE. FAKE_HEARTBEAT (seconds).
"""

import json
import os
import signal
import time

import numpy as np

from lm import config as config_lib
from lm import files
from lm.data.objectives.shape import row_shape
from lm.model.flops import ledger
from lm.study import leases
from lm.train.config import MEASURE
from lm.train.watchdog import Watchdog

E, A, B, ALPHA, BETA = 0.9, 60.0, 900.0, 0.4, 0.45
PAIRS = {"encoder_decoder": 2.5, "prefix_lm": 2.6, "decoder": 3.0}  # loss by architecture, where an objective makes pairs
TARGETS = {"tokens": 36_000, "unigram_nats_per_token": 4.5}
leases.HEARTBEAT_SECONDS = float(os.environ.get("FAKE_HEARTBEAT", leases.HEARTBEAT_SECONDS))


def fail_once():
    """Stops or hangs the process that is the first to ask."""
    try:
        os.close(os.open(os.environ["FAKE_FILE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if os.environ["FAKE_ONCE"] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    with Watchdog(0.3):
        time.sleep(60)


def law(n: float, d: float) -> float:
    return E + A / n**ALPHA + B / d**BETA


def pairs_loss(config):
    """A loss whose noise is in part that of the seed, whatever the model: `FAKE_NOISE` of its own, and three times as much shared."""
    noise = float(os.environ.get("FAKE_NOISE", "0.01"))
    own = np.random.default_rng([int(config_lib.identity(config), 16), config.seed]).normal()
    shared = np.random.default_rng(config.seed).normal()
    return PAIRS[config.model.architecture] + noise * (own + 3 * shared)


def _curve(config, count, steps, loss):
    """Returns points on the way to `loss`: four at a constant learning rate and the end, decayed."""
    points, measure = [], MEASURE[config.likelihood]
    for share, ratio in ((0.1, 1.0), (0.2, 1.0), (0.4, 1.0), (0.7, 1.0), (1.0, 0.0)):
        tokens = int(share * steps) * config.batch_size * config.data.sequence_length
        flops = count.flops_per_token["matmul_causal"] * tokens
        value = float(loss * (1.02 - 0.02 * (ratio == 0.0)) * share**-0.1)
        points.append({"step": int(share * steps), "tokens": tokens, "flops": flops, measure: value})
        points[-1] |= {"lr_ratio": ratio, "decayed": ratio == 0.0}
    return points


def train(config, workdir):
    """Writes run.json as lm.runner does, with one line of metrics on the way."""
    count = ledger(config.model, row_shape(config.data, config.model.architecture))
    steps = config.train_tokens // (config.batch_size * config.data.sequence_length)
    record = {"schema": 1, "id": workdir.parent.name, "status": "running", "reason": None}
    files.write_json(workdir / "run.json", record)
    with open(workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": steps // 2, "loss": 2.0}) + "\n")
    if "FAKE_DEAF" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "FAKE_ONCE" in os.environ:
        fail_once()
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    if str(config.model.d_model) == os.environ.get("FAKE_RAISE"):
        raise ValueError("asked to raise")
    diverged = str(config.model.d_model) == os.environ.get("FAKE_DIVERGE")
    noise = np.random.default_rng([int(config_lib.identity(config), 16), config.seed]).normal()
    gap = np.log(config.optim.learning_rate / 1e-2) ** 2
    loss = law(count.params["matmul"], config.train_tokens) * (1 + 0.002 * gap) * np.exp(0.002 * noise)
    final = {"nats_per_byte": float(loss), "bits_per_byte": float(loss / np.log(2))}
    if config.likelihood == "pairs":
        loss = pairs_loss(config)
        final = {"nats_per_token": float(loss), **TARGETS}
    tokens = {"document": config.train_tokens, "bytes": config.train_tokens, "decoder_stream": config.train_tokens}
    record |= {
        "status": "diverged" if diverged else "completed",
        "reason": "loss is not finite at step 7" if diverged else None,
        "likelihood": config.likelihood,
        "parameters": dict(count.params),
        "tokens": tokens,
        "flops": {name: value * config.train_tokens for name, value in count.flops_per_token.items()},
        "steps": steps,
        "final": None if diverged else final,
        "curve": _curve(config, count, steps, loss),
        "environment": {
            "cores": len(os.sched_getaffinity(0)),
            "pid": os.getpid(),
            "devices": os.environ.get("JAX_NUM_CPU_DEVICES"),
            "time": time.time(),
        },
        "seconds": {"total": float(os.environ.get("FAKE_SECONDS", "0"))},
    }
    files.write_json(workdir / "run.json", record)
