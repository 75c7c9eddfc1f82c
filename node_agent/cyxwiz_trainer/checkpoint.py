"""The state of training on disk: tensors as safetensors, the rest as JSON, nothing pickled.

checkpoints/step-<n>/state.safetensors   model.<name>, optimizer.<quantity>:<parameter>, average.<parameter>, random.*
checkpoints/step-<n>/state.json          the loop's state, what it belongs to, the digest of the tensors
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cyxwiz_crds import Model, TrainingJobSpec
from cyxwiz_crds.training_job import EarlyStopping
from cyxwiz_protocol.job_folder import write_json

from . import files
from .average import Average
from .distributed import ALONE, Ranks
from .optimizer import Optimizer
from .random_state import random_states, restore_random_states
from .schedule import Plan
from .totals import Sums

FORMAT = 1


@dataclass
class LoopState:
    """All there is to know of where training is, beside the tensors."""

    step: int = 0
    """Steps done since the job began."""
    epoch_sums: Sums = field(default_factory=Sums)
    """Of the epoch in progress."""
    best_score: float | None = None
    """Of the best evaluation so far."""
    best_epoch: int = 0
    """The epoch, from 1, after which that was; 0 means none yet."""

    def judge(self, epoch: int, score: float) -> None:
        """`epoch` (from 1) was evaluated; an equal score is not better."""
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_epoch = score, epoch

    def is_exhausted(self, early_stopping: EarlyStopping | None, plan: Plan) -> bool:
        """Whether as many epochs as `early_stopping` bears have passed since the best."""
        if early_stopping is None or self.best_epoch == 0:
            return False
        return self.step // plan.steps_per_epoch - self.best_epoch >= early_stopping.patience


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
        parts = {key: wire.get(key) for key in ("model", "dataset", "task", "batchSize", "hyperparameters")}
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
    best_score: float | None = None
    best_epoch: int = 0
    spec: str
    data: str
    tensors: str
    """SHA-256 of state.safetensors."""


class Unusable(Exception):
    """A checkpoint cannot be gone on from; the text says why."""


class Checkpoints:
    """Saves the state of one attempt, keeping the newest few and the best, and restores that of an earlier one."""

    def __init__(self, folder: Path, keep: int, identity: Identity, ranks: Ranks = ALONE) -> None:
        self._folder = folder
        self._ranks = ranks
        self._keep = keep
        self._identity = identity
        self._saved: list[Saved] = []
        self._best: Saved | None = None

    @property
    def newest(self) -> Saved | None:
        """The newest this process saved."""
        return self._saved[-1] if self._saved else None

    def save(
        self,
        state: LoopState,
        model: nn.Module,
        optimizer: Optimizer,
        average: Average | None = None,
        *,
        is_best: bool = False,
    ) -> Saved:
        """The state is on disk, whole, and the oldest beyond `keep` are gone, but for the best. Sync: copies it.

        Every rank must come here at the same step; the first writes.
        """
        path = self._folder / f"step-{state.step}"
        random = random_states(self._ranks)
        if not self._ranks.is_first:
            self._saved = [Saved(state.step, path, sha256="")]
            return self._saved[-1]
        with files.whole_folder(path) as folder:
            digest = files.write_tensors(folder / "state.safetensors", _live(model, optimizer, average) | random)
            saved = _State(
                format=FORMAT,
                step=state.step,
                epoch_sums=_Sums(**asdict(state.epoch_sums)),
                best_score=state.best_score,
                best_epoch=state.best_epoch,
                spec=self._identity.spec,
                data=self._identity.data,
                tensors=digest,
            )
            write_json(folder / "state.json", saved.wire())
        newest = Saved(state.step, path, digest)
        known = {*self._saved, newest} | ({self._best} if self._best else set())
        self._saved = [*self._saved, newest][-self._keep :]
        if is_best:
            self._best = newest
        for old in known - {*self._saved, self._best}:
            shutil.rmtree(old.path, ignore_errors=True)
        return newest

    def restore(
        self, path: Path, state: LoopState, model: nn.Module, optimizer: Optimizer, average: Average | None = None
    ) -> str | None:
        """Everything is as it was saved at `path`, or untouched, and the reason why is returned."""
        try:
            saved, tensors = self._read(path, _live(model, optimizer, average))
        except Unusable as reason:
            return f"the checkpoint {path.name} could not be used ({reason}): training began anew"
        # In place, because whatever was captured before would go on with the old tensors.
        for name, target in _live(model, optimizer, average).items():
            target.copy_(tensors[name])
        restore_random_states(tensors, self._ranks)
        state.step = saved.step
        state.epoch_sums = Sums(**saved.epoch_sums.model_dump())
        state.best_score, state.best_epoch = saved.best_score, saved.best_epoch
        return None

    def _read(self, path: Path, live: dict[str, Tensor]) -> tuple[_State, dict[str, Tensor]]:
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
        _check_shapes(tensors, live)
        return saved, tensors


def _live(model: nn.Module, optimizer: Optimizer, average: Average | None) -> dict[str, Tensor]:
    """The tensors that training changes, by their name in the file."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.state().items()}
    return tensors | {f"optimizer.{name}": value for name, value in optimizer.state().items()}


def _check_shapes(tensors: dict[str, Tensor], live: dict[str, Tensor]) -> None:
    for name, target in live.items():
        if name not in tensors or tensors[name].shape != target.shape or tensors[name].dtype != target.dtype:
            raise Unusable(f"{name} is missing or has another shape")
    if "random.cpu" not in tensors:
        raise Unusable("it holds no random state")
