"""What the API server itself says to bad input: a sentence that names the field, without operator or webhook."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from cyxwiz_kube import Invalid, Kube, paths

SIZE = "must be a size such as 512Mi, 8Gi or 4GB, from 1M to 99Ti"
LONG = "x" * 2000

# (path of the field below spec, its value, words of the answer)
BAD: list[tuple[str, Any, str]] = [
    ("epochs", 0, "spec.epochs in body should be greater than or equal to 1"),
    ("epochs", -3, "spec.epochs in body should be greater than or equal to 1"),
    ("epochs", 100_001, "spec.epochs in body should be less than or equal to 100000"),
    ("epochs", 2.5, "spec.epochs in body must be of type integer"),
    ("epochs", "five", "spec.epochs in body must be of type integer"),
    ("batchSize", 0, "spec.batchSize in body should be greater than or equal to 1"),
    ("batchSize", 2_000_000, "spec.batchSize in body should be less than or equal to 1048576"),
    (
        "jobType",
        "Inference",
        'spec.jobType: Unsupported value: "Inference": supported values: "Training", "Evaluation"',
    ),
    ("jobType", "Evaluation", "an Evaluation needs the weights it evaluates: set model.initFrom"),
    ("precision", "float16", 'supported values: "auto", "float32", "bfloat16"'),
    ("deterministic", "yes", "spec.deterministic in body must be of type boolean"),
    ("priority", 2_000_000_000, "spec.priority in body should be less than or equal to 1000000000"),
    ("priority", "high", "spec.priority in body must be of type integer"),
    ("backoffLimit", -1, "spec.backoffLimit in body should be greater than or equal to 0"),
    ("backoffLimit", 1000, "spec.backoffLimit in body should be less than or equal to 100"),
    ("activeDeadlineSeconds", 0, "spec.activeDeadlineSeconds in body should be greater than or equal to 1"),
    ("ttlSecondsAfterFinished", -1, "spec.ttlSecondsAfterFinished in body should be greater than or equal to 0"),
    ("suspend", "true", "spec.suspend in body must be of type boolean"),
    ("cancel", 1, "spec.cancel in body must be of type boolean"),
    ("nodeSelector", ["zone"], "spec.nodeSelector in body must be of type object"),
    ("nodeSelector", {"zone": 3}, "spec.nodeSelector.zone in body must be of type string"),
    ("nodeSelector", {"zone": "x" * 64}, "spec.nodeSelector.zone: Too long: may not be more than 63"),
    ("nodeSelector", {f"k{i}": "v" for i in range(17)}, "spec.nodeSelector: Too many: 17: must have at most 16"),
    ("checkpoint.keep", 0, "spec.checkpoint.keep in body should be greater than or equal to 1"),
    ("checkpoint.everyEpochs", 0, "spec.checkpoint.everyEpochs in body should be greater than or equal to 1"),
    ("output.uri", "", "must begin with s3://, gs:// or volume://"),
    ("output.uri", "file://models", "must begin with s3://, gs:// or volume://; leave it out to keep the model on"),
    ("output.uri", "s3://" + LONG, "spec.output.uri: Too long: may not be more than 1024"),
    ("output.deletionPolicy", "Delete", 'unknown field "spec.output.deletionPolicy"'),
    ("output.formats", ["pickle"], 'supported values: "safetensors", "onnx", "tensorboard"'),
    ("output.formats", "onnx", "spec.output.formats in body must be of type array"),
    ("output.formats", ["onnx"] * 9, "spec.output.formats: Too many: 9: must have at most 8"),
    ("model", "resnet18", "spec.model in body must be of type object"),
    ("model.name", "", "spec.model.name in body should be at least 1 chars long"),
    ("model.name", "ResNet 18", "spec.model.name in body should match"),
    ("model.name", "a" * 65, "spec.model.name: Too long: may not be more than 64"),
    ("model.options", {"width": 0.5}, "spec.model.options.width in body must be of type integer,string"),
    ("model.options", {"width": "x" * 65}, "spec.model.options.width: Too long: may not be more than 64"),
    ("model.options", {f"o{i}": 1 for i in range(17)}, "spec.model.options: Too many: 17: must have at most 16"),
    ("model.initFrom", {}, "initFrom needs exactly one of job and uri"),
    ("model.initFrom", {"job": "a", "uri": "file://a"}, "initFrom needs exactly one of job and uri"),
    ("model.initFrom", {"job": "x" * 254}, "spec.model.initFrom.job: Too long: may not be more than 253"),
    ("dataset", None, "spec.dataset: Required value"),
    ("dataset.uri", "", "spec.dataset.uri in body should be at least 1 chars long"),
    ("dataset.uri", LONG, "spec.dataset.uri: Too long: may not be more than 1024"),
    ("dataset.validation.fraction", 0, "spec.dataset.validation.fraction in body should be greater than 0"),
    ("dataset.validation.fraction", 1.5, "spec.dataset.validation.fraction in body should be less than or equal to 1"),
    ("dataset.validation.uri", "", "spec.dataset.validation.uri in body should be at least 1 chars long"),
    ("dataset.validation.uri", LONG, "spec.dataset.validation.uri: Too long: may not be more than 1024"),
    ("hyperparameters.learningRate", 0, "spec.hyperparameters.learningRate in body should be greater than 0"),
    ("hyperparameters.learningRate", "0.01", "spec.hyperparameters.learningRate in body must be of type number"),
    ("hyperparameters.momentum", 1, "spec.hyperparameters.momentum in body should be less than 1"),
    ("hyperparameters.optimizer", "lion", 'supported values: "sgd", "adam", "adamw"'),
    ("hyperparameters.schedule", "linear", 'supported values: "constant", "step", "cosine", "onecycle"'),
    ("hyperparameters.stepEpochs", 0, "spec.hyperparameters.stepEpochs in body should be greater than or equal to 1"),
    ("hyperparameters.stepFactor", 2, "spec.hyperparameters.stepFactor in body should be less than or equal to 1"),
    ("hyperparameters.accumulateSteps", 0, "accumulateSteps in body should be greater than or equal to 1"),
    ("hyperparameters.ema", 1, "spec.hyperparameters.ema in body should be less than 1"),
    ("hyperparameters.augment.crop", 65, "augment.crop in body should be less than or equal to 64"),
    ("hyperparameters.augment.flip", 1, "augment.flip in body must be of type boolean"),
    ("hyperparameters.earlyStopping", {}, "spec.hyperparameters.earlyStopping.patience: Required value"),
    ("hyperparameters.earlyStopping.patience", 0, "patience in body should be greater than or equal to 1"),
    ("maxSteps", 0, "spec.maxSteps in body should be greater than or equal to 1"),
    ("task", "ranking", 'supported values: "auto", "classification", "regression", "nextToken"'),
    ("dataset.labelColumn", "", "spec.dataset.labelColumn in body should be at least 1 chars long"),
    ("dataset.contextLength", 1, "spec.dataset.contextLength in body should be greater than or equal to 2"),
    ("hyperparameters.seed", -1, "spec.hyperparameters.seed in body should be greater than or equal to 0"),
    ("hyperparameters.gradientClip", 0, "spec.hyperparameters.gradientClip in body should be greater than 0"),
    ("resources.gpus", -1, "spec.resources.gpus in body should be greater than or equal to 0"),
    ("resources.gpus", 17, "spec.resources.gpus in body should be less than or equal to 16"),
    ("resources.cpus", 0, "spec.resources.cpus in body should be greater than or equal to 1"),
    ("resources.memory", "4m", SIZE),
    ("resources.memory", "lots", SIZE),
    ("resources.memory", "100Ti", SIZE),
    ("resources.memory", "-1Gi", SIZE),
    ("resources.memory", 8, "spec.resources.memory in body must be of type string"),
    ("resources.gpuMemory", "0Gi", SIZE),
    ("resources.gpuMemory", "4 GB", SIZE),
    ("control", {"epochs": 3}, "spec.control.generation: Required value"),
    ("control", {"generation": 0}, "spec.control.generation in body should be greater than or equal to 1"),
    ("control", {"generation": "1"}, "spec.control.generation in body must be of type integer"),
    ("control", {"generation": 1, "epochs": 0}, "spec.control.epochs in body should be greater than or equal to 1"),
    ("control", {"generation": 1, "learningRate": -0.1}, "spec.control.learningRate in body should be greater than 0"),
    ("control", {"generation": 1, "checkpointNow": 1}, "spec.control.checkpointNow in body must be of type boolean"),
    ("control", {"generation": 1, "stop": True}, 'unknown field "spec.control.stop"'),
    ("epoch", 5, 'unknown field "spec.epoch"'),
    ("hyperparameters.lr", 0.1, 'unknown field "spec.hyperparameters.lr"'),
    ("model.opts", {}, 'unknown field "spec.model.opts"'),
]


def job_with(path: str, value: Any) -> dict[str, Any]:
    """A good job with one field changed; None removes it."""
    spec: dict[str, Any] = {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}}
    place = spec
    *parents, last = path.split(".")
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is None:
        del place[last]
    else:
        place[last] = deepcopy(value)
    kind = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob"}
    return {**kind, "metadata": {"generateName": "bad-"}, "spec": spec}


@pytest.mark.parametrize(("path", "value", "words"), BAD, ids=[f"{path}={str(value)[:20]}" for path, value, _ in BAD])
async def test_a_bad_field_is_refused_in_a_sentence_that_names_it(
    admin: Kube, path: str, value: Any, words: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await admin.create(paths.training_jobs("default"), job_with(path, value))
    assert words in refused.value.message


async def test_a_job_without_a_spec_is_refused(admin: Kube) -> None:
    body = {"apiVersion": "cyxwiz.io/v1alpha1", "kind": "TrainingJob", "metadata": {"generateName": "bad-"}}
    with pytest.raises(Invalid, match="spec: Required value"):
        await admin.create(paths.training_jobs("default"), body)


async def test_the_smallest_job_is_accepted_with_its_defaults_and_is_pending(admin: Kube, namespace: str) -> None:
    job = await admin.create(paths.training_jobs(namespace), job_with("epochs", 3))
    assert job["status"]["phase"] == "Pending"
    assert job["spec"]["hyperparameters"]["optimizer"] == "sgd"
    listed = await admin.list(paths.training_jobs(namespace), field_selector="status.phase=Pending")
    assert [item["metadata"]["uid"] for item in listed["items"]] == [job["metadata"]["uid"]]


async def test_a_job_counted_in_steps_cannot_be_given_more_epochs(admin: Kube, namespace: str) -> None:
    body = job_with("maxSteps", 100)
    body["spec"]["control"] = {"generation": 1, "epochs": 3}
    with pytest.raises(Invalid, match="cannot be set: this job is counted in maxSteps"):
        await admin.create(paths.training_jobs(namespace), body)


async def test_orders_to_a_job_are_numbered_and_cannot_be_withdrawn(admin: Kube, namespace: str) -> None:
    job = await admin.create(paths.training_jobs(namespace), job_with("epochs", 3))
    path = paths.training_job(namespace, job["metadata"]["name"])

    async def order(control: Any) -> dict[str, Any]:
        return (await admin.merge_patch(path, {"spec": {"control": control}}))["spec"]["control"]

    await order({"generation": 1, "learningRate": 0.1})
    assert (await order({"generation": 1}))["learningRate"] == 0.1, "saying it again changes nothing"
    for same in ({"generation": 1, "learningRate": 0.2}, {"epochs": 4}, {"generation": 0, "epochs": 4}):
        with pytest.raises(Invalid, match=r"raise control.generation|greater than or equal to 1"):
            await order(same)
    with pytest.raises(Invalid, match="control cannot be removed"):
        await order(None)
    changed = await order({"generation": 2, "learningRate": None, "epochs": 4})
    assert changed == {"generation": 2, "epochs": 4, "checkpointNow": False, "stopAfterEpoch": False}
