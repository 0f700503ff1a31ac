"""Held-out likelihoods in words (imports no jax)."""

from typing import Any

from lm.errors import counted


def in_words(found: dict[str, Any], digits: int = 4) -> str:
    """Says an evaluator's result in one line: of whole documents per byte and token, of pairs per target and label."""

    lost = f"; its tokens lose {found['lost_bytes']:.2%} of the text's bytes" if found.get("lost_bytes") else ""

    def nats(name: str, unit: str) -> str:
        return f"{found[name]:.{digits}f} {unit}"

    if "nats_per_byte" in found:
        per = (nats("nats_per_byte", "nats/byte"), nats("bits_per_byte", "bits/byte"), nats("nats_per_token", "nats/token"))
        return f"{', '.join(per)} on {counted(found['documents'], 'document')}, {counted(found['bytes'], 'byte')}{lost}"
    targets = f"{nats('nats_per_token', 'nats/target')} on {counted(found['tokens'], 'target')} in {counted(found['rows'], 'row')}{lost}"
    if "label_nats" not in found:
        return targets
    return f"{targets}; {nats('label_nats', 'nats/label')}, {found['label_accuracy']:.1%} right, on {counted(found['labels'], 'label')}"
