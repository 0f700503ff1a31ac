"""GPT-2's architecture in PyTorch (Radford et al. 2019): the peer of the decoder's training step.

Fused attention (scaled_dot_product_attention), fused linear layers for queries, keys and values, torch's AdamW, and clipping, as nanoGPT
trains it.
"""

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.shapes import DECODER, Shape
from experiments.benchmarks.side import Made


class Block(nn.Module):
    """Attention and feed-forward layer on the residual stream, each after a norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.gelu = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.GELU(approximate="tanh")

    def forward(self, x: Any) -> Any:
        rows, length, width = x.shape
        parts = self.query_key_value(self.attention_norm(x)).split(width, dim=2)
        query, key, value = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(self.gelu(self.up(self.mlp_norm(x))))


class Decoder(nn.Module):
    """A decoder with learned positions whose head is its token table."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(shape.vocab, shape.width), nn.Embedding(shape.length, shape.width)
        self.blocks = nn.Sequential(*(Block(shape.width, shape.heads) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, tokens: Any) -> Any:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


def decoder() -> Made:
    """Returns the training step of the decoder."""
    shape = DECODER
    model = Decoder(shape)
    tokens, targets = (torch.randint(0, shape.vocab, (shape.rows, shape.length)) for _ in range(2))

    def loss() -> Any:
        return functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    return step_of(model, loss), facts(shape, model)


def step_of(model: nn.Module, loss: Any) -> Any:
    """Returns a step of AdamW, with the decay on matrices alone, after clipping."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": 0.1},
        {"params": [w for w in weights if w.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))

    def step() -> float:
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.item()

    return step


def facts(shape: Any, model: nn.Module) -> dict[str, Any]:
    """Returns what is said of this side."""
    return {
        "program": f"torch {torch.__version__}",
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "threads": torch.get_num_threads(),
        "attention": "scaled_dot_product_attention",
        "shape": dataclasses.asdict(shape),
    }
