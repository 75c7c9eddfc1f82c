"""A job's remote data through the real runner and a real fetching process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cyxwiz_protocol.fetching import read_inputs
from tests.doubles.web import File, WebServer

from .conftest import Runner

CONTENT = bytes(range(256)) * 1000


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    web = WebServer(tmp_path_factory.mktemp("web"))
    yield web
    web.close()


@pytest.fixture
def fetching(runner: Runner, web: WebServer, tmp_path: Path) -> Runner:
    """A runner that may fetch from the server of the test."""
    config = tmp_path / "remote.json"
    store = {"scheme": "s3", "buckets": ["x"], "accessKeyId": "AK", "secretAccessKey": "hunter2"}
    config.write_text(json.dumps({"allow": [web.address], "certificates": web.certificates, "stores": [store]}))
    runner.start("--remote", str(config))
    return runner


@pytest.fixture
def open_runner() -> Iterator[Runner]:
    """Not started; other uids get through to its folders."""
    with tempfile.TemporaryDirectory(prefix="cyxwiz-") as folder:
        Path(folder).chmod(0o755)
        runner = Runner(Path(folder) / "state")
        yield runner
        runner.wipe_out()


def may_run_here(uid: int) -> bool:
    """Whether that user gets through to this interpreter."""
    try:
        return subprocess.run([sys.executable, "-c", "import cyxwiz_store"], user=uid, cwd="/").returncode == 0
    except OSError:
        return False


def order(uri: str) -> dict[str, Any]:
    spec = {"model": {"name": "mlp"}, "dataset": {"uri": uri}}
    return {"assignmentId": "a", "namespace": "team", "name": "job", "spec": spec}


def test_a_job_starts_with_a_link_to_its_file_and_loses_it_at_its_end(
    fetching: Runner, web: WebServer, until: Callable[[Callable[[], Any], str], Any]
) -> None:
    web.files["/data.npz"] = File(CONTENT)
    uri = web.url("/data.npz")
    folder = fetching.run("work", **order(uri))
    fetching.wait_for_state(folder, "Running")
    file = read_inputs(folder.inputs)[uri]
    assert Path(file.path).read_bytes() == CONTENT
    assert (file.sha256, file.name) == (hashlib.sha256(CONTENT).hexdigest(), "data.npz")
    (cached,) = (fetching.state / "cache").glob("*/data")
    assert cached.stat().st_nlink == 2
    assert cached.stat().st_mode & 0o222 == 0
    environ = Path(f"/proc/{fetching.wait_for_state(folder, 'Running').pid}/environ").read_bytes()
    assert b"hunter2" not in environ
    fetching.stop(folder, 0)
    fetching.wait_for_state(folder, "Reaped")
    assert cached.stat().st_nlink == 1
    assert fetching.children() == []


def test_a_file_that_cannot_be_had_ends_the_job_before_it_has_a_trainer(fetching: Runner, web: WebServer) -> None:
    web.hits.clear()
    folder = fetching.run("work", gpus=["GPU-1"], **order("https://169.254.169.254/latest/meta-data"))
    job = fetching.wait_for_state(folder, "Reaped")
    assert job.exit is not None
    assert (job.exit.cause, job.exit.exit_code, job.start) == ("StartFailed", 10, None)
    (record,) = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert (record["kind"], record["failure"]) == ("failure", "UserError")
    assert "link-local or metadata address" in record["message"]
    assert "link-local" in folder.log.read_text()
    assert fetching.snapshot().message is None, "no trainer is blamed"


def test_a_stop_ends_a_transfer(
    fetching: Runner, web: WebServer, until: Callable[[Callable[[], Any], str], Any]
) -> None:
    web.files["/slow"] = File(CONTENT, breaks_after=1, breaks=10**6)
    folder = fetching.run("work", **order(web.url("/slow")))
    until(lambda: list((fetching.state / "cache").glob("*/part")), "the transfer has begun")
    fetching.stop(folder, 30)
    fetching.wait_for_state(folder, "Reaped")
    until(lambda: not fetching.leftovers(), "nothing is left of it")


def test_a_configuration_that_cannot_be_read_is_the_nodes_fault_and_quotes_nothing(
    fetching: Runner, web: WebServer, tmp_path: Path
) -> None:
    (tmp_path / "remote.json").write_text('{"secret": hunter2')
    folder = fetching.run("work", **order(web.url("/data.npz")))
    fetching.wait_for_state(folder, "Reaped")
    record = json.loads(folder.metrics.read_text())
    assert record["failure"] == "Crashed"
    assert "hunter2" not in folder.metrics.read_text() + folder.log.read_text() + fetching.output.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives processes other uids")
def test_with_uids_the_cache_is_closed_to_jobs_but_for_their_own_file(open_runner: Runner, web: WebServer) -> None:
    if not may_run_here(241000):
        pytest.skip("this interpreter lies where another user may not run it")
    runner = open_runner
    web.files["/data.npz"] = File(CONTENT)
    folder = runner.state.parent
    certificates = folder / "ca.crt"
    certificates.write_bytes(Path(web.certificates).read_bytes())
    certificates.chmod(0o644)
    config = folder / "remote.json"
    config.write_text(json.dumps({"allow": [web.address], "certificates": str(certificates)}))
    runner.start("--remote", str(config), "--uids", "241000-241010")
    uri = web.url("/data.npz")
    folder = runner.run("work", **order(uri))
    job = runner.wait_for_state(folder, "Running")
    assert job.pid is not None
    uid = Path(f"/proc/{job.pid}").stat().st_uid
    cache = runner.state / "cache"
    assert cache.stat().st_uid not in (0, uid)
    assert cache.stat().st_mode & 0o077 == 0
    link = Path(read_inputs(folder.inputs)[uri].path)
    assert link.stat().st_uid != uid, "what the job owned it could change"
    runner.stop(folder, 0)
    runner.wait_for_state(folder, "Reaped")
    assert runner.run("work", **order(uri))
