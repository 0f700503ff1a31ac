"""Checks that a model can be built from its configuration (imports no jax)."""

from lm.errors import UserError
from lm.model.config import ModelConfig
from lm.model.parts import heads, positions, stacks
from lm.model.parts.component import Refusals, sizes_of


def check(config: ModelConfig) -> None:
    """Raises UserError, in one line, for the first option that contradicts another or is out of range."""
    components: Refusals = [r for name, part in config.components.items() for r in part.refusals(f"model.{name}")]
    parts = (heads.refusals(config), stacks.refusals(config), positions.refusals(config))
    for is_wrong, reason in (*_sizes(config), *components, *(refusal for refusals in parts for refusal in refusals)):
        if is_wrong:
            raise UserError(reason)


def _sizes(config: ModelConfig) -> Refusals:
    sizes = {"vocab_size": config.vocab_size, "d_model": config.d_model, "max_length": config.max_length}
    return [
        *sizes_of("model", sizes),
        (config.token_types < 0, f"model.token_types={config.token_types}: give 0 or more"),
    ]
