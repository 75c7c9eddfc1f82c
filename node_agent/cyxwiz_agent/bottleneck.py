"""What training waits for, in a word and numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cyxwiz_protocol.records import WaitsRecord

ENOUGH_SPARE = 0.05
"""A training thread that waits for the GPU this share of its time keeps it busy: the GPU is what training waits for."""
SLOWED_BY = ("HwThermalSlowdown", "SwThermalSlowdown", "HwPowerBrakeSlowdown", "HwSlowdown")
"""Reasons why clocks are lower than the GPU could have them; the most telling first."""
POWER_CAP = "SwPowerCap"


def bottleneck(waits: WaitsRecord, clock_reasons: Iterable[str] | None) -> str:
    """GPU: thread waits for it 82%, queues work 15%, waits for data 3%.

    `clock_reasons` are those of the job's GPUs as of the last look; None for a job on the CPU.
    """
    data, device, host = (f"{min(max(share, 0.0), 1.0):.0%}" for share in (waits.data, waits.device, waits.host))
    if clock_reasons is None:
        return f"{'data' if waits.data > waits.device else 'CPU'}: computes {device}, waits for data {data}"
    shares = f"thread waits for it {device}, queues work {host}, waits for data {data}"
    if waits.device < ENOUGH_SPARE:
        name = "data" if waits.data > waits.host else "host"
        return f"{name}: thread queues work {host}, waits for data {data}, for the GPU {device}"
    reasons = set(clock_reasons)
    slowed = next((reason for reason in SLOWED_BY if reason in reasons), None)
    if slowed is not None:
        return f"throttled: the GPU by {slowed}; {shares}"
    return f"GPU: {shares}{', at its power limit' if POWER_CAP in reasons else ''}"
