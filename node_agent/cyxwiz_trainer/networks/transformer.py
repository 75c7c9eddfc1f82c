"""Small transformers with the norm before each part (arXiv:2002.04745): one for images, one for text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ViT(nn.Module):
    """(batch, channels, height, width) to (batch, outputs): the image's patches are its tokens (arXiv:2010.11929)."""

    def __init__(
        self, channels: int, height: int, width: int, patch: int, dim: int, depth: int, heads: int, outputs: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.places = nn.Parameter(torch.randn(1, (height // patch) * (width // patch), dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, heads, causal=False) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


class Gpt(nn.Module):
    """(batch, places) tokens, whole numbers, to (batch, places, outputs): scores of the token that follows each."""

    def __init__(self, places: int, dim: int, depth: int, heads: int, dropout: float, outputs: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(outputs, dim)
        self.places = nn.Parameter(torch.randn(1, places, dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(dim, heads, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        features = self.dropout(self.tokens(tokens.long()) + self.places[:, : tokens.shape[1]])
        # The embedding is the last layer, too, as in GPT-2.
        return functional.linear(self.norm(self.blocks(features)), self.tokens.weight)


class Block(nn.Module):
    """Attention and two linear layers, each beside a shortcut."""

    def __init__(self, dim: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.norm1 = nn.LayerNorm(dim)
        self.attend = nn.Linear(dim, 3 * dim)
        self.join = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs + self._attention(self.norm1(inputs))
        return features + self.narrow(functional.gelu(self.widen(self.norm2(features))))

    def _attention(self, inputs: Tensor) -> Tensor:
        batch, places, dim = inputs.shape
        queries, keys, values = (
            part.reshape(batch, places, self.heads, dim // self.heads).transpose(1, 2)
            for part in self.attend(inputs).chunk(3, dim=2)
        )
        joined = functional.scaled_dot_product_attention(queries, keys, values, is_causal=self.causal)
        return self.join(joined.transpose(1, 2).reshape(batch, places, dim))
