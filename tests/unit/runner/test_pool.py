"""Warm trainers: how many, for which devices, and when there are none."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from cyxwiz_protocol.handshake import Ready
from cyxwiz_protocol.job_folder import JobFolder
from cyxwiz_runner.pool import Pool
from cyxwiz_runner.shapes import Shapes
from cyxwiz_runner.trainer import StartFailed

NO_PID = 2**22 + 1
"""Above every pid of Linux."""
NO_SHAPES = Shapes(Path("/proc/none"))
SHAPE = {
    "spec": {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}},
    "inputShape": [1, 8, 8],
    "inputType": "uint8",
    "outputs": 10,
}


class FakeTrainer:
    def __init__(self, plan, fails):
        self.plan, self.pid, self.fails, self.ended = plan, NO_PID, fails, False
        self.imported, self.ready = False, None
        self.lose = lambda: None
        self.killed = asyncio.Event()
        self.has_rehearsed = asyncio.Event()
        self.has_rehearsed.set()

    async def become_imported(self):
        await asyncio.sleep(0)
        if self.fails:
            raise StartFailed("it is a bad day")
        self.imported = True

    async def become_ready(self, prepare):
        await asyncio.sleep(0)
        if self.killed.is_set() or prepare.shapes:
            raise StartFailed("it is a bad day")
        self.ready = Ready(pid=self.pid, torch_version="0.0", models=["fake"], device="cpu")
        return self.ready

    async def rehearsed(self):
        await self.has_rehearsed.wait()
        return 0

    def on_exit(self, callback):
        self.lose = callback

    def kill(self):
        self.killed.set()
        return True

    async def end(self):
        self.ended = True


class FakeSpawner:
    def __init__(self):
        self.trainers = []
        self.taken = ()
        self.fails = False
        self.rehearses_long = False

    def spawn(self, plan):
        trainer = FakeTrainer(plan, self.fails)
        if self.rehearses_long:
            trainer.has_rehearsed.clear()
        self.trainers.append(trainer)
        return trainer


async def settled():
    """Every task has gone as far as it can."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def spawner():
    return FakeSpawner()


@contextlib.asynccontextmanager
async def open_pool(spawner, wanted, shapes=None, settle_s=0.0):
    async with asyncio.TaskGroup() as tasks:
        pool = Pool(spawner, wanted, 2, shapes or NO_SHAPES, tasks, lambda: None, settle_s)
        await settled()
        yield pool
        await pool.close()
    assert all(trainer.ended for trainer in spawner.trainers if trainer not in spawner.taken)


async def test_a_taken_trainer_is_replaced_and_never_given_twice(spawner):
    async with open_pool(spawner, {(): 2}) as pool:
        assert (pool.ready_count, pool.warming_count) == (2, 0)
        first, second = await pool.take([]), await pool.take([])
        assert first is not second
        assert await pool.take([]) is None
        assert pool.why_cold([]) == "no warm trainer was ready"
        await settled()
        assert pool.ready_count == 2
        spawner.taken = (first, second)


async def test_a_job_may_have_a_trainer_that_still_rehearses(spawner):
    spawner.rehearses_long = True
    async with open_pool(spawner, {("GPU-a",): 1}) as pool:
        assert (pool.ready_count, pool.warming_count, pool.warming_on) == (1, 1, ("GPU-a",))
        assert await pool.take(["GPU-a"]) is spawner.trainers[0]
        taken = spawner.trainers[0]
        spawner.taken = (taken,)
        pool.hold(["GPU-a"])
        await settled()
        assert not taken.killed.is_set(), "it is the job's"
        assert pool.warming_on == ()
        taken.has_rehearsed.set()  # or the job has begun
        await settled()
        assert (pool.imported_count, pool.warming_count) == (1, 0), "the next follows"
        pool.vacate(["GPU-a"])


async def test_an_idle_trainer_that_rehearses_leaves_a_gpu_that_a_job_holds(spawner):
    spawner.rehearses_long = True
    async with open_pool(spawner, {("GPU-a",): 1}) as pool:
        pool.hold(["GPU-a"])
        await pool.cleared()
        assert spawner.trainers[0].ended
        spawner.trainers[0].has_rehearsed.set()  # its socket is closed


async def test_one_job_waits_for_the_trainer_that_warms_up_and_the_next_does_not(spawner):
    async with asyncio.TaskGroup() as tasks:
        pool = Pool(spawner, {(): 1}, 2, NO_SHAPES, tasks, lambda: None)
        await asyncio.sleep(0)
        assert pool.warming_count == 1
        first, second = tasks.create_task(pool.take([])), tasks.create_task(pool.take([]))
        assert await second is None
        assert await first is spawner.trainers[0]
        await pool.close()


async def test_a_job_that_waits_for_a_trainer_which_fails_starts_cold(spawner):
    spawner.fails = True
    async with asyncio.TaskGroup() as tasks:
        pool = Pool(spawner, {(): 1}, 2, NO_SHAPES, tasks, lambda: None)
        await asyncio.sleep(0)
        assert await pool.take([]) is None
        await pool.close()


async def test_shapes_that_a_trainer_dies_of_after_it_was_ready_are_forgotten(spawner, tmp_path):
    spawner.rehearses_long = True
    shapes = Shapes(tmp_path / "shapes.json")
    async with open_pool(spawner, {("GPU-a",): 1}, shapes) as pool:
        (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
        shapes.remember(JobFolder(tmp_path))
        assert shapes.newest(on_gpu=True)
        spawner.trainers[0].lose()
        spawner.trainers[0].has_rehearsed.set()
        await settled()
        assert not shapes.newest(on_gpu=True)
        assert pool.message is None


async def test_one_trainer_warms_up_at_a_time_and_gives_way(spawner):
    async with asyncio.TaskGroup() as tasks:
        pool = Pool(spawner, {(): 3}, 2, NO_SHAPES, tasks, lambda: None)
        seen = set()
        for _ in range(50):
            await asyncio.sleep(0)
            seen.add(pool.warming_count)
        assert seen == {0, 1}
        await pool.close()


async def test_three_failures_in_a_row_end_warm_starts_and_a_job_that_begins_brings_them_back(spawner):
    spawner.fails = True
    async with open_pool(spawner, {(): 1}) as pool:
        assert len(spawner.trainers) == 3
        assert pool.message == (
            "3 trainers in a row failed before their job began, so jobs start cold: it is a bad day"
        )
        assert pool.why_cold([]) == "warm trainers are off after 3 failures in a row"
        spawner.fails = False
        pool.succeeded()
        await settled()
        assert (pool.message, pool.ready_count) == (None, 1)


async def test_idle_trainers_that_keep_dying_are_not_replaced_for_ever(spawner):
    async with open_pool(spawner, {(): 1}) as pool:
        for _ in range(5):
            spawner.trainers[-1].lose()
            await settled()
        assert len(spawner.trainers) == 3
        assert pool.message is not None
        assert pool.message.endswith("it ended while it waited for a job")


async def test_a_gpu_that_a_job_holds_has_no_idle_trainer_on_it_but_one_that_waits_imported(spawner):
    async with open_pool(spawner, {("GPU-a",): 1, ("GPU-b",): 1}) as pool:
        on_a, on_b = spawner.trainers
        pool.hold(["GPU-b", "GPU-a"])
        await pool.cleared()
        assert on_a.ended
        assert on_b.ended
        await settled()
        assert (pool.ready_count, pool.warming_count) == (0, 0)
        waiting = spawner.trainers[2:]
        assert [(trainer.imported, trainer.ready) for trainer in waiting] == [(True, None)] * 2
        pool.vacate(["GPU-a", "GPU-b"])
        await settled()
        assert pool.ready_count == 2
        assert spawner.trainers[2:] == waiting, "the waiting ones took their devices"


async def test_a_job_that_must_start_cold_takes_the_trainer_that_waits_imported(spawner):
    async with open_pool(spawner, {("GPU-a",): 1}) as pool:
        pool.hold(["GPU-a"])
        await settled()
        taken = pool.take_imported(["GPU-a"])
        assert taken is spawner.trainers[1]
        assert pool.take_imported(["GPU-a"]) is None
        spawner.taken = (taken,)
        await settled()
        assert spawner.trainers[2].imported, "the next waits"
        pool.vacate(["GPU-a"])


async def test_imports_that_keep_failing_beside_a_job_are_given_up(spawner):
    async with open_pool(spawner, {("GPU-a",): 1}) as pool:
        spawner.fails = True
        pool.hold(["GPU-a"])
        await settled()
        assert len(spawner.trainers) == 1 + 3
        assert pool.message is not None


async def test_shapes_that_a_trainer_fails_on_are_forgotten(spawner, tmp_path):
    (tmp_path / "shapes.json").write_text(json.dumps([SHAPE]))
    async with open_pool(spawner, {("GPU-a",): 1}, Shapes(tmp_path / "shapes.json")) as pool:
        assert (len(spawner.trainers), pool.ready_count, pool.message) == (2, 1, None)
    assert json.loads((tmp_path / "shapes.json").read_text()) == []


async def test_a_trainer_that_warms_up_on_a_gpu_gives_it_up_to_a_job_without_being_counted_as_failed(spawner):
    async with asyncio.TaskGroup() as tasks:
        pool = Pool(spawner, {("GPU-a",): 1}, 2, NO_SHAPES, tasks, lambda: None)
        await asyncio.sleep(0)
        assert pool.warming_count == 1
        for _ in range(5):
            pool.hold(["GPU-a"])
            await settled()
            assert (pool.ready_count, pool.message) == (0, None)
            pool.vacate(["GPU-a"])
            await asyncio.sleep(0)
        await pool.close()


async def test_a_job_is_told_why_nothing_is_kept_warm_for_it(spawner):
    async with open_pool(spawner, {(): 0}) as pool:
        assert pool.why_cold([]) == "no warm trainers are kept for the CPU"
        assert pool.why_cold(["GPU-a"]) == "no warm trainers are kept for this GPU"
        assert pool.why_cold(["GPU-a", "GPU-b"]) == "2 GPUs"
        assert pool.message is None


async def test_trainers_wait_on_the_gpus_that_were_named_last_and_on_no_other(spawner):
    async with open_pool(spawner, {(): 1}) as pool:
        pool.keep_on(["GPU-a", "GPU-b"])
        await settled()
        assert pool.ready_count == 3
        pool.keep_on(["GPU-b"])
        await settled()
        assert pool.ready_count == 2
        assert [trainer.plan.gpus for trainer in spawner.trainers if trainer.ended] == [("GPU-a",)]
        assert await pool.take(["GPU-a"]) is None
        assert pool.why_cold(["GPU-a"]) == "no warm trainers are kept for this GPU"
        spawner.taken = (await pool.take(["GPU-b"]),)
        assert spawner.taken != (None,)


async def test_a_trainer_that_waits_beside_a_job_ends_with_the_gpus_name(spawner):
    async with open_pool(spawner, {(): 0}) as pool:
        pool.keep_on(["GPU-a"])
        pool.hold(["GPU-a"])
        await settled()
        assert pool.imported_count == 1
        pool.keep_on([])
        await settled()
        assert pool.imported_count == 0
        pool.vacate(["GPU-a"])
        await settled()
        assert pool.ready_count == 0


async def test_a_gpu_that_a_job_has_left_stays_empty_until_its_memory_could_be_looked_at(spawner):
    async with open_pool(spawner, {("GPU-a",): 1}, settle_s=3600) as pool:
        spawner.taken = (await pool.take(["GPU-a"]),)
        pool.hold(["GPU-a"])
        await settled()
        pool.vacate(["GPU-a"])
        await settled()
        assert (pool.imported_count, pool.ready_count, pool.warming_on) == (1, 0, ())
        following = pool.take_imported(["GPU-a"])  # the next job need not wait for that
        assert following is not None
        spawner.taken += (following,)
