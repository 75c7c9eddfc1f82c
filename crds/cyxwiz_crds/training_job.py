"""TrainingJob: what a user asks for, what the operator decided, what the agent reports.

The one writer of each subtree of `status` is named in its description; the fence (`fence.py`) makes the API server
refuse everybody else's stale words.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from .accounts import Goodput, Receipt
from .artifacts import InitFrom, InitialWeights, ModelArtifact, SignedPath
from .base import Count, Line, MicroTime, Model, Name, Sentence, Timestamp, Word
from .conditions import Conditions
from .quantities import SIZE_PATTERN, size_bytes

KIND = "TrainingJob"
PLURAL = "trainingjobs"

Size = Annotated[
    str,
    Field(
        max_length=20,
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": f"self.matches('{SIZE_PATTERN}')",
                    "message": "must be a size such as 512Mi, 8Gi or 4GB, from 1M to 99Ti",
                }
            ]
        },
    ),
]
"""A size in bytes with a unit."""

# The API server stores an option as a number or as text; what it means is checked by the model that takes it.
Option = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 64})]
GpuUuid = Annotated[str, Field(max_length=96)]


class ModelSpec(Model):
    """The network to train."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$")]
    """A name from the trainer's registry: mlp, cnn, resnet18, resnet34, resnet50, vit, gpt, or one that an installed
    package adds."""
    options: Annotated[dict[str, Option], Field(max_length=16)] = {}
    """Options of that model, such as width: 64. Numbers and text; write fractions and booleans in quotes ("0.1")."""
    init_from: InitFrom | None = None
    """Weights to start from; absent means fresh ones."""


class ValidationSpec(Model):
    """Which samples are held out."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the samples held out for validation when the data set has no test part of its own, and uri names none.
    1, for an Evaluation: every sample there is."""
    uri: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Held-out samples of their own, addressed and checked like dataset.uri; then all of dataset.uri is trained on.
    Classes are compared by their names where both sides have names, columns of tables by theirs."""


class DatasetSpec(Model):
    """The data to train on."""

    uri: Annotated[str, Field(min_length=1, max_length=1024)]
    """Where the data is: builtin://digits, builtin://fashion-mnist, mock://cifar10 (synthetic, learnable); below the
    node's data folder file://data.npz (or .h5, .csv, .parquet, .txt), or file://folder with x.npy and y.npy or a folder
    of images for each class; volume://name/..., https://..., s3://bucket/... and gs://bucket/... likewise. A slash at
    the end of an object's key fetches all below it."""
    label_column: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Of a table: the column to predict. Absent means the last."""
    context_length: Annotated[int, Field(ge=2, le=8192)] = 128
    """Of a text: how many bytes a sample has."""
    validation: ValidationSpec = ValidationSpec()
    """How held-out samples are chosen."""


class Augment(Model):
    """How training images are varied, anew in every epoch."""

    flip: bool = False
    """Mirror half of the images."""
    crop: Annotated[int, Field(ge=0, le=64)] = 0
    """Move images by up to so many pixels each way; what comes in from outside is black."""


class EarlyStopping(Model):
    """When training ends before its last epoch."""

    patience: Annotated[int, Field(ge=1, le=10_000)]
    """Epochs without a better validation result (accuracy, or loss where there is none) after which training ends."""


class Hyperparameters(Model):
    """How the optimizer moves."""

    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.01
    """Peak learning rate. Write 0.001, not 1e-3: some YAML readers take the latter for text."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """sgd, adam or adamw (no decay on norms and biases)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of sgd."""
    nesterov: bool = False
    """Nesterov momentum for sgd."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight decay."""
    schedule: Literal["constant", "step", "cosine", "onecycle"] = "constant"
    """How the learning rate goes on after the warm-up. onecycle rises by itself, over the warm-up or 30 %."""
    step_epochs: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Of schedule step: epochs after which the learning rate is multiplied by stepFactor."""
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of schedule step."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs over which the learning rate rises linearly from zero."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target's probability that is spread over all classes."""
    gradient_clip: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Largest L2 norm of the gradient; absent means unclipped."""
    accumulate_steps: Annotated[int, Field(ge=1, le=4096)] = 1
    """Parts in which a batch is computed one after the other, to need less memory. Must divide batchSize."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running average of the weights, such as 0.999; it is evaluated and exported in their place."""
    augment: Augment | None = None
    """How training images are varied; absent means not at all."""
    early_stopping: EarlyStopping | None = None
    """When training ends before its last epoch; absent means never."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of weights, shuffling and augmentation."""


class Resources(Model):
    """What the job needs from its node."""

    gpus: Annotated[int, Field(ge=0, le=16)] = 1
    """Number of GPUs. 0 trains on the CPU."""
    gpu_memory: Size | None = None
    """Memory per GPU, such as 4Gi; the job then shares its GPUs. Absent means whole GPUs."""
    cpus: Annotated[int, Field(ge=1, le=512)] = 1
    """CPU cores; the trainer uses as many threads."""
    memory: Size = "2Gi"
    """Host memory."""

    @property
    def memory_bytes(self) -> int:
        """Host memory in bytes."""
        return size_bytes(self.memory)

    @property
    def gpu_memory_bytes(self) -> int | None:
        """Memory per GPU in bytes; None means whole GPUs."""
        return None if self.gpu_memory is None else size_bytes(self.gpu_memory)


class CheckpointSpec(Model):
    """When the state of training is saved."""

    every_epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Save after every so many epochs."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """How many of the newest checkpoints to keep; the best is kept beside them."""


class OutputSpec(Model):
    """What is kept of the trained model, and where."""

    uri: (
        Annotated[
            str,
            Field(
                max_length=1024,
                json_schema_extra={
                    "x-kubernetes-validations": [
                        {
                            "rule": "self.matches('^(s3|gs|volume)://.')",
                            "message": "must begin with s3://, gs:// or volume://; leave it out to keep the model on "
                            "its node",
                        }
                    ]
                },
            ),
        ]
        | None
    ) = None
    """The folder that the model's files are put into: s3://bucket/prefix, gs://bucket/prefix or volume://name/folder,
    with {namespace} and {name} standing for the job's. Files of the same names are replaced. The job succeeds when all
    were read back from there. Absent: they stay on the node."""
    formats: Annotated[list[Literal["safetensors", "onnx", "tensorboard"]], Field(max_length=8)] = ["safetensors"]
    """What is written. safetensors always is; onnx answers raw samples and is compared with torch by onnxruntime before
    it counts; tensorboard has the curves of training. One that cannot be written is said in status, and the job
    succeeds without it."""


class Control(Model):
    """Orders to a job under way. They stand until they are changed: a later attempt begins with them."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "self == oldSelf || self.generation > oldSelf.generation",
                    "message": "raise control.generation with every change: status.execution.control names the one "
                    "that was taken up",
                }
            ]
        }
    )

    generation: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """Number of this order: larger than that of the one before."""
    checkpoint_now: bool = False
    """Save a checkpoint as soon as the order is heard; once for each generation."""
    stop_after_epoch: bool = False
    """End training after the epoch in progress, evaluate and export: the job succeeds."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """In place of spec.epochs: more, or fewer. Never ends before the epoch in progress does. Schedules run as if it had
    been this number from the beginning."""
    learning_rate: Annotated[float, Field(gt=0, le=100)] | None = None
    """In place of hyperparameters.learningRate, from the next step on; its schedule goes on."""


def batch_problem(batch_size: int, gpus: int, accumulate_steps: int) -> str | None:
    """Why a batch cannot be computed in equal parts, and what to do; None when it can."""
    parts = max(1, gpus) * accumulate_steps
    if batch_size % parts == 0:
        return None
    below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
    reasons = [f"resources.gpus: {gpus}"] * (gpus > 1)
    reasons += [f"hyperparameters.accumulateSteps: {accumulate_steps}"] * (accumulate_steps > 1)
    choice = f"batchSize: {below} or {above}" if below else f"batchSize: {above}"
    return f"batchSize: {batch_size} has no {parts} equal parts, as {' and '.join(reasons)} ask for: set {choice}"


class TrainingJobSpec(Model):
    """What the user asks for. Immutable but for suspend, cancel, priority and control."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.control) || !has(oldSelf.control)",
                    "message": "control cannot be removed: change its fields, and raise its generation",
                },
                {
                    "rule": "!has(self.control) || !has(self.control.epochs) || !has(self.maxSteps)",
                    "message": "control.epochs cannot be set: this job is counted in maxSteps",
                },
                {
                    "rule": "self.jobType != 'Evaluation' || has(self.model.initFrom)",
                    "message": "an Evaluation needs the weights it evaluates: set model.initFrom",
                },
                {
                    "rule": "self.jobType != 'Evaluation' || !has(self.output) || !has(self.output.uri)",
                    "message": "an Evaluation makes no model: leave output.uri out",
                },
            ]
        }
    )

    job_type: Literal["Training", "Evaluation"] = "Training"
    """What to do with the model: Training, or Evaluation of the weights of model.initFrom on the held-out samples."""
    model: ModelSpec
    """The network to train."""
    dataset: DatasetSpec
    """The data to train on."""
    task: Literal["auto", "classification", "regression", "nextToken"] = "auto"
    """What is learned. auto: nextToken for text, classification for labels that are whole numbers or words (in a table
    at most 100 different ones), else regression."""
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 5
    """How often the whole data set is seen."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Optimizer steps after which training ends, in place of epochs."""
    batch_size: Annotated[int, Field(ge=1, le=1_048_576)] = 32
    """Samples per step, over all GPUs together; a multiple of resources.gpus times accumulateSteps."""
    hyperparameters: Hyperparameters = Hyperparameters()
    """How the optimizer moves."""
    resources: Resources = Resources()
    """What the job needs from its node."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto takes bfloat16 on GPUs that have it; float32 is true float32 (no TF32)."""
    deterministic: bool = False
    """Only deterministic kernels; slower."""
    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(max_length=16),
    ] = {}
    """Labels a node must carry."""
    priority: Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)] = 0
    """Higher goes first. May be changed while the job waits."""
    preemption_policy: Literal["PreemptLowerPriority", "Never"] = "PreemptLowerPriority"
    """Whether the job may make running jobs of lower priority save a checkpoint and leave when it finds no place."""
    suspend: bool = False
    """True stops the job at a checkpoint and gives its place back; false lets it go on."""
    cancel: bool = False
    """True ends the job for good and keeps the object and its record."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many failures that the job itself caused are retried."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Seconds from the first start after which the job fails as DeadlineExceeded, waiting between attempts included,
    being suspended not; absent means none."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Seconds after the end at which the object is deleted; absent means never."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When the state of training is saved."""
    output: OutputSpec = OutputSpec()
    """What is kept of the trained model, and where."""
    dry_run: bool = False
    """True runs nothing: status answers where the job would start or why not, and, where earlier jobs showed it, the
    memory and the time it needs. Nothing is reserved for it."""
    control: Control | None = None
    """Orders to a job under way: a checkpoint now, another end, another learning rate."""


# Everything else is refused by the chart's policy (helm/cyxwiz/templates/spec-policy.yaml).
MUTABLE_SPEC_FIELDS = frozenset({"suspend", "cancel", "priority", "control"})


class RestoreFrom(Model):
    """The checkpoint a new attempt goes on from."""

    attempt: Annotated[int, Field(ge=1, le=100_000)]
    """The attempt that saved it."""
    step: Count
    """Optimizer steps done when it was saved."""
    digest: Word
    """Digest of the saved state, as the agent reported it."""
    uri: Annotated[str, Field(max_length=1024)]
    """Where it lies: node://<node>/<assignment>/<checkpoint>."""


class Assignment(Model):
    """One binding of the job to one node. Written by the operator."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    """Unique over the cluster's life: the job's uid and the attempt."""
    node: Name
    """The ComputeNode that runs the job."""
    gpus: Annotated[list[GpuUuid], Field(max_length=16)] = []
    """UUIDs of the GPUs the job runs on; with a reservation those that the operator counted on."""
    reservation: Name | None = None
    """The pod, in the job's namespace, whose GPUs the job runs on; absent where GPUs are not reserved through
    Kubernetes."""
    intent: Annotated[str, Field(max_length=16)] = "Run"
    """The order to the agent: Run, Yield (checkpoint and leave) or Stop."""
    reason: Word | None = None
    """Why the intent is not Run."""
    message: Line | None = None
    """The same in words, such as for whom it is to leave."""
    grace_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """Seconds the job has to leave."""
    ordered_at: Timestamp | None = None
    """When it was told to leave."""
    bound_at: MicroTime | None = None
    """When the job was bound."""
    restore_from: RestoreFrom | None = None
    """The checkpoint to go on from."""
    init_from: InitialWeights | None = None
    """The weights of another job to start from."""


class Scheduling(Model):
    """How the job's place was or will be found. Written by the operator."""

    position: Count | None = None
    """Place in the queue, from 1."""
    holds: Name | None = None
    """The node whose next free place is kept for this job."""
    estimated_start: Timestamp | None = None
    """When it is expected to start; absent while nobody can tell."""
    confidence: Word | None = None
    """What the estimate rests on: High (reports of the jobs in its way), Medium (the same, and other jobs go first) or
    Low (somebody's activeDeadlineSeconds)."""
    candidates: Annotated[list[Line], Field(max_length=5)] = []
    """The best nodes with their score and its parts, best first."""
    rejected: Sentence | None = None
    """Nodes that cannot take the job now, counted by reason."""


class DryRunAnswer(Model):
    """What spec.dryRun asked. Written by the operator, once."""

    node: Name | None = None
    """Where the job would start at once; absent when it would wait."""
    gpu_memory: Word = "unknown"
    """Most memory it would hold of each GPU, such as 5.2Gi."""
    duration: Word = "unknown"
    """From its first step to its last, such as 1m40s."""
    duration_seconds: Count | None = None
    """The same in seconds."""
    measured_on: Count = 0
    """How many earlier jobs the two rest on: same model, data, batch size and resources, on the same kind of device."""


class AttemptRecord(Model):
    """How one attempt ended. Written by the operator."""

    attempt: Annotated[int, Field(ge=1, le=100_000)]
    """Number of the attempt."""
    node: Name
    """Where it ran."""
    outcome: Word
    """How it ended: a failure class, or Suspended."""
    message: Line = ""
    """Why, in a sentence."""
    ended_at: Timestamp
    """When the operator released it."""


class Progress(Model):
    """How far training is. Numbers that are not counts are text with fixed decimals, so that columns line up."""

    epoch: Count | None = None
    """The epoch in progress, from 1."""
    epochs: Word | None = None
    """Epoch and total, as 3/5."""
    step: Count | None = None
    """Optimizer steps done."""
    total_steps: Count | None = None
    """Optimizer steps planned."""
    percent: Word | None = None
    """Share of the planned steps done, as 42%."""
    loss: Word | None = None
    """Mean training loss of the epoch in progress."""
    accuracy: Word | None = None
    """Training accuracy of the epoch in progress."""
    validation_loss: Word | None = None
    """Loss on held-out data after the last whole epoch."""
    validation_accuracy: Word | None = None
    """Accuracy on held-out data after the last whole epoch."""
    best: Word | None = None
    """Best validation accuracy so far."""
    learning_rate: Word | None = None
    """Learning rate of the last step."""
    samples_processed: Count | None = None
    """Samples trained on, repetitions counted."""
    samples_per_second: Word | None = None
    """Recent training rate."""
    elapsed_seconds: Count | None = None
    """Seconds since the first step of this attempt."""
    remaining_seconds: Count | None = None
    """Estimated seconds to the end."""
    eta: Word | None = None
    """The same for people, as 1m40s."""
    gpu_memory_peak: Word | None = None
    """Largest GPU memory held so far."""
    loss_history: Annotated[str, Field(max_length=512)] | None = None
    """Training loss per epoch, thinned to at most 32 points."""
    curve: Annotated[str, Field(max_length=64)] | None = None
    """The same as at most 16 block characters."""


class CheckpointRecord(Model):
    """The newest complete checkpoint."""

    step: Count
    """Optimizer steps done when it was saved."""
    epoch: Count
    """Whole epochs done when it was saved."""
    digest: Word
    """SHA-256 of the saved weights, as sha256:<first 16 hex digits>."""
    uri: Annotated[str, Field(max_length=1024)]
    """Where it lies: node://<node>/<assignment>/<checkpoint>."""


class Resumption(Model):
    """What this attempt went on from, and the proof: one recorded batch, answered when it was saved and again."""

    step: Count
    """Optimizer steps that earlier attempts had done."""
    verified: bool | None = None
    """Whether both losses agree; absent when no batch was recorded."""
    saved_loss: Word | None = None
    """Loss of the recorded batch when the checkpoint was saved."""
    replayed_loss: Word | None = None
    """Its loss with the restored weights."""


class DataFacts(Model):
    """What the data turned out to be."""

    train_samples: Count
    """Samples trained on per epoch."""
    validation_samples: Count
    """Samples held out."""
    synthetic: bool = False
    """True for mock:// data: no accuracy on it says anything about the world."""
    sha256: Annotated[str, Field(max_length=64)] | None = None
    """SHA-256 over the decoded samples and labels."""


class ControlTaken(Model):
    """The newest order of spec.control that training goes by."""

    generation: Count
    """Its generation."""
    message: Line = ""
    """What it changed and from which step on."""


class Execution(Model):
    """What the node's agent reports. Written by that agent alone."""

    assignment_id: Annotated[str, Field(alias="assignmentID", min_length=1, max_length=64)]
    """The assignment this report is about; any other is refused by the API server."""
    sequence: Count
    """Grows with every report of an assignment; a smaller one is refused by the API server."""
    state: Annotated[str, Field(max_length=16)]
    """Running, then one of Succeeded, Failed, Cancelled, Rejected, Yielded, which are final."""
    reason: Word | None = None
    """Failure class or rejection reason."""
    message: Sentence | None = None
    """What happened, in a sentence for the person who must act."""
    started_at: Timestamp | None = None
    """When the trainer was told to start."""
    first_step_at: MicroTime | None = None
    """When the first training step of this attempt was done."""
    ended_at: Timestamp | None = None
    """When its processes were gone."""
    start: Line | None = None
    """How the job started: Warm (0.09 s), or Cold (8.1 s) and why."""
    device: Line | None = None
    """What it trains on, in words."""
    gpus: Annotated[list[GpuUuid], Field(max_length=16)] | None = None
    """UUIDs of the GPUs that Kubernetes gave its reservation; absent without one."""
    data: DataFacts | None = None
    """What the data turned out to be."""
    progress: Progress | None = None
    """How far training is."""
    resumed: Resumption | None = None
    """The checkpoint it went on from."""
    checkpoint: CheckpointRecord | None = None
    """The newest complete checkpoint."""
    bottleneck: Line | None = None
    """What training waits for: GPU, data, host or throttled (on the CPU: CPU or data), then the shares of the training
    thread's time."""
    stalled_since: Timestamp | None = None
    """When the last step was seen, while there is none for many times the usual time of one."""
    frozen_seconds: Count | None = None
    """How long its processes were frozen, because the node had lost touch with the cluster."""
    energy: Line | None = None
    """What its GPUs took since it started, by their own counters, such as 12.4 Wh, or why that is not known; absent on
    the CPU."""
    receipt: Receipt | None = None
    """What it was made with."""
    control: ControlTaken | None = None
    """The newest order of spec.control that training goes by; absent until there is one."""
    model: ModelArtifact | None = None
    """The trained weights."""
    logs_path: SignedPath | None = None
    """For `kubectl get --raw`: what the job has printed; with ?follow=1 at its end also what it goes on to print."""


class TrainingJobStatus(Model):
    """What is true of the job. Written by the operator, but for execution."""

    phase: Word = "Pending"
    """Pending (not yet seen by the operator), Queued, Bound, Running, Suspended, Succeeded, Failed or Cancelled."""
    reason: Word | None = None
    """Why, in one word."""
    summary: Sentence | None = None
    """Why, in words, with what to do next."""
    observed_generation: Count | None = None
    """The metadata.generation the operator last acted on."""
    attempt: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Grows with every binding."""
    assignment: Assignment | None = None
    """The current binding."""
    restore_from: RestoreFrom | None = None
    """The newest checkpoint of earlier attempts, which the next attempt goes on from where it can be read."""
    scheduling: Scheduling | None = None
    """How the job's place was or will be found."""
    dry_run: DryRunAnswer | None = None
    """What spec.dryRun asked."""
    conditions: Conditions = []
    """Scheduled, Running, Stalled, Complete, Failed, Suspended and Finished."""
    history: Annotated[list[AttemptRecord], Field(max_length=10)] = []
    """How earlier attempts ended, newest last."""
    executions: Count | None = None
    """Attempts that came to run."""
    resumes: Count | None = None
    """Those of them that went on from a checkpoint."""
    restarts: Count | None = None
    """Those of them that began anew after an earlier one had run."""
    suspended_seconds: Count | None = None
    """How long it was suspended so far; activeDeadlineSeconds does not count it."""
    failures: Count | None = None
    """Failures that count towards backoffLimit."""
    node_faults: Count | None = None
    """Failures that were blamed on a node."""
    goodput: Goodput | None = None
    """What became of its time; absent until an attempt is over."""
    retry_at: Timestamp | None = None
    """Not bound again before this time."""
    first_started_at: Timestamp | None = None
    """When the first attempt began to run."""
    finished_at: Timestamp | None = None
    """When the job reached its final phase."""
    execution: Execution | None = None
    """What the node's agent reports."""


def _uid(value: object) -> object:
    return value or ""


class JobMetadata(Model):
    """The part of the metadata that CyxWiz reads."""

    name: str
    namespace: str = "default"
    uid: Annotated[str, BeforeValidator(_uid)] = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class TrainingJob(Model):
    """A TrainingJob as the API server gives it."""

    metadata: JobMetadata
    spec: TrainingJobSpec
    status: TrainingJobStatus = TrainingJobStatus()
