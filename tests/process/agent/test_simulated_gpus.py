"""The agent's own driver code in a process that loads the library of simulated GPUs, as it loads NVIDIA's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cyxwiz_platform import SimulatedGpus

Ask = Callable[[str], Any]
NVML_GPU_IS_LOST = 15


@pytest.fixture
def gpus(tmp_path: Path) -> SimulatedGpus:
    return SimulatedGpus(tmp_path / "gpus.json", 2)


@pytest.fixture
def ask(gpus: SimulatedGpus) -> Iterator[Ask]:
    """The answer of the process to "look" or "wait"."""
    command = [sys.executable, str(Path(__file__).with_name("watcher.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **gpus.environ}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        reading, writing = process.stdout, process.stdin

        def ask(question: str) -> Any:
            writing.write(question + "\n")
            writing.flush()
            return json.loads(reading.readline())

        yield ask
        writing.close()


def test_simulated_gpus_are_read_like_real_ones(gpus: SimulatedGpus, ask: Ask) -> None:
    seen = ask("look")
    assert [gpu["uuid"] for gpu in seen] == gpus.uuids
    expected = {"name": "Simulated H200", "architecture": "Hopper", "computeCapability": "9.0", "health": "Healthy"}
    expected |= {"memoryTotalMiB": 143_771, "memoryReservedMiB": 615, "pciBusId": "00000000:10:00.0"}
    assert expected.items() <= seen[0].items()
    assert seen[0]["readings"]["clocksEventReasons"] == ["GpuIdle"]


def test_a_changed_file_is_a_changed_gpu(gpus: SimulatedGpus, ask: Ask) -> None:
    ask("look")
    gpus.change(0, temperature=91, ecc=None)
    gpus.change(1, error=NVML_GPU_IS_LOST)
    hot, lost = ask("look")
    assert hot["readings"]["temperatureCelsius"] == 91
    assert "eccUncorrected" not in hot
    assert (lost["health"], lost["healthReason"]) == ("Lost", "GPU 1 does not answer: GPU is lost")
    gpus.change(1, error=None)
    assert [gpu["health"] for gpu in ask("look")] == ["Healthy", "Healthy"]


def test_an_error_is_told_once(gpus: SimulatedGpus, ask: Ask) -> None:
    ask("look")
    gpus.tell_xid(1, 48)
    gpus.tell_xid(0, 13)
    assert sorted([ask("wait"), ask("wait")]) == sorted([[gpus.uuids[0], 13], [gpus.uuids[1], 48]])


def test_a_driver_that_goes_and_comes_back_is_a_state(gpus: SimulatedGpus, ask: Ask) -> None:
    ask("look")
    aside = gpus.file.with_suffix(".aside")
    gpus.file.rename(aside)
    assert [gpu["health"] for gpu in ask("look")] == ["Lost", "Lost"]
    aside.rename(gpus.file)
    assert [gpu["health"] for gpu in ask("look")] == ["Healthy", "Healthy"]
