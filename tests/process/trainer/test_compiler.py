"""Inductor itself, on the CPU: compiled in a process of its own, adopted by another, and what is said when it fails."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_protocol.order import JobOrder
from cyxwiz_trainer import data, device, job
from cyxwiz_trainer.blueprint import Blueprint
from cyxwiz_trainer.compilation import Compilation, Failed, Ready
from cyxwiz_trainer.fence import Fence, Stop
from cyxwiz_trainer.loop import Training
from cyxwiz_trainer.reporter import Reporter

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None,
    reason="there is no C++ compiler, which Inductor needs for the CPU",
)
WITHIN_S = 900.0


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Training, Blueprint]:
    """A small job on the CPU as its loop would have it."""
    raw: dict[str, Any] = {
        "model": {"name": "mlp", "options": {"hidden": 16}},
        "dataset": {"uri": "builtin://digits"},
        "maxSteps": 300,
        "resources": {"gpus": 0, "cpus": 1},
    }
    spec = TrainingJobSpec.model_validate(raw)
    where = device.prepare(JobOrder(assignment_id="a", namespace="t", name="j", attempt=1, spec=spec))
    parts = job.Parts.of(spec, data.load(spec, None), where)
    folder, stop = JobFolder(tmp_path), Stop()
    run = parts.on_device(spec, folder, where, Reporter(folder.metrics), Fence(None, stop), stop)
    return run, Blueprint.of(spec, parts.options, parts.data, run.plan.batch_size, where)


def outcome(compilation: Compilation) -> Ready | Failed:
    compilation.begin()
    until = time.monotonic() + WITHIN_S
    while (result := compilation.poll()) is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    return result


@needs_compiler
def test_a_step_compiled_in_another_process_computes_the_same_and_is_known_to_the_next_job(
    digits: tuple[Training, Blueprint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, blueprint = digits
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compilers"))
    monkeypatch.setenv("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")  # they would pay from the third kernel on
    compilation = Compilation(blueprint, tmp_path / "shared", tmp_path / "scratch", always=True)
    result = outcome(compilation)
    assert isinstance(result, Ready), result
    assert result.compile_s is not None

    again = Compilation(blueprint, tmp_path / "shared", tmp_path / "scratch", always=True)
    assert outcome(again) == Ready(None)
    forward, inputs, targets = blueprint.build(run.device)
    compiled = again.compiled(forward)
    inputs.copy_(torch.randn(inputs.shape))
    torch.testing.assert_close(compiled(inputs, targets), forward(inputs, targets))


def test_a_compiler_that_fails_says_why(digits: tuple[Training, Blueprint], tmp_path: Path) -> None:
    _, blueprint = digits
    broken = blueprint.model_copy(update={"input_dtype": "no such type"})
    result = outcome(Compilation(broken, tmp_path / "shared", tmp_path / "scratch"))
    assert isinstance(result, Failed)
    assert "no type of numbers" in result.why
    assert not list((tmp_path / "shared").iterdir())
