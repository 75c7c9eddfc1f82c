"""Who may load what: the rules that keep torch out of daemons and clients out of decisions."""

from __future__ import annotations

import subprocess
import sys

import pytest

CLIENTS = ("kopf", "kubernetes", "aiohttp", "cyxwiz_kube")

# (module, what must not be loaded by importing it)
RULES: list[tuple[str, tuple[str, ...]]] = [
    ("cyxwiz_crds", ("torch", "numpy", *CLIENTS)),
    ("cyxwiz_protocol.runner_api", ("torch", "numpy", *CLIENTS)),
    ("cyxwiz_agent.__main__", ("torch", "numpy", "kopf", "cyxwiz_operator", "cyxwiz_runner", "cyxwiz_trainer")),
    ("cyxwiz_agent.attempt", ("torch", *CLIENTS)),
    ("cyxwiz_runner.__main__", ("torch", "numpy", "pynvml", *CLIENTS, "cyxwiz_agent", "cyxwiz_trainer")),
    ("cyxwiz_trainer.loop", (*CLIENTS, "cyxwiz_agent", "cyxwiz_runner", "cyxwiz_store", "fsspec", "botocore")),
    ("cyxwiz_protocol.location", ("torch", "numpy", "pydantic", *CLIENTS)),
    ("cyxwiz_store.objects", ("torch", "kopf", "kubernetes", "cyxwiz_kube", "cyxwiz_agent", "cyxwiz_runner")),
    ("cyxwiz_operator.__main__", ("torch", "cyxwiz_agent", "cyxwiz_runner", "cyxwiz_trainer")),
    ("cyxwiz_operator.lifecycle", ("torch", *CLIENTS)),
    ("cyxwiz_operator.scheduling", ("torch", *CLIENTS)),
    ("cyxwiz_operator.snapshot", ("torch", *CLIENTS)),
    ("cyxwiz_operator.ledger", ("torch", *CLIENTS)),
]


@pytest.mark.parametrize(("module", "forbidden"), RULES, ids=[module for module, _ in RULES])
def test_a_module_loads_only_what_its_place_allows(module: str, forbidden: tuple[str, ...]) -> None:
    code = (
        f"import importlib, sys; importlib.import_module({module!r});"
        f"print([name for name in {forbidden!r} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert loaded == "[]"
