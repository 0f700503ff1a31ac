"""Renders a backtest as lines of text, or as the table of the documentation (imports no jax)."""

from typing import TYPE_CHECKING

from lm.errors import counted

if TYPE_CHECKING:
    from lm.scaling.backtest.backtest import Backtest, MethodScores

HEADER = ("method", "error", "bias", "50%", "80%", "95%", "score", "relative", "CRPS", "80% at 2x", "4x", "8x", "30x")


def render(made: "Backtest") -> str:
    """Renders what was cut and one table of scores per quantity."""
    lines = []
    for table in made.tables:
        used = [cut for cut in table.cuts if cut.refused is None]
        lines.append(f"{table.source}: {counted(table.rows, 'row')}, {len(used)} of {counted(len(table.cuts), 'cut')}")
        lines += [f"  up to C {cut.flops:.3g}: {cut.refused.reason}" for cut in table.cuts if cut.refused]
    for quantity in dict.fromkeys(line.quantity for line in made.lines):
        rows = [line for line in made.lines if line.quantity == quantity]
        lines += [
            "",
            f"{quantity} ({counted(rows[0].families, 'family', 'families')} of tables)",
            *_aligned([HEADER, *(cells(line) for line in rows)]),
        ]
    return "\n".join(lines)


def markdown(made: "Backtest") -> str:
    """Renders the tables of the documentation."""
    lines = []
    for quantity in dict.fromkeys(line.quantity for line in made.lines):
        rows = [cells(line) for line in made.lines if line.quantity == quantity]
        lines += [f"**{quantity}**", "", *(f"| {' | '.join(row)} |" for row in (HEADER, ("---",) * len(HEADER), *rows)), ""]
    return "\n".join(lines)


def cells(line: "MethodScores") -> tuple[str, ...]:
    """Returns the cells of one row."""
    one = line.tested
    far = [f"{line.held_by_factor[name]:.0%}" if name in line.held_by_factor else "" for name in ("2", "4", "8", "30")]
    held = [f"{share:.0%}" for share in one.held]
    return (
        line.method, f"{one.error:.2%}", f"{one.bias:+.2%}", *held, f"{100 * one.score:.1f}",
        "-" if line.relative is None else f"{line.relative:.2f}", f"{100 * one.crps:.2f}", *far,
    )  # fmt: skip


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        columns = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  " + "  ".join([first.ljust(widths[0]), *columns]))
    return lines
