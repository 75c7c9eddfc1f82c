"""What a profiler's trace says of waiting: whether the host ever waited until the device had nothing left to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LAUNCH = "cudaGraphLaunch"
WAITS = frozenset({"cudaEventSynchronize", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy"})
ON_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})


@dataclass(frozen=True)
class Trace:
    """The part of a trace from the first launch of a graph to the last."""

    launches: int
    waits: int
    """Calls in which the host may have waited for the device."""
    caught_up: tuple[str, ...]
    """Those after which the newest graph launched before them was done."""

    @classmethod
    def of(cls, events: list[dict[str, Any]]) -> Trace:
        """From the `traceEvents` of a Chrome trace."""
        done_at: dict[int, float] = {}
        for event in events:
            if event.get("cat") in ON_DEVICE:
                number = event.get("args", {}).get("correlation", 0)
                done_at[number] = max(done_at.get(number, 0.0), event["ts"] + event["dur"])
        host = sorted((event for event in events if event.get("cat") == "cuda_runtime"), key=lambda event: event["ts"])
        launched = [event for event in host if event["name"] == LAUNCH]
        if not launched:
            return cls(0, 0, ())
        last = launched[-1]["ts"]
        newest, waits, caught_up = None, 0, []
        for event in host:
            if event["name"] == LAUNCH:
                newest = event["args"]["correlation"]
            elif event["name"] in WAITS and newest is not None and event["ts"] < last:
                waits += 1
                if done_at[newest] <= event["ts"] + event["dur"]:
                    caught_up.append(event["name"])
        return cls(len(launched), waits, tuple(caught_up))
