"""When a job is said to have stalled, what training is said to wait for, what it took, and what it was made with."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pynvml
import pytest

from cyxwiz_agent.bottleneck import bottleneck
from cyxwiz_agent.devices import Device, Devices, EnergyMeter
from cyxwiz_agent.devices.nvml import energy_joules
from cyxwiz_agent.devices.readings import GpuReading
from cyxwiz_agent.ending import wish_of
from cyxwiz_agent.energy import counters, energy_text
from cyxwiz_agent.facts import Facts, receipt_report
from cyxwiz_agent.stall import SHORTEST_S, UNKNOWN_S, USUAL_TIMES, StepWatch
from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.records import (
    ActivityRecord,
    EpochRecord,
    ModelRecord,
    ProgressRecord,
    Record,
    SoftwareRecord,
    StartedRecord,
    WaitsRecord,
)
from cyxwiz_protocol.runner_api import JobProcess, JobState
from tests.doubles.nvml import FakeGpu, FakeLibrary, installed

STARTED = StartedRecord(
    t=1.0,
    device="CPU",
    parameters=3,
    train_samples=4,
    validation_samples=5,
    data_sha256="da" * 32,
    seed=7,
    software=SoftwareRecord(cyxwiz="0.1.0", python="3.12.3", torch="2.11.0", cuda="12.8", code_sha256="c0" * 32),
)
EVALUATING = ActivityRecord(t=1.0, activity="evaluating")
EPOCH = EpochRecord(t=1.0, epoch=1, loss=0.5)
BATCH = 32


def progress(step: int, rate: float = 3200.0) -> ProgressRecord:
    return ProgressRecord(
        t=1.0,
        epoch=1,
        epochs=5,
        step=step,
        total_steps=250,
        loss=0.5,
        learning_rate=0.01,
        samples_processed=step * BATCH,
        samples_per_second=rate,
        elapsed_seconds=3.4,
    )


def process(state: JobState = "Running", **fields: object) -> JobProcess:
    return JobProcess.model_validate(
        {"assignmentId": "u-1", "jobUid": "u", "attempt": 1, "key": "t/j", "state": state, **fields}
    )


class Watched:
    """A job under watch, by a clock that moves when it is told to."""

    def __init__(self, *records: Record) -> None:
        self.now = 1000.0
        self.facts = Facts()
        self.watch = StepWatch(lambda: self.now, lambda: 5000.0 + self.now)
        self.tell(*records)

    def tell(self, *records: Record) -> None:
        for record in records:
            self.facts = self.facts.after(record)
        self.since(0.0)

    def since(self, seconds: float, state: JobState = "Running") -> float | None:
        self.now += seconds
        stall = self.watch.look(self.facts, process(state), BATCH)
        return stall.since if stall else None


def test_a_job_that_does_no_step_for_long_has_stalled_since_its_last_and_goes_on_with_the_next() -> None:
    job = Watched(STARTED, progress(10))
    last = 5000.0 + job.now
    assert job.since(SHORTEST_S - 1) is None
    assert job.since(2) == last
    assert job.since(100) == last, "it stays the same, so that nothing is reported anew"
    job.tell(progress(11))
    assert job.since(1) is None


def test_a_job_of_slow_steps_is_given_time_for_many() -> None:
    step_s = 10.0
    job = Watched(STARTED, progress(10, rate=BATCH / step_s))
    assert job.since(USUAL_TIMES * step_s - 1) is None
    assert job.since(2) is not None


def test_before_a_rate_is_known_more_time_is_given() -> None:
    job = Watched(STARTED)
    assert job.since(UNKNOWN_S - 1) is None
    assert job.since(2) is not None


@pytest.mark.parametrize("activity", ["evaluating", "saving", "compiling"])
def test_what_keeps_a_job_from_stepping_for_a_good_reason_is_no_stall(activity: str) -> None:
    job = Watched(STARTED, progress(10), ActivityRecord(t=1.0, activity=activity))
    assert job.since(10_000) is None
    job.tell(ActivityRecord(t=2.0, activity="training"))
    assert job.since(SHORTEST_S + 1) is not None


def test_the_end_of_an_evaluation_starts_the_clock_anew() -> None:
    job = Watched(STARTED, progress(10), EVALUATING)
    assert job.since(10_000) is None
    job.tell(EPOCH)
    assert job.since(SHORTEST_S - 1) is None
    assert job.since(2) is not None


@pytest.mark.parametrize(
    "records",
    [(), (STARTED, progress(250)), (STARTED, progress(10), ModelRecord(t=1.0, path="m", sha256="a", bytes=1))],
    ids=["it has not begun", "all steps are done", "its model is written"],
)
def test_a_job_with_no_step_to_do_does_not_stall(records: tuple[Record, ...]) -> None:
    assert Watched(*records).since(100_000) is None


def test_a_frozen_job_has_not_stalled_and_is_given_time_after_its_thaw() -> None:
    job = Watched(STARTED, progress(10))
    assert job.since(10_000, "Frozen") is None
    assert job.since(SHORTEST_S - 1) is None
    assert job.since(2) is not None


def test_an_order_to_stop_a_stalled_job_is_a_failure_and_no_cancellation() -> None:
    wish = wish_of("Stop", "Stalled", 30, cancelled=False)
    assert wish is not None
    assert (wish.state, wish.reason) == ("Failed", "Stalled")
    cancelled = wish_of("Stop", "Stalled", 30, cancelled=True)
    assert cancelled is not None
    assert cancelled.state == "Cancelled"


@pytest.mark.parametrize(
    ("data", "device", "host", "reasons", "word"),
    [
        (0.05, 0.8, 0.15, [], "GPU"),
        (0.05, 0.8, 0.15, ["SwPowerCap"], "GPU"),
        (0.05, 0.8, 0.15, ["SwPowerCap", "HwThermalSlowdown"], "throttled"),
        (0.7, 0.01, 0.29, ["HwThermalSlowdown"], "data"),
        (0.1, 0.0, 0.9, [], "host"),
        (0.1, 0.9, 0.0, None, "CPU"),
        (0.6, 0.4, 0.0, None, "data"),
    ],
)
def test_the_bottleneck_is_a_word_and_the_shares_of_time(
    data: float, device: float, host: float, reasons: list[str] | None, word: str
) -> None:
    told = bottleneck(WaitsRecord(data=data, device=device, host=host), reasons)
    print(told)
    assert told.partition(":")[0] == word
    assert f"{device:.0%}" in told
    assert f"{data:.0%}" in told
    assert ("HwThermalSlowdown" in told) == (word == "throttled")
    assert len(bottleneck(WaitsRecord(data=1e300, device=-5, host=7), reasons)) < 200


def test_a_receipt_says_what_the_job_was_made_with() -> None:
    told = receipt_report(Facts().after(STARTED), "570.86", ["NVIDIA H200 GPU-a"])
    assert told is not None
    assert told.wire() == {
        "seed": 7,
        "cyxwiz": "0.1.0",
        "python": "3.12.3",
        "torch": "2.11.0",
        "cuda": "12.8",
        "driver": "570.86",
        "gpus": ["NVIDIA H200 GPU-a"],
        "code": "sha256:" + "c0" * 32,
        "data": "sha256:" + "da" * 32,
    }
    assert receipt_report(Facts(), None, []) is None


def test_a_receipt_holds_no_more_than_status_may() -> None:
    long = "x" * 10_000
    hostile = SoftwareRecord(cyxwiz=long, python=long, torch=long, cuda=long, code_sha256=long)
    told = receipt_report(Facts().after(STARTED.model_copy(update={"software": hostile})), None, [long] * 99)
    assert told is not None
    assert len(str(told.wire())) < 16 * 300 + 1000


SPEC = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}}
WHOLE = TrainingJobSpec.model_validate(SPEC)
SHARED = TrainingJobSpec.model_validate(SPEC | {"resources": {"gpus": 1, "gpuMemory": "4Gi"}})
GPU = GpuReading("GPU-a", "NVIDIA H200", 143_771, energy_joules=7200)
ONE = Devices((Device(GPU),))


@pytest.mark.parametrize(
    ("spec", "gpus", "before", "now", "told"),
    [
        (WHOLE, [], None, {}, None),
        (WHOLE, ["GPU-a"], None, {"GPU-a": 7200}, None),
        (WHOLE, ["GPU-a"], {"GPU-a": 3600}, {"GPU-a": 7200}, "1.00 Wh"),
        (WHOLE, ["GPU-a", "GPU-b"], {"GPU-a": 0, "GPU-b": 0}, {"GPU-a": 900, "GPU-b": 900}, "0.50 Wh"),
        (WHOLE, ["GPU-a"], {"GPU-a": 7200}, {"GPU-a": 3600}, "not known: the counter of a GPU is missing, or began"),
        (WHOLE, ["GPU-a"], {}, {"GPU-a": 3600}, "not known: the counter of a GPU is missing"),
        (SHARED, ["GPU-a"], {"GPU-a": 0}, {"GPU-a": 3600}, "not known: its GPU is shared"),
    ],
)
def test_energy_is_told_where_a_counter_is_the_jobs_alone(
    spec: TrainingJobSpec, gpus: list[str], before: dict[str, int] | None, now: dict[str, int], told: str | None
) -> None:
    text = energy_text(spec, ONE, gpus, before, now)
    assert text == told or (text is not None and told is not None and text.startswith(told))


def test_a_mig_device_has_no_counter_of_its_own() -> None:
    part = Devices((Device(replace(GPU, uuid="MIG-a", parent="GPU-a")),))
    text = energy_text(WHOLE, part, ["MIG-a"], counters(part, ["MIG-a"]), counters(part, ["MIG-a"]))
    assert text == "not known: a MIG device has no counter of its own"


async def test_counters_are_read_by_the_driver_at_once_and_no_session_is_left() -> None:
    gpus = [FakeGpu("GPU-a", energy_mj=5_000_000), FakeGpu("GPU-b", energy_mj=None)]
    with installed(FakeLibrary(gpus)) as library:
        meter = EnergyMeter(within_s=60.0)
        assert await meter.joules() == {"GPU-a": 5000}
        assert library.sessions == 0
        library.error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
        await asyncio.to_thread(lambda: meter._asking and meter._asking.join())  # pyright: ignore[reportPrivateUsage]
        assert await meter.joules() == {}


async def test_a_driver_that_hangs_holds_nothing_up_and_is_not_asked_again_meanwhile() -> None:
    let_go, asked = threading.Event(), 0

    def hang() -> dict[str, int]:
        nonlocal asked
        asked += 1
        let_go.wait(60)
        return {"GPU-a": 1}

    meter = EnergyMeter(hang, within_s=0.01)
    assert await meter.joules() == {}
    assert await meter.joules() == {}
    assert asked == 1
    let_go.set()


def test_without_a_driver_there_are_no_counters() -> None:
    with (
        installed(FakeLibrary([], error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)),
        pytest.raises(pynvml.NVMLError),
    ):
        energy_joules()
