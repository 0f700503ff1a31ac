"""The checker behind jaxtyping's import hook: an int is also a float, as PEP 484 has it."""

import beartype

typechecked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
