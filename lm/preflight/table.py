"""Results of several preflights side by side, as text (imports no jax)."""

from typing import Any, Optional

from lm.errors import counted

HEADINGS = ("step", "compute", "memory", "network", "bound on MFU", "GB of", "device", "compiled in")


def table(rows: list[tuple[str, Optional[dict[str, Any]], Optional[str]]]) -> str:
    """Returns one line per (name, result, error). Seconds and the bound are estimates."""
    lines = [("", *HEADINGS)] + [(name, *_cells(result)) for name, result, _ in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for name, *cells in lines:
        padded = [name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))]
        text.append("  ".join(padded).rstrip())
    text += ["seconds per step and the bound on MFU (attention counted as causal) are estimates from peak rates"]
    failed: dict[str, list[str]] = {}  # what fails for one reason says it once
    for name, _, error in rows:
        if error:
            failed.setdefault(error, []).append(name)
    return "\n".join(text + [f"{_several(names)}: {error}" for error, names in failed.items()])


def _several(names: list[str]) -> str:
    return names[0] + (f" and {counted(len(names) - 1, 'other')}" if len(names) > 1 else "")


def _cells(result: Optional[dict[str, Any]]) -> tuple[str, ...]:
    if result is None:
        return ("no result", *[""] * (len(HEADINGS) - 1))
    sizes, seconds = result["bytes_per_device"], f"{result['compile_seconds']:.0f} s"
    device = f"{sizes['memory'] / 1e9:.1f}"
    times = result["estimate"]
    if times is None:  # the compiler gave up
        needed = "" if sizes["needed"] is None else f"{sizes['needed'] / 1e9:.1f}"
        return ("does not fit", "", "", "", "", needed, device, seconds)
    terms = [f"{times[f'{name}_seconds']:.3g} s" for name in ("step", "compute", "memory", "network")]
    if not result["fits"]:
        terms[0] = "does not fit"
    return (*terms, f"{100 * times['mfu_bound']['matmul_causal']:.1f}%", f"{sizes['peak'] / 1e9:.3g}", device, seconds)
