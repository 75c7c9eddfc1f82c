"""A warm trainer rehearses until there is nothing left, or until its runner speaks."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
import torch

from cyxwiz_protocol import handshake
from cyxwiz_trainer.rehearsal import usual_shapes
from cyxwiz_trainer.warm import become_ready


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The runner's and the trainer's. One that says too little fails the test instead of hanging it."""
    threads = torch.get_num_threads()
    runner, trainer = socket.socketpair()
    runner.settimeout(10)
    with runner, trainer:
        yield runner, trainer
    torch.set_num_threads(threads)


def lines_of(runner: socket.socket, trainer: socket.socket) -> list[bytes]:
    """All that the trainer said."""
    trainer.shutdown(socket.SHUT_WR)
    with contextlib.closing(runner.makefile("rb")) as file:
        return file.readlines()


def test_it_is_ready_after_one_step_and_tells_what_it_has_rehearsed(ends: tuple[socket.socket, socket.socket]) -> None:
    runner, trainer = ends
    become_ready(handshake.Prepare(rehearse=True, shapes=usual_shapes(on_gpu=False) * 3), trainer)
    ready, rehearsed = lines_of(runner, trainer)
    assert handshake.parse_ready(ready) is not None
    assert handshake.parse_rehearsed(rehearsed) in (1, 2, 3), "as far as the time allowed"


def test_it_rehearses_no_further_once_its_runner_has_spoken(ends: tuple[socket.socket, socket.socket]) -> None:
    runner, trainer = ends
    runner.sendall(handshake.encode_start(handshake.Start(folder="/job")))
    become_ready(handshake.Prepare(rehearse=True, shapes=usual_shapes(on_gpu=False) * 3), trainer)
    [ready] = lines_of(runner, trainer)
    assert handshake.parse_ready(ready) is not None


def test_for_a_job_that_waits_nothing_is_rehearsed(ends: tuple[socket.socket, socket.socket]) -> None:
    runner, trainer = ends
    become_ready(handshake.Prepare(shapes=usual_shapes(on_gpu=False)), trainer)
    [ready] = lines_of(runner, trainer)
    assert handshake.parse_ready(ready) is not None
