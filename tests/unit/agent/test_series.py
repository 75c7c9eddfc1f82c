"""Prometheus series that begin and end with what they tell of."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, generate_latest

from cyxwiz_agent.devices import DeviceMonitor
from cyxwiz_agent.facts import Facts
from cyxwiz_agent.series import DeviceSeries, JobSeries, RunningJob
from cyxwiz_protocol.records import EpochRecord, ProgressRecord
from tests.doubles.nvml import FakeGpu, FakeLibrary, installed

FACTS = Facts(
    progress=ProgressRecord(
        t=1.0,
        epoch=3,
        epochs=5,
        step=130,
        total_steps=250,
        loss=0.5,
        learning_rate=0.01,
        samples_processed=4160,
        samples_per_second=1234.5,
        elapsed_seconds=3.4,
    ),
    epoch=EpochRecord(t=1.0, epoch=2, loss=0.6, validation_accuracy=0.9),
)


def test_a_jobs_series_end_with_the_job() -> None:
    jobs = [RunningJob("team", "j", FACTS), RunningJob("team", "just-begun", Facts())]
    registry = CollectorRegistry()
    registry.register(JobSeries(lambda: jobs))
    text = generate_latest(registry).decode()
    assert 'cyxwiz_job_epoch{name="j",namespace="team"} 3.0' in text
    assert 'cyxwiz_job_samples_per_second{name="j",namespace="team"} 1234.5' in text
    assert 'cyxwiz_job_validation_accuracy{name="j",namespace="team"} 0.9' in text
    assert "cyxwiz_job_accuracy{" not in text
    assert "just-begun" not in text
    jobs.clear()
    assert "team" not in generate_latest(registry).decode()


async def test_a_devices_series_are_those_of_the_last_look() -> None:
    with installed(FakeLibrary([FakeGpu("GPU-a"), FakeGpu("GPU-b", temperature=None)])):
        monitor = DeviceMonitor(lambda: None)
        registry = CollectorRegistry()
        registry.register(DeviceSeries(monitor))
        assert "GPU-" not in generate_latest(registry).decode()
        running = asyncio.create_task(monitor.run())
        assert await monitor.first_look(within_s=5)
        running.cancel()
    text = generate_latest(registry).decode()
    assert 'cyxwiz_gpu_health{name="NVIDIA H200",state="Healthy",uuid="GPU-a"} 1.0' in text
    assert 'cyxwiz_gpu_temperature_celsius{name="NVIDIA H200",uuid="GPU-a"} 31.0' in text
    assert 'cyxwiz_gpu_temperature_celsius{name="NVIDIA H200",uuid="GPU-b"}' not in text
    monitor.xids["GPU-a", 31] = 2
    assert 'cyxwiz_gpu_xid_total{uuid="GPU-a",xid="31"} 2.0' in generate_latest(registry).decode()
