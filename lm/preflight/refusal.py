"""Compilers' errors when a program does not fit (imports no jax)."""

import re
from typing import Optional

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SIZE = r"([\d.]+)\s?([KMGT]?)i?B?"
# libtpu counts temporaries alone before it places buffers, and everything once it does; XLA's rematerialisation on GPUs never refuses.
FORMS = (
    (rf"temporaries \({SIZE}\) exceeds available HBM", "temporaries"),
    (rf"[Uu]sed {SIZE} of {SIZE} hbm", "total"),
    (rf"[Oo]ut of memory.*?(?:allocate|allocating|requires?|needs?) {SIZE}", "allocation"),
)


def out_of_memory(message: str) -> Optional[dict]:
    """Returns {"what", "bytes", "said"} of an out-of-memory error, with bytes None where it gives no figure; None for other errors."""
    if "RESOURCE_EXHAUSTED" not in message and "out of memory" not in message.lower():
        return None
    said = " ".join(message.split())[:400]
    for form, what in FORMS:
        found = re.search(form, message, re.DOTALL)
        if found:
            return {"what": what, "bytes": int(float(found.group(1).rstrip(".")) * UNITS[found.group(2)]), "said": said}
    return {"what": "unknown", "bytes": None, "said": said}
