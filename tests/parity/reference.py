"""What transformers computes: outputs and gradients of a model on some rows, in float32 or, wholly, in float64."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from cases import Case, Rows

STATES = 0.01  # weight of the sum of squared states in the loss of a model without logits


@contextlib.contextmanager
def double() -> Iterator[None]:
    """float64 everywhere, also where transformers asks for float32 by name: norms, rotary tables, softmax.

    Whole numbers still become float32 (exact at these sizes): T5's buckets of distance are rounded in float32 by definition.
    """
    to_float = torch.Tensor.float

    def wide(x: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        return x.double() if x.is_floating_point() else to_float(x, *args, **kwargs)

    patches = [mock.patch.object(torch, name, torch.float64) for name in ("float32", "float")]
    patches += [mock.patch.object(torch.Tensor, "float", wide)]
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        for patch in patches:
            stack.enter_context(patch)
        yield


def outputs(case: Case, model: torch.nn.Module, rows: Rows) -> dict[str, torch.Tensor]:
    """Tensors by our names: logits, encoded, pooled, next_sentence, hidden."""
    inputs = {"attention_mask": rows.mask, "input_ids": rows.tokens}
    if case.has_encoder:
        inputs = {"attention_mask": rows.encoder_mask, "input_ids": rows.encoder_tokens}
        inputs |= {"decoder_input_ids": rows.tokens, "decoder_attention_mask": rows.mask}
    if case.architecture.startswith(("Bert", "Roberta")):
        inputs |= {"token_type_ids": rows.token_types}
    found = model(**{name: torch.from_numpy(np.asarray(value, np.int64)) for name, value in inputs.items()}, return_dict=True)
    named = {
        "logits": found.get("logits", found.get("prediction_logits")),
        "encoded": found.get("encoder_last_hidden_state"),
        "next_sentence": found.get("seq_relationship_logits"),
        "pooled": found.get("pooler_output"),
        "hidden": found.get("last_hidden_state"),
    }
    if case.architecture == "BertForPreTraining":
        states = model.bert(**{name: torch.from_numpy(np.asarray(value, np.int64)) for name, value in inputs.items()})
        named["pooled"] = states.pooler_output
    return {name: value for name, value in named.items() if value is not None}


def loss(found: dict[str, torch.Tensor], rows: Rows) -> torch.Tensor:
    """Weighted cross-entropy as a sum, and that of next sentences; squared states where there are no logits."""
    if "logits" not in found:
        mask = torch.from_numpy(rows.mask)[..., None]
        return STATES * ((found["hidden"] ** 2 * mask).sum() + (found["pooled"] ** 3).sum())
    cross_entropy = torch.nn.CrossEntropyLoss(reduction="none")
    tokens = cross_entropy(found["logits"].transpose(1, 2), torch.from_numpy(rows.targets).long())
    total = (tokens * torch.from_numpy(rows.weights)).sum()
    if "next_sentence" in found:
        total = total + cross_entropy(found["next_sentence"], torch.from_numpy(rows.labels[:, 0]).long()).sum()
    return total


def run(case: Case, model: torch.nn.Module, rows: Rows) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(outputs, gradients of the loss by the model's own names; a tied parameter under its first name)."""
    found = outputs(case, model, rows)
    model.zero_grad()
    loss(found, rows).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {name: value.detach().numpy() for name, value in found.items()}, gradients
