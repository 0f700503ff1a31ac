"""The meaning of the keys of a config.json (imports no jax).

Every key is mapped to a field of ours, required to have a value under which transformers computes what we do, or known to have no effect on
the function computed. Any other key is refused by name: ignoring an option could silently give another model.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Optional

from lm import config as config_lib
from lm.errors import UserError
from lm.model.config import ModelConfig

Flat = dict[str, Any]  # fields of a ModelConfig by dotted path

REQUIRED = object()
ACTIVATIONS = {
    "gelu": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "squared_relu",
}

# Keys of generation. Old releases have them in config.json, where transformers takes them from if there is no generation_config.json.
GENERATION = frozenset(
    {
        *("bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size"),
        *("exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length"),
        *("max_new_tokens", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences"),
        *("output_scores", "repetition_penalty"),
        *("remove_invalid_values", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p", "typical_p"),
        *("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id"),
    }
)
# Keys without effect on what a model computes from given tokens and weights. Dropout and layer drop concern training, and we have neither.
INERT = frozenset(
    {
        *("_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_flash_attn_2_enabled", "_name_or_path"),
        *("architectures", "attn_implementation", "author", "auto_map", "custom_pipelines", "is_llama_config"),
        *("transformers.js_config", "transformers_version", "unsloth_fixed", "unsloth_version"),
        *("activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classif_dropout", "classifier_dropout"),
        *("decoder_layerdrop", "dropout", "dropout_rate", "embd_pdrop", "encoder_layerdrop", "hidden_dropout", "hidden_dropout_prob"),
        *("layerdrop", "resid_pdrop"),
        *("init_std", "initializer_factor", "initializer_range"),
        *("cls_token_id", "mask_token_id", "sep_token_id", "unk_token_id"),
        *GENERATION,
        *("eos_token_ids", "force_bos_token_to_be_generated", "max_sequence_length", "model_max_length"),
        # of fine-tuning
        *("_num_labels", "finetuning_task", "id2label", "label2id", "num_labels", "prefix", "problem_type", "task_specific_params"),
        "tokenizer_class",
        # of the program: types of files, caches, what is returned, how the same is computed
        *("chunk_size_feed_forward", "dtype", "gradient_checkpointing", "output_attentions", "output_hidden_states", "output_past"),
        *("pretraining_tp", "return_dict", "tf_legacy_loss", "torch_dtype", "torchscript", "use_bfloat16", "use_cache"),
    }
)
# Under other values of these transformers computes something else.
FIXED_VALUES: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "rope_interleaved": (False,),
    "tie_encoder_decoder": (False,),
}


class Options:
    """The keys of one config.json, and which of them were read."""

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where = dict(values), where
        self.read: set[str] = {"model_type"}

    def take(self, key: str, default: Any = REQUIRED) -> Any:
        """Returns the value of a key, or `default` if it is absent. Raises UserError if there is neither."""
        self.read.add(key)
        if key not in self.values and default is REQUIRED:
            raise UserError(f"{self.where} lacks {key}")
        return self.values.get(key, default)

    def number(self, key: str, default: Any = REQUIRED) -> Any:
        """Returns the number of a key, or the default, which need not be a number."""
        value = self.take(key, default)
        if key in self.values and value is not default and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise UserError(f"{self.where}: {key}={value!r} is not a number")
        return value

    def agreed(self, keys: tuple[str, ...], default: float) -> float:
        """Returns a number that several keys may give. Raises UserError if they differ."""
        found = {key: self.number(key, default) for key in keys}
        said = {key: value for key, value in found.items() if key in self.values}
        if len(set(said.values())) > 1:
            raise UserError(f"{self.where}: {', '.join(f'{key}={value}' for key, value in said.items())} contradict each other")
        return next(iter(said.values()), default)

    def choice(self, key: str, choices: Mapping[str, Any], default: Any = REQUIRED) -> Any:
        value = self.take(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.refusal(key, value, f"supported: {', '.join(choices)}")
        return choices[value]

    def require(self, key: str, allowed: tuple[Any, ...]) -> None:
        """Raises UserError unless the key is absent or has one of these values."""
        self.read.add(key)
        if key in self.values and not any(value == self.values[key] for value in allowed):
            raise self.refusal(key, self.values[key], f"supported: {', '.join(map(repr, allowed))}")

    def refusal(self, key: str, value: Any, what: str) -> UserError:
        return UserError(f"{self.where}: {key}={_short(value)} is not supported ({what})")

    def finish(self, inert: frozenset[str] = INERT) -> None:
        """Raises UserError for the keys that nothing has read, and names them all."""
        unknown = sorted(self.values.keys() - self.read - inert)
        if unknown:
            said = ", ".join(f"{key}={_short(self.values[key])}" for key in unknown)
            raise UserError(f"{self.where}: lm.hf does not know {said}, which may change what the model computes")


def _short(value: Any) -> str:
    """Returns how a message writes a value: lists and objects may be long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclasses.dataclass(frozen=True)
class Option:
    """A key of theirs that is a field of ours. `values` maps their values to ours; of several for one value the first is written back."""

    key: str
    path: str
    default: Any = REQUIRED
    values: Optional[Mapping[str, Any]] = None

    def load(self, options: Options) -> Any:
        if self.values is not None:
            return options.choice(self.key, self.values, self.default)
        return options.take(self.key, self.default)

    def save(self, flat: Flat) -> Any:
        value = flat[self.path]
        if self.values is None:
            return value
        return next((theirs for theirs, ours in self.values.items() if ours == value), value)


def flatten(config: ModelConfig) -> Flat:
    """Returns the fields by dotted path. `outputs` and `rope_scaling` are not taken apart."""
    flat: Flat = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for group in ("attention", "mlp"):
        inner = flat.pop(group)
        flat |= {f"{group}.{field.name}": getattr(inner, field.name) for field in dataclasses.fields(inner)}
    return flat


def unflatten(flat: Flat) -> ModelConfig:
    """Returns the configuration with these fields and defaults for the others. Raises UserError for a value of the wrong type."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        group, _, name = path.rpartition(".")
        value = [config_lib.to_dict(one) for one in value] if path == "outputs" else value
        value = config_lib.to_dict(value) if dataclasses.is_dataclass(value) else value
        (tree.setdefault(group, {}) if group else tree)[name] = value
    return config_lib.from_dict(ModelConfig, tree)


Derive = Callable[[Options, frozenset[str]], Flat]  # (options, names of the tensors) -> fields
Express = Callable[[Flat], dict[str, Any]]  # fields -> keys
