"""The random generators of all ranks as tensors of a checkpoint: `random.cpu`, and `random.cpu.1` of the second."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .distributed import Ranks


def random_states(ranks: Ranks) -> dict[str, Tensor]:
    """Those of all ranks at the first, (bytes,) uint8 each; nothing at the others. Every rank must come here."""
    states: dict[str, Tensor] = {}
    for kind, read, _ in _generators():
        for rank, content in enumerate(ranks.collect(read().numpy().tobytes())):
            states[_name(kind, rank)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return states


def restore_random_states(tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """This rank's generators go on where they were, as far as `tensors` hold them."""
    for kind, _, write in _generators():
        if (name := _name(kind, ranks.rank)) in tensors:
            write(tensors[name])


def _name(kind: str, rank: int) -> str:
    return f"random.{kind}.{rank}" if rank else f"random.{kind}"


def _generators() -> list[tuple[str, Callable[[], Tensor], Callable[[Tensor], None]]]:
    generators = [("cpu", torch.get_rng_state, torch.set_rng_state)]
    if torch.cuda.is_initialized():
        generators.append(("cuda", torch.cuda.get_rng_state, torch.cuda.set_rng_state))
    return generators
