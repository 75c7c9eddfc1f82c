"""What the ranks of a job do together. A job of one rank passes through here untouched."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore  # torch.distributed has it, and its stubs do not

from cyxwiz_crds import Control

from .supervisor import Seat

_BEAT_S = 0.05
"""How often the ranks ask the first whether to go on."""
_HEAD = struct.Struct("<qq?i")
"""The step before which it was asked, the step before which to ask next, whether to stop, the length of the rest."""
_MOST_STEPS = 10_000
_WORD = struct.Struct("<q")
_ENDED_WITHIN_S = 10.0
_FOR_EVER = timedelta(days=30)  # ranks may be frozen; one that is gone is noticed by its supervisor
# Second word of the seed, so that no two random streams of a job are the same.
_RANK_STREAM = 6

_ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "=lo",
    "NCCL_IB_DISABLE": "1",  # one machine
    "NCCL_NVLS_ENABLE": "0",  # multicast: a program that fails in it can take the switch's other GPUs with it
    "TORCH_NCCL_ENABLE_MONITORING": "0",  # would take a thawed rank for one that hangs
}


@dataclass(frozen=True)
class Orders:
    """What is asked of a job under way, as all its ranks obey it before the same step."""

    stop: bool = False
    control: Control | None = None
    """One that is newer than the last."""


class PeerLost(Exception):
    """Another rank is gone. It, or its supervisor, says why."""


class Ranks:
    """One rank's view of all. `Ranks()` is a job of one process, where nothing here does anything."""

    def __init__(self, seat: Seat | None = None) -> None:
        self.rank = 0 if seat is None else seat.rank
        self.size = 1 if seat is None else seat.size
        self._seat = seat
        self._ask_at = 0
        self._asked: tuple[int, float] | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one reports, saves and exports."""
        return self.rank == 0

    # Tensors, by NCCL or gloo.

    def join(self, device: torch.device) -> None:
        """Collectives may be called from now on. Every rank must come here."""
        if self._seat is None:
            return
        os.environ.update(_ENVIRONMENT)
        on_gpu = device.type == "cuda"
        with _peers():
            torch.distributed.init_process_group(
                "nccl" if on_gpu else "gloo",
                store=FileStore(str(self._seat.meeting / "store"), self.size),
                rank=self.rank,
                world_size=self.size,
                timeout=_FOR_EVER,
                device_id=device if on_gpu else None,
            )

    def average(self, parameters: Iterable[Tensor], loss: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients are their means over all ranks. Returns the mean of the losses, (), and the sum of `right`, ().

        One collective for all of it. Nothing in it waits for the device, so it can be captured.
        """
        if self.size == 1:
            return loss, right
        # In the order they have in memory, which is the same on every rank: a reshape would copy channels_last ones.
        parts = [_flat(parameter.grad) for parameter in parameters if parameter.grad is not None]
        buffer = torch.cat([*parts, loss.reshape(1), right.reshape(1)])
        with _peers():
            torch.distributed.all_reduce(buffer)
        right = buffer[-1].clone()
        buffer /= self.size
        *means, loss, _ = buffer.split([*(part.numel() for part in parts), 1, 1])
        torch._foreach_copy_(parts, means)  # pyright: ignore[reportPrivateImportUsage]  # as torch.optim calls it
        return loss[0], right

    def add_up(self, tensor: Tensor) -> None:
        """`tensor` is the sum of every rank's."""
        if self.size > 1:
            with _peers():
                torch.distributed.all_reduce(tensor)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Every rank's `tensors` are those of the first."""
        if self.size > 1:
            for tensor in tensors:
                with _peers():
                    torch.distributed.broadcast(_flat(tensor.detach()), src=0)

    def with_shared_norms(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` with batch norms that see the whole batch, where torch has such: on GPUs."""
        if self.size == 1 or device.type != "cuda":
            return model
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def norms_wait(self, model: nn.Module) -> bool:
        """Whether steps with `model` wait for the device while they are eager: torch's SyncBatchNorm then counts."""
        return any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())

    # The host's side, over the socket pairs of the supervisor.

    def my_part(self, batch_size: int) -> slice:
        """The rows of a batch, of the whole job's size, that this rank computes."""
        rows = batch_size // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def agree(self, step: int, hear: Callable[[], Orders]) -> Orders:
        """What all do before `step`, by what the first one hears. Every rank must ask before each of its steps.

        Most questions are answered here: each answer of the first names the step at which the next one is due.
        """
        if self.size == 1:
            return hear()
        if step < self._ask_at:
            return Orders()
        if self.is_first:
            orders, self._ask_at = hear(), step + self._steps_of_a_beat(step)
            control = b"" if orders.control is None else orders.control.model_dump_json().encode()
            for link in self._links:
                _tell(link, _HEAD.pack(step, self._ask_at, orders.stop, len(control)) + control)
            return orders
        asked, self._ask_at, stop, length = _HEAD.unpack(_hear(self._links[0], _HEAD.size))
        control = _hear(self._links[0], length)
        if asked != step:
            raise RuntimeError(f"this rank is at step {step}, the first one at step {asked}")
        return Orders(stop, Control.model_validate_json(control) if control else None)

    def _steps_of_a_beat(self, step: int) -> int:
        now, before = time.monotonic(), self._asked
        self._asked = (step, now)
        if before is None or now <= before[1]:
            return 1
        return max(1, min(int((step - before[0]) / (now - before[1]) * _BEAT_S), _MOST_STEPS))

    @contextlib.contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """What is inside is done by the first rank, and only then by the others."""
        if not self.is_first:
            _hear(self._links[0], 1)
        yield
        if self.is_first:
            for link in self._links:
                _tell(link, b"!")

    def collect(self, content: bytes) -> list[bytes]:
        """At the first rank every rank's `content`, its own first; at the others nothing. All of the same length."""
        if self.is_first:
            return [content, *(_hear(link, len(content)) for link in self._links)]
        _tell(self._links[0], content)
        return []

    def largest(self, value: int) -> int:
        """The largest of what every rank has said here last. Waits for none."""
        if self._seat is None:
            return value
        _WORD.pack_into(self._seat.board, self.rank * _WORD.size, value)
        return max(_WORD.unpack_from(self._seat.board, rank * _WORD.size)[0] for rank in range(self.size))

    def reseed(self, seed: int) -> None:
        """Random numbers of the steps, such as dropout's, are this rank's own."""
        if self.rank > 0:
            torch.manual_seed(int(np.random.default_rng((seed, _RANK_STREAM, self.rank)).integers(2**63)))

    def is_first_to_fail(self) -> bool:
        """Whether no other rank has failed before: then this one says why."""
        if self._seat is None:
            return True
        try:
            (self._seat.meeting / "failed").touch(exist_ok=False)
        except OSError:  # it is there; or the folder has gone, with all the others
            return False
        return True

    def wait_for_the_end(self) -> None:
        """The supervisor ends this process because of another rank. Returns when it does not."""
        time.sleep(_ENDED_WITHIN_S)

    @property
    def _links(self) -> tuple[socket.socket, ...]:
        return () if self._seat is None else self._seat.links


ALONE = Ranks()


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """A collective. What fails in it is another rank's doing."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise PeerLost(str(error)) from error


def _flat(tensor: Tensor) -> Tensor:
    """(numel,) the same memory, of a tensor that leaves no gaps in it."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _tell(link: socket.socket, content: bytes) -> None:
    try:
        link.sendall(content)
    except OSError as error:
        raise PeerLost(str(error)) from error


def _hear(link: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        try:
            part = link.recv(size - len(content))
        except OSError as error:
            raise PeerLost(str(error)) from error
        if not part:
            raise PeerLost("its end of the socket is closed")
        content += part
    return content
