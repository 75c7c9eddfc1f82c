"""Prometheus series of jobs and devices, made at each scrape from what is true then: they end with their subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .devices import DeviceMonitor
from .facts import Facts

_MIB = 2**20
_JOB_LABELS = ("namespace", "name")
_GPU_LABELS = ("uuid", "name")


@dataclass(frozen=True)
class RunningJob:
    """One job whose processes are here."""

    namespace: str
    name: str
    facts: Facts
    stalled: bool = False


class JobSeries(Collector):
    """How far each running job is."""

    def __init__(self, jobs: Callable[[], Iterable[RunningJob]]) -> None:
        self._jobs = jobs

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        jobs = list(self._jobs())
        for name, help_text, read in _JOB_SERIES:
            family = GaugeMetricFamily(f"cyxwiz_job_{name}", help_text, labels=_JOB_LABELS)
            for job in jobs:
                value = read(job.facts)
                if value is not None:
                    family.add_metric([job.namespace, job.name], value)
            yield family
        stalled = GaugeMetricFamily(
            "cyxwiz_job_stalled", "1 while it does no step for many times the usual time of one", labels=_JOB_LABELS
        )
        for job in jobs:
            if job.facts.started is not None:
                stalled.add_metric([job.namespace, job.name], float(job.stalled))
        yield stalled


def _progress(field: str) -> Callable[[Facts], float | None]:
    return lambda facts: None if facts.progress is None else getattr(facts.progress, field)


def _epoch(field: str) -> Callable[[Facts], float | None]:
    return lambda facts: None if facts.epoch is None else getattr(facts.epoch, field)


_JOB_SERIES: tuple[tuple[str, str, Callable[[Facts], float | None]], ...] = (
    ("epoch", "Epoch in progress, from 1", _progress("epoch")),
    ("epochs", "Epochs to be done", _progress("epochs")),
    ("step", "Training steps done", _progress("step")),
    ("steps", "Training steps to be done", _progress("total_steps")),
    ("loss", "Mean training loss of the epoch so far", _progress("loss")),
    ("accuracy", "Training accuracy of the epoch so far, 0 to 1", _progress("accuracy")),
    ("validation_loss", "Loss on held-out data after the last epoch", _epoch("validation_loss")),
    ("validation_accuracy", "Accuracy on held-out data after the last epoch", _epoch("validation_accuracy")),
    ("learning_rate", "Learning rate", _progress("learning_rate")),
    ("samples_per_second", "Samples trained on per second, of late", _progress("samples_per_second")),
    ("gpu_memory_peak_bytes", "Most GPU memory held so far", _progress("gpu_memory_peak")),
)


class DeviceSeries(Collector):
    """Every device as of the last look at it."""

    def __init__(self, monitor: DeviceMonitor) -> None:
        self._monitor = monitor

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering does not collect

    def collect(self) -> Iterator[Metric]:
        known = self._monitor.devices.known
        health = GaugeMetricFamily("cyxwiz_gpu_health", "1 for the state it is in", labels=(*_GPU_LABELS, "state"))
        for device in known:
            health.add_metric([device.reading.uuid, device.reading.name, device.health.state], 1)
        yield health
        answering = [device.reading for device in known if device.health.state != "Lost"]
        for name, help_text, field, unit in _GPU_SERIES:
            family = GaugeMetricFamily(f"cyxwiz_gpu_{name}", help_text, labels=_GPU_LABELS)
            for reading in answering:
                value = getattr(reading, field)
                if value is not None:
                    family.add_metric([reading.uuid, reading.name], value * unit)
            yield family
        errors = CounterMetricFamily(
            "cyxwiz_gpu_xid", "Errors its driver told of since the agent's start", labels=("uuid", "xid")
        )
        for (uuid, number), count in sorted(self._monitor.xids.items()):
            errors.add_metric([uuid, str(number)], count)
        yield errors


_GPU_SERIES = (
    ("temperature_celsius", "Temperature", "temperature_celsius", 1),
    ("power_watts", "Power", "power_watts", 1),
    ("energy_joules", "Energy since its driver was loaded", "energy_joules", 1),
    ("utilization_ratio", "Share of time in which it computed", "utilization_percent", 0.01),
    ("memory_total_bytes", "Memory", "memory_total_mib", _MIB),
    ("memory_reserved_bytes", "Memory its driver keeps for itself", "memory_reserved_mib", _MIB),
    ("memory_free_bytes", "Free memory", "memory_free_mib", _MIB),
    ("ecc_uncorrected_errors", "Uncorrected memory errors since its driver was loaded", "ecc_uncorrected", 1),
    ("remapped_rows", "Rows of its memory that were replaced by spare ones", "remapped_rows", 1),
)
