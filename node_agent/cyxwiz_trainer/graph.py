"""One step over and over: eager, and on a GPU soon as a CUDA graph, launched whole instead of kernel by kernel.

A graph repeats exactly the kernels and addresses it was captured with. So a step reads its batch and learning rate from
tensors that stay where they are, changes model and optimizer in place, and never waits for the device. One that
cannot do that, such as a model with `.item()` in it, stays eager, and `words` says why.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import torch

from .device import Device

EAGER_STEPS = 3
"""Steps before the capture: libraries choose their kernels and the optimizer's state comes to be."""
FEWEST_STEPS = 20
"""A capture costs about as much as so many eager steps."""
_LONGEST_WHY = 120


class Repeated:
    """Calls `step`, which must do the same each time, `steps` times in all."""

    def __init__(self, step: Callable[[], None], device: Device, steps: int, *, rehearse: bool = True) -> None:
        """`rehearse` looks for waits in an eager step; not for one that waits only where it is not captured."""
        self._step = step
        self._rehearse = rehearse
        self._stepped = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self.words: str | None = None
        """How it runs: "CUDA graph", or "eager: <why>"; None while that is open, and on the CPU."""
        if device.is_gpu and steps < FEWEST_STEPS:
            self.words = f"eager: {steps} steps are too few for a CUDA graph"
        self._may_capture = device.is_gpu and self.words is None

    @property
    def is_settled(self) -> bool:
        """Whether the later steps run as this one did."""
        return not self._may_capture

    @property
    def is_graph(self) -> bool:
        return self._graph is not None

    def __call__(self) -> None:
        """One step is queued on the device; on the CPU it is done."""
        if self._graph is not None:
            self._graph.replay()
        elif self._may_capture and self._rehearse and self._stepped == EAGER_STEPS - 1:
            self._step_without_sync()
        elif self._may_capture and self._stepped == EAGER_STEPS:
            self._capture()
        else:
            self._step()
        self._stepped += 1

    def _step_without_sync(self) -> None:
        """A step during which waiting for the device is an error: found here, where nothing breaks yet."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")  # a killed job's last words
            torch.cuda.set_sync_debug_mode("error")
        try:
            self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._stay_eager(error)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        if not self._may_capture:
            self._step()

    def _capture(self) -> None:
        """The step as a graph, launched once; where that fails, an eager step. Sync: waits for the device."""
        # A generator caught in a failed capture refuses to work: a copy is kept to go on with.
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        random_state = generator.clone_state()
        torch.cuda.synchronize()  # sync: once
        gc.collect()
        torch.cuda.empty_cache()  # what the eager steps held goes to the graph's own pool
        graph = torch.cuda.CUDAGraph()
        try:
            # Of this thread only: the backward pass allocates in a thread of autograd's.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._step()
            finally:
                graph.capture_end()
            graph.replay()
        except RuntimeError as error:
            generator.graphsafe_set_state(random_state)
            self._stay_eager(error.__context__ or error)
            self._step()
        else:
            self._graph = graph
            self._may_capture = False
            self.words = "CUDA graph"

    def _stay_eager(self, error: BaseException) -> None:
        self._may_capture = False
        why = str(error).strip().partition("\n")[0][:_LONGEST_WHY]
        self.words = f"eager: {why or type(error).__name__}"
