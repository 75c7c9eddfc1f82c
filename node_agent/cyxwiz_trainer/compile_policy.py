"""Whether compiling a step pays. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from cyxwiz_crds import Model

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
StepSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

WORTH_TIMES = 2.0
"""The predicted saving must be so many times what compilation takes."""
# Before a shape was ever compiled here. Measured on one H200: 20 and 26 % less time a step, 15 s.
SUPPOSED_SHARE_SAVED = 0.2
SUPPOSED_COMPILE_S = 30.0


class Known(Model):
    """What compiling this step did on this machine before."""

    compile_s: Seconds
    """With an empty cache."""
    adopt_s: Seconds
    """From a full cache to the first compiled step that runs as later ones do."""
    plain_step_s: StepSeconds
    compiled_step_s: StepSeconds

    @property
    def share_saved(self) -> float:
        return 1 - self.compiled_step_s / self.plain_step_s


@dataclass(frozen=True)
class Decision:
    """Whether to compile, and why in words."""

    compile: bool
    words: str


def decide(step_s: float, steps_left: int, known: Known | None, *, cached: bool) -> Decision:
    """What to do for a job with `steps_left` steps of `step_s` seconds; `cached`: another job has compiled it here."""
    share = SUPPOSED_SHARE_SAVED if known is None else known.share_saved
    if known is not None and share <= 0:
        before, after = milliseconds(known.plain_step_s), milliseconds(known.compiled_step_s)
        return Decision(False, f"not compiled: here that took {after} a step instead of {before}")
    takes_s = SUPPOSED_COMPILE_S if known is None else known.adopt_s if cached else known.compile_s + known.adopt_s
    # While it is compiled, training goes on.
    left_s = max(steps_left * step_s - takes_s, 0.0)
    saves_s = left_s * share
    words = f"would save about {saves_s:.0f} s and take {takes_s:.0f} s"
    if saves_s < WORTH_TIMES * takes_s:
        return Decision(False, f"not compiled: {words}")
    return Decision(True, f"compiling: {words}")


def milliseconds(seconds: float) -> str:
    """1.74 ms"""
    return f"{1000 * seconds:.3g} ms"
