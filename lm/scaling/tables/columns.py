"""Finds the columns of a table by what people call them, with the unit that a header states.

An option names a column outright. Else the column has the plain name (N, D, loss), or one of the names below, whatever its spelling:
`Params (M)`, `model/n_params` and `n-params` are all parameters. Two columns that could both be meant are refused.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Optional

from lm.errors import UserError
from lm.scaling.results import result
from lm.scaling.tables.formats import RawTable
from lm.scaling.tables.numbers import SUFFIXES

NAMES = {  # of an input: what its column may be called, in lower case with _ for other signs
    "params": "n params parameters n_params num_params nparams param_count parameter_count model_params model_size model_parameters "
    "number_of_parameters size_params total_params n_parameters num_parameters",
    "tokens": "d tokens n_tokens num_tokens ntokens token_count tokens_seen train_tokens training_tokens total_tokens tokens_trained "
    "number_of_tokens train_tokens_seen consumed_tokens",
    "loss": "loss l val_loss eval_loss valid_loss validation_loss test_loss final_loss final_val_loss nll cross_entropy eval_cross_entropy "
    "val_ce loss_val loss_eval",
    "flops": "c flops flop compute training_flops training_flop train_flops total_flops n_flops train_compute training_compute",
}
SYNONYMS = {name: tuple(words.split()) for name, words in NAMES.items()}
PLAIN = {"params": "N", "tokens": "D", "loss": "loss", "flops": "C"}
_BITS = re.compile(r"[(\[]\s*(?:in\s+)?(?:bits?|bpb|bpc|bpt)\b|\bin\s+bits?\b", re.IGNORECASE)
_PERPLEXITY = re.compile(r"[(\[]\s*(perplexity|ppl)\b", re.IGNORECASE)
_UNIT = re.compile(r"^(.*?)[\s_]*[(\[]\s*(?:in\s+)?([a-z]+)s?\s*[)\]]\s*$|^(.*?)\s+in\s+([a-z]+?)s?$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of a table's columns; None where the table may use any known name. `inputs` names further inputs: {"U": "unique_tokens"}.

    `log10` and `ln` name columns that hold logarithms.
    """

    params: Optional[str] = None
    tokens: Optional[str] = None
    loss: Optional[str] = None
    flops: Optional[str] = None
    run: Optional[str] = None
    seed: Optional[str] = None
    budget: Optional[str] = None
    decayed: Optional[str] = None
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    log10: tuple[str, ...] = ()
    ln: tuple[str, ...] = ()


@result
class ColumnRead:
    """The reading of a column. `how` says what was done to its numbers, and `low` and `high` are their range."""

    name: str
    column: str
    how: str
    low: Optional[float]
    high: Optional[float]


def spelled(name: str) -> str:
    """Returns a header in lower case, without its unit and the path before a slash, with _ for every other sign."""
    body = unit_of(name)[0].rsplit("/", 1)[-1]
    return re.sub(r"[^a-z0-9]+", "_", body.lower()).strip("_")


def unit_of(name: str) -> tuple[str, float]:
    """Returns a header without its unit, and the factor that the unit stands for: ("Params", 1e6) of "Params (M)"."""
    match = _UNIT.match(name)
    if match is None:
        return name, 1.0
    body, unit = (match[1], match[2]) if match[2] else (match[3], match[4])
    return (body, SUFFIXES[unit.lower()]) if unit.lower() in SUFFIXES else (name if match[4] else body, 1.0)


def is_in_bits(name: str) -> bool:
    """Returns whether the header of a loss says that it is in bits: "loss (bits)", "val_loss [bits/byte]", "loss in bits", "loss (bpb)".

    Raises:
      UserError: it says another thing than bits or nats that is no loss, such as a perplexity.
    """
    if found := _PERPLEXITY.search(name):
        raise UserError(f"column {name!r} holds a {found[1]}, and a loss is its logarithm: add a column of ln({found[1]})")
    return bool(_BITS.search(name))


def named(table: RawTable, name: str) -> str:
    """Returns the column of a name that the user gave: exactly so, or but for case, spaces, signs and unit.

    Raises:
      UserError: no column has the name, or two do.
    """
    if name in table.columns:
        return name
    near = [column for column in table.names if spelled(column) == spelled(name)]
    if len(near) == 1:
        return near[0]
    there = ", ".join(table.names)
    if near:
        raise UserError(f"{table.source}: {name!r} may be {' or '.join(repr(column) for column in near)}; write the name as it stands")
    raise UserError(f"{table.source} has no column {name!r}: its columns are {there}")


def found(table: RawTable, role: str, given: Optional[str]) -> Optional[str]:
    """Returns the column of an input ("params", "tokens", "loss", "flops"), None if none is there.

    Raises:
      UserError: the given name is not there, or two columns could be meant.
    """
    if given is not None:
        return named(table, given)
    if PLAIN[role] in table.columns:
        return PLAIN[role]
    known = [column for column in table.names if spelled(column) in SYNONYMS[role]]
    if len(known) > 1:
        raise UserError(f"{table.source}: {' and '.join(repr(name) for name in known)} may both be the {role}; choose with --{role}=COLUMN")
    return known[0] if known else None
