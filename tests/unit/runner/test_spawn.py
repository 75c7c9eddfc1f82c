"""What a trainer's environment holds."""

from pathlib import Path

from cyxwiz_runner.spawn import environment
from cyxwiz_runner.trainer import SpawnPlan


def test_nothing_of_the_runners_environment_leaks(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    variables = environment(SpawnPlan(), Path("home"), "marker", None)
    assert not {"KUBERNETES_SERVICE_HOST", "PYTHONPATH", "CYXWIZ_DATA_ROOT"} & variables.keys()


def test_a_cpu_trainer_sees_no_gpu_and_a_gpu_trainer_only_its_own():
    assert environment(SpawnPlan(), Path("home"), "marker", None)["CUDA_VISIBLE_DEVICES"] == ""
    two = environment(SpawnPlan(gpus=("GPU-a", "GPU-b")), Path("home"), "marker", None)
    assert two["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


def test_threads_and_determinism_are_fixed_before_the_interpreter_starts():
    variables = environment(SpawnPlan(cpus=3), Path("home"), "marker", Path("data"))
    assert variables["OMP_NUM_THREADS"] == "3"
    assert int(variables["GOMP_SPINCOUNT"]) <= 10_000
    assert variables["PYTHONHASHSEED"] == "0"
    assert variables["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert variables["CYXWIZ_DATA_ROOT"] == "data"
