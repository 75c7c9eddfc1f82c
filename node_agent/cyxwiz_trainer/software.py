"""What the trainer is made of, for the record: versions, and a digest of the source that ran."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch

from cyxwiz_crds import TrainingJobSpec, __version__
from cyxwiz_protocol.records import SoftwareRecord

from . import data, models, plugins

OWN = ("cyxwiz_trainer", "cyxwiz_protocol")


def software_of(spec: TrainingJobSpec) -> SoftwareRecord:
    """Versions, and the digest of the trainer and of the packages that model and data come from."""
    named = [(plugins.MODELS, spec.model.name, models.REGISTRY)]
    named += [(plugins.DATASETS, spec.dataset.uri.partition("://")[0], data.SCHEMES)]
    added = {
        plugins.known(group)[name].module.partition(".")[0]
        for group, name, built_in in named
        if name not in built_in and name in plugins.known(group)
    }
    return SoftwareRecord(
        cyxwiz=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda if torch.cuda.is_initialized() else None,
        code_sha256=source_digest((*OWN, *sorted(added - set(OWN)))),
    )


@functools.cache
def source_digest(packages: tuple[str, ...] = OWN) -> str:
    """SHA-256 over name and content of every source file of the packages, in order."""
    total = hashlib.sha256()
    for package in packages:
        for name, path in _sources(package):
            content = path.read_bytes()
            total.update(f"{package}/{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _sources(package: str) -> Iterable[tuple[str, Path]]:
    """(name below the package, path) of each source file, by name."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return []
    if not found.submodule_search_locations:
        return [(Path(found.origin).name, Path(found.origin))]
    folder = Path(found.origin).parent
    return sorted((str(path.relative_to(folder)), path) for path in folder.rglob("*.py"))
