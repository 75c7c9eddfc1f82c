"""When a step is compiled, what is made of it, and what is said when it is not. Inductor itself is a process test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cyxwiz_trainer import compilation, compiled_folder
from cyxwiz_trainer.blueprint import Blueprint
from cyxwiz_trainer.compilation import Compilation, Failed, Ready
from cyxwiz_trainer.compile_policy import Decision, Known, decide
from cyxwiz_trainer.device import Device
from cyxwiz_trainer.fastest import Fastest
from cyxwiz_trainer.graph import Repeated
from cyxwiz_trainer.step_times import TIMED_STEPS, StepTimes, TimeMark

CPU = Device(torch.device("cpu"), None, "CPU")
FASTER = Known(compile_s=15, adopt_s=4, plain_step_s=0.002, compiled_step_s=0.0015)
SLOWER = Known(compile_s=15, adopt_s=4, plain_step_s=0.002, compiled_step_s=0.0021)


@pytest.mark.parametrize(
    ("hours_left", "known", "cached", "compiles"),
    [
        (0.0, None, False, False),
        (0.005, None, False, False),  # 18 s: over before it is compiled
        (0.05, None, False, False),  # 180 s, of which 30 are saved in 30
        (0.2, None, False, True),
        (0.045, FASTER, False, False),  # 162 s, of which 36 are saved in 19
        (0.05, FASTER, True, True),  # 44 in 4
        (0.005, FASTER, True, False),  # 3.5 in 4
        (100.0, SLOWER, True, False),
    ],
)
def test_a_step_is_compiled_when_that_saves_twice_what_it_takes(
    hours_left: float, known: Known | None, cached: bool, compiles: bool
) -> None:
    decision = decide(0.002, round(hours_left * 3600 / 0.002), known, cached=cached)
    assert decision.compile is compiles
    assert decision.words.startswith("compiling" if compiles else "not compiled")


def test_a_decision_says_its_numbers() -> None:
    assert decide(0.002, 500_000, None, cached=False).words == "compiling: would save about 194 s and take 30 s"
    assert decide(0.002, 500_000, SLOWER, cached=True).words == (
        "not compiled: here that took 2.1 ms a step instead of 2 ms"
    )


class Clock:
    """Time that goes on as the steps say."""

    def __init__(self) -> None:
        self.now_ms = 0.0

    def mark(self) -> TimeMark:
        return Mark(self)


class Mark:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at_ms = 0.0

    def record(self) -> None:
        self._at_ms = self._clock.now_ms

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: TimeMark, /) -> float:
        assert isinstance(end, Mark)
        return end._at_ms - self._at_ms


def test_an_evaluation_between_two_steps_does_not_move_their_time() -> None:
    clock = Clock()
    times = StepTimes(clock.mark)
    for step in range(TIMED_STEPS + 1):
        assert times.median_s() is None
        times.step_queued()
        clock.now_ms += 5000.0 if step == 20 else 2.0
    assert times.median_s() == pytest.approx(0.002)


class FakeCompilation(Compilation):
    """Decides and answers as it is told, and keeps what it is to remember."""

    def __init__(self, answers: list[Ready | Failed | None], *, go: bool = True) -> None:
        self._answers = answers
        self._go = go
        self.begun = False
        self.remembered: list[tuple[float, float]] = []

    def decide(self, step_s: float, steps_left: int) -> Decision:
        return Decision(self._go, "as told")

    def begin(self) -> None:
        self.begun = True

    def poll(self) -> Ready | Failed | None:
        return self._answers.pop(0)

    def remember(self, compile_s: float | None, adopt_s: float, plain_step_s: float, compiled_step_s: float) -> None:
        self.remembered.append((plain_step_s, compiled_step_s))


class Steps:
    """Counts steps of both kinds; a compiled one takes `compiled_ms`, a plain one 2 ms."""

    def __init__(self, fake: FakeCompilation, compiled_ms: float = 1.0, fails: bool = False) -> None:
        self.clock = Clock()
        self.plain = self.compiled = 0
        self._compiled_ms, self._fails = compiled_ms, fails
        self.step = Fastest(
            self._repeated(self._plain_step), lambda _: self._repeated(self._compiled_step), fake, self.clock.mark, 1000
        )

    def _repeated(self, step: Callable[[], None]) -> Repeated:
        return Repeated(step, CPU, 1000)

    def _plain_step(self) -> None:
        self.plain += 1
        self.clock.now_ms += 2.0

    def _compiled_step(self) -> None:
        if self._fails:
            raise RuntimeError("no such kernel\nand a long trace")
        self.compiled += 1
        self.clock.now_ms += self._compiled_ms

    def run(self, count: int) -> None:
        for _ in range(count):
            self.step()


def test_a_compiled_step_that_was_timed_faster_stays() -> None:
    fake = FakeCompilation([None, None, Ready(15.0)])
    steps = Steps(fake)
    steps.run(400)
    assert steps.plain + steps.compiled == 400
    assert steps.plain == 1 + (TIMED_STEPS + 1) + 3
    assert fake.remembered == [(pytest.approx(0.002), pytest.approx(0.001))]
    assert steps.step.words == "compiled"


def test_a_compiled_step_that_was_timed_slower_is_dropped_and_that_is_said_and_remembered() -> None:
    fake = FakeCompilation([Ready(15.0)])
    steps = Steps(fake, compiled_ms=2.5)
    steps.run(400)
    assert steps.compiled == 1 + TIMED_STEPS + 1
    assert steps.plain + steps.compiled == 400
    assert fake.remembered == [(pytest.approx(0.002), pytest.approx(0.0025))]
    assert steps.step.words == "not compiled: that took 2.5 ms a step instead of 2 ms"


@pytest.mark.parametrize(
    ("fake", "fails", "words"),
    [
        (FakeCompilation([None, Failed("the compiler ended with 1: no C compiler")]), False, "no C compiler"),
        (FakeCompilation([Ready(None)]), True, "not compiled: no such kernel"),
    ],
)
def test_a_job_whose_step_cannot_be_compiled_goes_on_without_losing_one(
    fake: FakeCompilation, fails: bool, words: str
) -> None:
    steps = Steps(fake, fails=fails)
    steps.run(400)
    assert steps.plain == 400
    assert words in (steps.step.words or "")


def test_nothing_is_begun_when_it_does_not_pay() -> None:
    fake = FakeCompilation([], go=False)
    steps = Steps(fake)
    steps.run(400)
    assert (steps.plain, fake.begun, steps.step.words) == (400, False, None)


def blueprint(**changes: object) -> Blueprint:
    fields = {
        "model": "mlp",
        "options": {"hidden": 16, "depth": 1},
        "inputShape": [6],
        "inputDtype": "float32",
        "targetShape": [],
        "targetDtype": "int64",
        "outputs": 3,
        "task": "classification",
        "labelSmoothing": 0.0,
        "batch": 12,
        "precision": "float32",
        "device": "cpu",
        "autocast": None,
        "threads": 1,
        "torchVersion": torch.__version__,
    }
    return Blueprint.model_validate(fields | changes)


def test_a_step_is_known_again_by_its_model_shape_gpu_and_torch() -> None:
    same = blueprint().key
    assert blueprint().key == same
    others = ({"model": "cnn"}, {"inputShape": [7]}, {"device": "NVIDIA H200"}, {"torchVersion": "9"}, {"batch": 24})
    assert same not in {blueprint(**other).key for other in others}


def test_what_compiling_brought_is_known_to_the_next_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "SPARE_HOST_BYTES", 0)
    first, second = (Compilation(blueprint(), tmp_path, tmp_path / job) for job in ("a", "b"))
    assert second.decide(0.002, 500_000).compile
    first.remember(15.0, 4.0, 0.002, 0.0021)
    assert second.decide(0.002, 500_000).words == "not compiled: here that took 2.1 ms a step instead of 2 ms"
    for broken in ("{", '{"compileS": 15, "adoptS": 4, "plainStepS": 0, "compiledStepS": 1}'):
        (tmp_path / f"{blueprint().key}.json").write_text(broken)
        assert second.decide(0.002, 500_000).compile


def test_a_cache_of_another_uid_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Compilation(blueprint(), tmp_path, tmp_path / "job")
    (tmp_path / f"{blueprint().key}.cache").write_bytes(b"pickled by another tenant")
    monkeypatch.setattr(os, "getuid", lambda: 64_000)
    with pytest.raises(OSError, match="written by another uid"):
        job.compiled(lambda inputs, targets: (inputs, targets))


def test_a_job_that_shares_nothing_keeps_no_cache(tmp_path: Path) -> None:
    for folder, stays in ((tmp_path / "job", False), (tmp_path / "shared", True)):
        folder.mkdir()
        cache = folder / f"{blueprint().key}.cache"
        cache.write_bytes(b"cache")
        Compilation(blueprint(), folder, tmp_path / "job").end()
        assert cache.exists() is stays


def test_a_machine_without_room_for_a_second_process_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "SPARE_HOST_BYTES", 2**60)
    assert "of host memory are free" in Compilation(blueprint(), tmp_path, tmp_path).decide(1.0, 500_000).words


def test_what_was_compiled_and_not_used_for_longest_goes_when_there_is_too_much(tmp_path: Path) -> None:
    for age, name in enumerate(["newest", "middle", "oldest"]):
        for suffix, size in ((".cache", 100), (".json", 5)):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(b"x" * size)
            os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "inductor").mkdir()
    compiled_folder.used(tmp_path / "oldest.cache")
    compiled_folder.prune(tmp_path, most_bytes=250, most_records=1)
    assert {path.name for path in tmp_path.iterdir()} == {"inductor", "oldest.cache", "newest.cache", "newest.json"}
    compiled_folder.prune(tmp_path / "not-there")
