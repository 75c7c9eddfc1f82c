"""A running average of the weights, which often answers better than the weights themselves (EMA)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """`model`, a copy whose weights follow those of the trained one. Young averages follow faster."""

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(trained).requires_grad_(False)
        self._trained = trained
        self._decay = decay
        self._share = torch.zeros((), device=next(trained.parameters()).device)
        """Of the new weights, where a captured step reads it."""

    def set_step(self, step: int) -> None:
        """The next `follow` is that of `step` (from 0)."""
        self._share.fill_(1 - min(self._decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def follow(self) -> None:
        """The average has moved towards the trained weights."""
        averaged: list[Tensor] = list(self.model.parameters())
        trained: list[Tensor] = list(self._trained.parameters())
        difference = torch._foreach_sub(trained, averaged)  # pyright: ignore[reportPrivateImportUsage]  # as torch.optim calls it
        torch._foreach_mul_(difference, self._share)  # pyright: ignore[reportPrivateImportUsage]  # as above
        torch._foreach_add_(averaged, difference)  # pyright: ignore[reportPrivateImportUsage]  # as above

    @torch.no_grad()
    def ready(self) -> nn.Module:
        """The averaged model with the trained one's statistics, to be evaluated or exported."""
        for mine, trained in zip(self.model.buffers(), self._trained.buffers(), strict=True):
            mine.copy_(trained)
        return self.model

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name. Writing into these tensors restores them."""
        return dict(self.model.named_parameters())
