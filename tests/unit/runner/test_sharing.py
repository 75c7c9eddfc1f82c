"""When the server through which jobs share a GPU runs, and what its end means."""

import asyncio

import pytest

from cyxwiz_runner import sharing as sharing_module
from cyxwiz_runner.mps import MpsFailed
from cyxwiz_runner.sharing import Sharing

GIB = 2**30


class FakeServer:
    def __init__(self, fails=False):
        self.fails, self.runs, self.lost, self.starts = fails, False, False, 0

    async def start(self):
        if self.fails:
            raise MpsFailed("no device")
        self.starts += not self.runs
        self.runs = True

    def environment(self, gpu_count, gpu_memory_bytes):
        return {"LIMIT": f"{gpu_count} x {gpu_memory_bytes // GIB}"}

    def is_lost(self):
        return self.lost

    async def stop(self):
        self.runs = self.lost = False


async def join(sharing, job, lost=lambda: None):
    return await sharing.join(job, 1, 4 * GIB, lost)


async def test_the_server_runs_from_the_first_job_to_the_last():
    server = FakeServer()
    sharing = Sharing(server)
    first, _ = await join(sharing, "a"), await join(sharing, "b")
    assert (first.words, first.environment) == ("MPS, 4Gi", {"LIMIT": "1 x 4"})
    await sharing.leave("a")
    await sharing.leave("a")
    assert (server.runs, server.starts) == (True, 1)
    await sharing.leave("b")
    assert not server.runs


async def test_without_a_server_and_with_one_that_does_not_start_jobs_share_by_time_slices():
    for server in (None, FakeServer(fails=True)):
        sharing = Sharing(server)
        share = await join(sharing, "a")
        assert (share.words, share.environment, sharing.way) == ("time slices, 4Gi", {}, "time slices")
        await sharing.leave("a")


async def test_a_lost_server_is_told_once_to_each_of_its_jobs_and_the_next_job_starts_another(monkeypatch):
    monkeypatch.setattr(sharing_module, "LOOK_EVERY_S", 0)
    server, told = FakeServer(), []
    sharing = Sharing(server)
    watch = asyncio.create_task(sharing.watch())
    for job in ("a", "b"):
        await join(sharing, job, lambda job=job: told.append(job))
    server.lost = True
    for _ in range(20):
        await asyncio.sleep(0)
    assert told == ["a", "b"]
    await sharing.leave("a")  # its job ends later than the server
    await join(sharing, "c")
    assert (server.runs, server.starts) == (True, 2)
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
