"""The state of training on disk: tensors as safetensors, the rest as JSON, nothing pickled.

checkpoints/step-<n>/state.safetensors   model.<name>, optimizer.<quantity>:<parameter>, random.cpu, random.cuda
checkpoints/step-<n>/state.json          the loop's state, what it belongs to, the digest of the tensors
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cyxwiz_crds import Model, TrainingJobSpec
from cyxwiz_protocol.job_folder import write_json

from . import files
from .optimizer import Optimizer
from .totals import Sums

FORMAT = 1


@dataclass
class LoopState:
    """All there is to know of where training is, beside the tensors."""

    step: int = 0
    """Steps done since the job began."""
    epoch_sums: Sums = field(default_factory=Sums)
    """Of the epoch in progress."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is complete on disk."""

    step: int
    path: Path
    sha256: str


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to: with another of these, going on from it would be nonsense."""

    spec: str
    data: str

    @classmethod
    def of(cls, spec: TrainingJobSpec, data_sha256: str) -> Identity:
        wire = spec.wire()
        parts = {key: wire.get(key) for key in ("model", "dataset", "batchSize", "hyperparameters")}
        return cls(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(), data_sha256)


class _Sums(Model):
    steps: int
    loss: float
    correct: float
    finite_steps: float


class _State(Model):
    """The content of state.json."""

    format: int
    step: int
    epoch_sums: _Sums
    spec: str
    data: str
    tensors: str
    """SHA-256 of state.safetensors."""


class Unusable(Exception):
    """A checkpoint cannot be gone on from; the text says why."""


class Checkpoints:
    """Saves the state of one attempt, keeping the newest few, and restores that of an earlier one."""

    def __init__(self, folder: Path, keep: int, identity: Identity) -> None:
        self._folder = folder
        self._keep = keep
        self._identity = identity
        self._saved: list[Saved] = []

    @property
    def newest(self) -> Saved | None:
        """The newest this process saved."""
        return self._saved[-1] if self._saved else None

    def save(self, state: LoopState, model: nn.Module, optimizer: Optimizer) -> Saved:
        """The state is on disk, whole, and the oldest beyond `keep` are gone. Sync: copies from the device."""
        path = self._folder / f"step-{state.step}"
        with files.whole_folder(path) as folder:
            digest = files.write_tensors(folder / "state.safetensors", _tensors(model, optimizer))
            saved = _State(
                format=FORMAT,
                step=state.step,
                epoch_sums=_Sums(**asdict(state.epoch_sums)),
                spec=self._identity.spec,
                data=self._identity.data,
                tensors=digest,
            )
            write_json(folder / "state.json", saved.wire())
        self._saved.append(Saved(state.step, path, digest))
        for old in self._saved[: -self._keep]:
            shutil.rmtree(old.path, ignore_errors=True)
        self._saved = self._saved[-self._keep :]
        return self._saved[-1]

    def restore(self, path: Path, state: LoopState, model: nn.Module, optimizer: Optimizer) -> str | None:
        """Everything is as it was saved at `path`, or untouched, and the reason why is returned."""
        try:
            saved, tensors = self._read(path, model, optimizer)
        except Unusable as reason:
            return f"the checkpoint {path.name} could not be used ({reason}): training began anew"
        # In place, because whatever was captured before would go on with the old tensors.
        for name, target in _live(model, optimizer).items():
            target.copy_(tensors[name])
        torch.set_rng_state(tensors["random.cpu"])
        if torch.cuda.is_initialized() and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
        state.step = saved.step
        state.epoch_sums = Sums(**saved.epoch_sums.model_dump())
        return None

    def _read(self, path: Path, model: nn.Module, optimizer: Optimizer) -> tuple[_State, dict[str, Tensor]]:
        """A checkpoint of this very job, checked. Raises Unusable before anything is changed."""
        try:
            saved = _State.model_validate_json((path / "state.json").read_bytes())
            if saved.format != FORMAT:
                raise Unusable(f"it has format {saved.format}, this trainer reads {FORMAT}")
            if saved.spec != self._identity.spec:
                raise Unusable("it belongs to another model, data set, batch size or hyperparameters")
            if saved.data != self._identity.data:
                raise Unusable("the data has changed since")
            if files.sha256(path / "state.safetensors") != saved.tensors:
                raise Unusable("its digest does not match: it is corrupt")
            tensors = load_file(path / "state.safetensors")
        except ValidationError as error:
            raise Unusable("its state.json is corrupt") from error
        except SafetensorError as error:
            raise Unusable(f"its tensors cannot be read: {error}") from error
        except OSError as error:
            raise Unusable(f"it cannot be read: {error.strerror}") from error
        _check_shapes(tensors, _live(model, optimizer))
        return saved, tensors


def _live(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The tensors that training changes, by their name in the file."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    return tensors | {f"optimizer.{name}": value for name, value in optimizer.state().items()}


def _tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Everything a checkpoint holds."""
    tensors = _live(model, optimizer) | {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def _check_shapes(tensors: dict[str, Tensor], live: dict[str, Tensor]) -> None:
    for name, target in live.items():
        if name not in tensors or tensors[name].shape != target.shape or tensors[name].dtype != target.dtype:
            raise Unusable(f"{name} is missing or has another shape")
    if "random.cpu" not in tensors:
        raise Unusable("it holds no random state")
