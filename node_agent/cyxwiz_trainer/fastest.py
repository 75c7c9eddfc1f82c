"""A step by the fastest way that was measured: as it is first, and compiled once that is ready and was timed faster.

No step is lost to this: the compiler works in another process, and both ways are timed on steps of the job itself.
What does stop training is the compilation from the full cache, a few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .compilation import Compilation, Failed
from .compile_policy import milliseconds
from .device import take_time_for_kernels
from .graph import Repeated
from .step_times import StepTimes, TimeMark


class Fastest:
    """Calls a step `steps` times in all, in one of two ways that do the same."""

    def __init__(
        self,
        plain: Repeated,
        compiled: Callable[[Compilation], Repeated],
        compilation: Compilation | None,
        new_mark: Callable[[], TimeMark],
        steps: int,
    ) -> None:
        """`compiled` makes the other way once the compilation is ready; None for `compilation` never compiles."""
        self._plain: Repeated | None = plain
        self._current = plain
        self._make_compiled = compiled
        self._compilation = compilation
        self._new_mark = new_mark
        self._steps_left = steps
        self._after_step: Callable[[], None] = self._settle if compilation else _nothing
        self._note: str | None = None
        self._times = StepTimes(new_mark)
        self._plain_step_s = self._adopt_s = 0.0
        self._compile_s: float | None = None
        self._adopting_since: float | None = None

    @property
    def words(self) -> str | None:
        """How it runs: "CUDA graph", "compiled, CUDA graph", "eager: <why>", and why it is not compiled if that failed.

        None while that is open, and for plain steps on the CPU.
        """
        settled = self._current if self._adopting_since is None or self._plain is None else self._plain
        return ", ".join(filter(None, (self._note, settled.words))) or None

    @property
    def is_adopting(self) -> bool:
        """Steps take as long as their compilation does."""
        return self._adopting_since is not None

    def __call__(self) -> None:
        """One step is queued on the device; on the CPU it is done."""
        if self._adopting_since is None:
            self._current()
        else:
            self._step_of_new_kind()
        self._steps_left -= 1
        self._after_step()

    # What is done after a step, one after the other.

    def _settle(self) -> None:
        if self._current.is_settled:
            is_eager = self._current.words is not None and not self._current.is_graph
            self._after_step = _nothing if is_eager else self._time_plain

    def _time_plain(self) -> None:
        self._times.step_queued()
        step_s = self._times.median_s()
        if step_s is None:
            return
        assert self._compilation is not None
        self._plain_step_s = step_s
        decision = self._compilation.decide(step_s, self._steps_left)
        print(f"{milliseconds(step_s)} a step, {self._steps_left} steps left, {decision.words}", flush=True)
        if decision.compile:
            self._compilation.begin()
        self._after_step = self._await_cache if decision.compile else _nothing

    def _await_cache(self) -> None:
        assert self._compilation is not None
        result = self._compilation.poll()
        if result is None:
            return
        if isinstance(result, Failed):
            self._stay(f"not compiled: {result.why}")
            return
        self._compile_s = result.compile_s
        self._adopting_since = time.monotonic()
        take_time_for_kernels(True)  # they are chosen anew here, and that delays no first step
        try:
            self._current = self._make_compiled(self._compilation)
        except (OSError, RuntimeError) as error:
            self._stay(f"not compiled: {_why(error)}")
            return
        self._times = StepTimes(self._new_mark)
        self._after_step = self._adopt

    def _step_of_new_kind(self) -> None:
        """A step of the compiled kind; where that fails, the plain one."""
        try:
            self._current()
        except RuntimeError as error:  # every error of the compiler, and out of memory
            self._stay(f"not compiled: {_why(error)}")
            self._current()

    def _adopt(self) -> None:
        """Compiled steps are no longer watched, once the later ones run as this one did."""
        assert self._plain is not None
        if self._adopting_since is None or not self._current.is_settled:
            return
        self._adopt_s = time.monotonic() - self._adopting_since
        self._adopting_since = None
        take_time_for_kernels(False)
        if self._plain.is_graph and not self._current.is_graph:
            self._stay(f"not compiled: {self._current.words}")
            return
        self._after_step = self._time_compiled

    def _time_compiled(self) -> None:
        self._times.step_queued()
        step_s = self._times.median_s()
        if step_s is None:
            return
        assert self._compilation is not None
        self._compilation.remember(self._compile_s, self._adopt_s, self._plain_step_s, step_s)
        after, before = milliseconds(step_s), milliseconds(self._plain_step_s)
        if step_s >= self._plain_step_s:
            self._stay(f"not compiled: that took {after} a step instead of {before}")
            return
        print(f"compiled: {after} a step instead of {before}, adopted in {self._adopt_s:.1f} s", flush=True)
        self._note = "compiled"
        self._plain = None  # and the memory of its graph
        self._after_step = _nothing

    def _stay(self, note: str) -> None:
        """Steps are plain from now on."""
        assert self._plain is not None
        print(note, flush=True)
        self._current, self._note = self._plain, note
        self._adopting_since = None
        take_time_for_kernels(False)
        self._after_step = _nothing


def _nothing() -> None:
    pass


def _why(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:120] or type(error).__name__
