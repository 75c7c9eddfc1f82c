"""The state of training on disk: tensors as safetensors, the rest as JSON, nothing pickled.

checkpoints/step-<n>/state.safetensors   model.<name>, optimizer.<quantity>:<parameter>, average.<parameter>, random.*
checkpoints/step-<n>/state.json          the loop's state, what it belongs to, the digest of the tensors
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
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
from .snapshot import Snapshot, Snapshots
from .totals import Sums

FORMAT = 1
_REPLAYED = "replay.loss"
_MOST_BEFORE = 3
"""Earlier checkpoints that are tried when the newest cannot be used."""


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
    is_best: bool


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


@dataclass(frozen=True)
class Restored:
    """What came of going on from a checkpoint."""

    note: str | None = None
    """What could not be used, in words; None when all was as asked."""
    replayed_loss: float | None = None
    """The loss that its recorded batch had when it was saved."""


class Checkpoints:
    """Saves the state of one attempt beside its training, keeping the newest few and the best, and restores.

    A thread writes one checkpoint at a time.
    """

    def __init__(self, folder: Path, keep: int, identity: Identity, ranks: Ranks = ALONE) -> None:
        self._folder = folder
        self._ranks = ranks
        self._keep = keep
        self._identity = identity
        self._snapshots = Snapshots()
        self._saved: list[Saved] = []
        self._best: Saved | None = None
        self._thread: threading.Thread | None = None
        self._done: list[Saved | Exception] = []
        self.begun_step: int | None = None
        """The newest step of which a save was begun."""

    @property
    def newest(self) -> Saved | None:
        """The newest this process has whole on disk."""
        return self._saved[-1] if self._saved else None

    @property
    def is_writing(self) -> bool:
        """Whether another save would be waited for."""
        return self._thread is not None and self._thread.is_alive()

    def save(
        self,
        state: LoopState,
        model: nn.Module,
        optimizer: Optimizer,
        average: Average | None = None,
        *,
        replayed_loss: Tensor | None = None,
        is_best: bool = False,
    ) -> list[Saved]:
        """The state as it is now will be on disk, whole; those beyond `keep` then go, but for the best.

        Returns what was completed meanwhile. `replayed_loss`, (), is kept for who goes on from here. Sync: with the
        save before, where that is still being written.

        Every rank must come here at the same step; the first writes.
        """
        completed = self.wait()
        random = random_states(self._ranks)
        self.begun_step = state.step
        if not self._ranks.is_first:
            return completed
        tensors = _live(model, optimizer, average) | random
        if replayed_loss is not None:
            tensors[_REPLAYED] = replayed_loss
        described = _State(
            format=FORMAT,
            step=state.step,
            epoch_sums=_Sums(**asdict(state.epoch_sums)),
            best_score=state.best_score,
            best_epoch=state.best_epoch,
            spec=self._identity.spec,
            data=self._identity.data,
            tensors="",
        )
        snapshot = self._snapshots.take(tensors)
        self._thread = threading.Thread(
            target=self._in_thread, args=(lambda: self._write(snapshot, described, is_best),), name="checkpoint"
        )
        self._thread.start()
        return completed

    def completed(self) -> list[Saved]:
        """What has come to be whole on disk since the last call. Raises what kept one from it, such as OSError."""
        if self._thread is None or self._thread.is_alive():
            return []
        return self.wait()

    def wait(self) -> list[Saved]:
        """The same, with the save that is being written. Sync: waits for the disk."""
        if self._thread is None:
            return []
        self._thread.join()
        self._thread = None
        [result], self._done = self._done, []
        if isinstance(result, Exception):
            raise result
        self._keep_newest(result)
        return [result]

    def _in_thread(self, write: Callable[[], Saved]) -> None:
        try:
            self._done.append(write())
        except Exception as error:  # the outermost of its thread: raised where the loop asks what came of it
            self._done.append(error)

    def _write(self, snapshot: Snapshot, described: _State, is_best: bool) -> Saved:
        snapshot.wait()
        path = self._folder / f"step-{described.step}"
        with files.whole_folder(path) as folder:
            digest = files.write_tensors(folder / "state.safetensors", snapshot.tensors)
            write_json(folder / "state.json", described.model_copy(update={"tensors": digest}).wire())
        return Saved(described.step, path, digest, is_best)

    def _keep_newest(self, newest: Saved) -> None:
        known = {*self._saved, newest} | ({self._best} if self._best else set())
        self._saved = [*self._saved, newest][-self._keep :]
        if newest.is_best:
            self._best = newest
        for old in known - {*self._saved, self._best}:
            shutil.rmtree(old.path, ignore_errors=True)

    def restore(
        self, path: Path, state: LoopState, model: nn.Module, optimizer: Optimizer, average: Average | None = None
    ) -> Restored:
        """Everything is as it was saved at `path`, else as in the one before it, else untouched."""
        passed_over: list[str] = []
        for candidate in (path, *_before(path)):
            try:
                saved, tensors = self._read(candidate, _live(model, optimizer, average))
            except Unusable as reason:
                passed_over.append(f"the checkpoint {candidate.name} could not be used ({reason})")
                continue
            self._adopt(saved, tensors, state, _live(model, optimizer, average))
            note = f"{'; '.join(passed_over)}: training goes on from step {saved.step}" if passed_over else None
            replayed = tensors.get(_REPLAYED)
            return Restored(note, float(replayed) if replayed is not None and replayed.numel() == 1 else None)
        return Restored(f"{'; '.join(passed_over)}: training began anew")

    def _adopt(self, saved: _State, tensors: dict[str, Tensor], state: LoopState, live: dict[str, Tensor]) -> None:
        # In place, because whatever was captured before would go on with the old tensors.
        for name, target in live.items():
            target.copy_(tensors[name])
        restore_random_states(tensors, self._ranks)
        state.step = saved.step
        state.epoch_sums = Sums(**saved.epoch_sums.model_dump())
        state.best_score, state.best_epoch = saved.best_score, saved.best_epoch

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


def _before(path: Path) -> list[Path]:
    """The checkpoints beside `path` of fewer steps, the newest first."""
    numbers = {other: _step_in(other.name) for other in path.parent.glob("step-*")}
    step = _step_in(path.name)
    earlier = [other for other, number in numbers.items() if number is not None and step is not None and number < step]
    return sorted(earlier, key=lambda other: numbers[other] or 0, reverse=True)[:_MOST_BEFORE]


def _step_in(name: str) -> int | None:
    digits = name.removeprefix("step-")
    return int(digits) if digits.isdecimal() and len(digits) < 16 else None


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
