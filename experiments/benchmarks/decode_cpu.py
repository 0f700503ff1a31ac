"""Decoding of a 30M-parameter decoder on this machine's cores, against transformers on PyTorch.

Run it by `python -m experiments.benchmarks.decode_cpu`. Both programs write greedily with the same random weights, turn by turn in one
process. The time that counts is the processor's, of all threads together, which other work on the machine changes little.
"""

import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, Optional

from lm.errors import Parser, UserError, run_cli

VOCABULARY, WIDTH, LAYERS, HEADS, PROMPT = 8192, 512, 8, 8, 32
BATCHES = (1, 16)
TARGET = 1.5

Writer = Callable[[int], None]  # writes the texts of a batch of so many rows


def main(argv: Optional[list[str]] = None) -> int:
    """Prints tokens per processor second of both programs, and their ratio, for each size of batch."""
    parser = Parser(prog="python -m experiments.benchmarks.decode_cpu", description="Measures decoding beside transformers on PyTorch.")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds after one of warm-up (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of each text (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.rounds < 1 or not 2 <= args.tokens <= 256:
        raise UserError("--rounds: give 1 or more; --tokens: 2 to 256")
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        raise UserError('this benchmark compares with torch and transformers, which are not installed: pip install -e ".[parity]"')
    # Idle threads of OpenMP wait asleep, so that their waiting is not counted as work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    ours, theirs = _writers(args.tokens)
    for batch in BATCHES:
        pairs = [_timed(ours, theirs, batch, args.tokens, number % 2 == 1) for number in range(args.rounds + 1)][1:]
        rates = [statistics.median(pair[side] for pair in pairs) for side in (0, 1)]
        ratios = sorted(pair[0] / pair[1] for pair in pairs)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"batch {batch:2d}: {rates[0]:6.1f} tokens/processor-s against {rates[1]:6.1f}   ratio {spread}, target {TARGET}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {args.rounds} rounds of {args.tokens} tokens after {PROMPT}")
    return 0


def _timed(ours: Writer, theirs: Writer, batch: int, tokens: int, ours_first: bool) -> tuple[float, float]:
    """Returns tokens per processor second of both; the first to go alternates."""
    rates = {}
    for name, write in sorted({"ours": ours, "theirs": theirs}.items(), reverse=not ours_first):
        start = time.process_time()
        write(batch)
        rates[name] = batch * tokens / (time.process_time() - start)
    return rates["ours"], rates["theirs"]


def _writers(tokens: int) -> tuple[Writer, Writer]:
    """Returns what writes with the same weights: this project, and transformers."""
    import jax
    import numpy as np
    import torch
    import transformers

    from lm import hf
    from lm.infer.decode import generate
    from lm.model.architectures import build
    from lm.model.execution import AS_LISTED
    from lm.model.layers import listed

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    size: dict[str, Any] = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 512, "bos_token_id": 0, "eos_token_id": 0}
    peer = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=VOCABULARY, **size)).eval()
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        config, arrays = hf.load(folder)
    model, params = build(config, AS_LISTED), listed(jax.tree.map(jax.numpy.asarray, arrays))
    prompt = np.random.default_rng(0).integers(0, VOCABULARY, PROMPT)

    def ours(batch: int) -> None:
        generate(model, params, [prompt.tolist()] * batch, max_new_tokens=tokens)

    def theirs(batch: int) -> None:
        ids = torch.from_numpy(np.tile(prompt, (batch, 1)))
        options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        with torch.no_grad():
            peer.generate(ids, attention_mask=torch.ones_like(ids), **options)

    return ours, theirs


if __name__ == "__main__":
    run_cli(main)
