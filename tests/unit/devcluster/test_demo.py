"""The demo, without what it shows."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cyxwiz_platform import demo


def test_a_demo_in_the_background_of_a_script_ends_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a shell ignores SIGINT for it, and SIGTERM was passed on as that: it went on to its end."""

    @contextmanager
    def start(_: Path) -> Iterator[None]:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("SIGTERM was ignored")
        yield

    monkeypatch.setattr(demo, "start", start)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert demo.main(["--state", str(tmp_path / "state")]) == demo.INTERRUPTED
    finally:
        for number, handler in before:
            signal.signal(number, handler)
