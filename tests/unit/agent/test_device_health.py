"""The health of a device, for every sign it can show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cyxwiz_agent.devices.health import (
    APPLICATION_XIDS,
    SLOW_LOOKS,
    XID_FADES_S,
    XID_SETTLES_S,
    Health,
    Signs,
    health_of,
)
from cyxwiz_agent.devices.readings import GpuReading, Xid

NOW = 10_000.0
WELL = Signs(
    GpuReading("GPU-a", "NVIDIA H200", 143_771, recovery_action="None", ecc_uncorrected=0, events=True), None, 0, NOW
)
OLDER = replace(WELL, reading=replace(WELL.reading, recovery_action=None))


def with_reading(signs: Signs = WELL, **fields: object) -> Signs:
    return replace(signs, reading=replace(signs.reading, **fields))


def xid(number: int, age_s: float) -> Xid:
    return Xid("GPU-a", number, NOW - age_s)


@pytest.mark.parametrize(
    ("signs", "state"),
    [
        pytest.param(WELL, "Healthy", id="nothing is wrong"),
        pytest.param(OLDER, "Healthy", id="an older driver, and nothing is wrong"),
        pytest.param(with_reading(recovery_action="Reset"), "Unhealthy", id="the driver wants a reset"),
        pytest.param(with_reading(recovery_action="Action9"), "Unhealthy", id="the driver wants what we do not know"),
        pytest.param(with_reading(remap_failed=True), "Unhealthy", id="memory that cannot be repaired"),
        pytest.param(with_reading(remap_pending=True), "Degraded", id="memory to be repaired"),
        pytest.param(with_reading(ecc_uncorrected=2), "Degraded", id="memory errors"),
        pytest.param(replace(WELL, xid=xid(48, 1)), "Unhealthy", id="an error just now"),
        pytest.param(replace(WELL, xid=xid(48, XID_SETTLES_S)), "Healthy", id="the driver sees nothing to be done"),
        pytest.param(replace(OLDER, xid=xid(48, XID_SETTLES_S)), "Unhealthy", id="an older driver cannot say"),
        pytest.param(replace(OLDER, xid=xid(48, XID_FADES_S)), "Healthy", id="an older driver, long silent"),
        pytest.param(
            with_reading(replace(WELL, slow_looks=1), clocks_event_reasons=("HwThermalSlowdown",)),
            "Healthy",
            id="hot for a moment",
        ),
        pytest.param(
            with_reading(replace(WELL, slow_looks=SLOW_LOOKS), clocks_event_reasons=("HwThermalSlowdown",)),
            "Degraded",
            id="hot for longer",
        ),
        pytest.param(
            with_reading(replace(WELL, slow_looks=SLOW_LOOKS), clocks_event_reasons=("SwPowerCap",)),
            "Healthy",
            id="at its power limit, as it should be",
        ),
        pytest.param(with_reading(OLDER, events=False), "Unmonitored", id="nobody would tell"),
        pytest.param(with_reading(events=False), "Healthy", id="no events, but the driver says what it wants"),
    ],
)
def test_the_health_of_a_device(signs: Signs, state: str) -> None:
    health = health_of(signs)
    assert health.state == state
    assert (health.reason is None) == (state == "Healthy")


@pytest.mark.parametrize("number", sorted(APPLICATION_XIDS))
def test_an_error_of_a_program_is_not_the_devices(number: int) -> None:
    assert health_of(replace(WELL, xid=xid(number, 0))).state == "Healthy"


def test_an_error_is_told_in_words() -> None:
    assert health_of(replace(WELL, xid=xid(79, 1))) == Health("Unhealthy", "XID 79: fallen off the bus")
    assert health_of(replace(WELL, xid=xid(999, 1))) == Health("Unhealthy", "XID 999")


@pytest.mark.parametrize(
    ("state", "usable"),
    [("Healthy", True), ("Degraded", True), ("Unmonitored", True), ("Unhealthy", False), ("Lost", False)],
)
def test_jobs_are_given_no_device_that_is_unhealthy_or_lost(state: str, usable: bool) -> None:
    assert Health(state).usable is usable
