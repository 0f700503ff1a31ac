"""A family of models: the meaning of its config.json and the names of its tensors (imports no jax)."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Optional

from lm.hf.forms import Rule
from lm.hf.options import FIXED_VALUES, INERT, Derive, Express, Flat, Option, Options, flatten, unflatten
from lm.model.config import ModelConfig

# Tables of positions and masks that old releases saved with the weights; each follows from the configuration.
BUFFERS = r"(.*\.)?(position_ids|rotary_emb\.inv_freq|attention\.bias|attention\.masked_bias|attn\.bias|attn\.masked_bias|version)"


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of models. `rules` describe its tensors; the other fields describe its configuration.

    options    keys that correspond one to one to fields of ours
    constants  fields with the same value in the whole family; `mlp.name` is the kind of feed-forward layer, unless it is the dense one
    derive     computes fields from several keys or from the names of the tensors; `express` is its inverse
    fixed      keys with the only values under which transformers computes what we do
    inert      keys without effect, beside those of every family
    prefix     prefix of tensor names in a model with heads, which a model without heads may lack
    tied       their additional names of tensors that we hold once; a checkpoint may hold these tensors if they equal the first
    untied     those of `tied` that are written with an untied head, because transformers ties nothing then
    ignored    pattern of the names of tensors that no forward pass reads
    renamed    older spellings of parts of names, and the present ones
    """

    name: str
    architecture: str  # transformers' class
    prefix: str
    options: tuple[Option, ...]
    constants: Mapping[str, Any]
    derive: Derive
    express: Express
    rules: tuple[Rule, ...]
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    untied: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    inert: frozenset[str] = frozenset()
    ignored: str = BUFFERS
    renamed: tuple[tuple[str, str], ...] = ()

    def config(self, values: Mapping[str, Any], names: frozenset[str], where: str) -> ModelConfig:
        """Returns the configuration that a config.json and the names of its tensors describe.

        Raises:
          UserError: an option is not supported. The message names it.
        """
        options = Options(values, where)
        flat: Flat = {**self.constants, **{option.path: option.load(options) for option in self.options}}
        flat |= self.derive(options, names)
        for key, allowed in {**FIXED_VALUES, **self.fixed}.items():
            options.require(key, allowed)
        options.finish(INERT | self.inert)
        return unflatten(flat)

    def values(self, config: ModelConfig) -> dict[str, Any]:
        """Returns the config.json of a configuration, without checking that it holds all of it."""
        flat = flatten(config)
        mapped = {option.key: option.save(flat) for option in self.options}
        return {"architectures": [self.architecture], "model_type": self.name, **mapped, **self.express(flat)}

    def canonical(self, name: str, known: Mapping[str, Any]) -> str:
        """Returns the table's name of a tensor of a checkpoint."""
        for old, new in self.renamed:
            name = name.replace(old, new)
        return self.prefix + name if name not in known and self.prefix + name in known else name

    def is_ignored(self, name: str) -> bool:
        return re.fullmatch(self.ignored, name) is not None


def has(names: frozenset[str], name: str) -> bool:
    """Returns whether a checkpoint holds a tensor, with or without a prefix."""
    return any(found == name or found.endswith("." + name) for found in names)


def heads(options: Options, width: str, heads: str, size: Optional[str] = None) -> tuple[int, int]:
    """Returns (number, size) of heads.

    Raises:
      UserError: no key gives their size, and the width is not a multiple of their number.
    """
    model, number = options.number(width), options.number(heads)
    if number < 1 or model < 1:
        raise options.refusal(heads if number < 1 else width, number if number < 1 else model, "1 or more")
    if size is not None and options.take(size, None) is not None:
        return number, options.number(size)
    if model % number:
        raise options.refusal(heads, number, f"{width}={model} is not a multiple of it")
    return number, model // number
