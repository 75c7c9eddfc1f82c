"""`python -m cyxwiz_trainer.to_onnx MODEL_FOLDER OUTPUT SAMPLES JOB_FOLDER`: the exported model as one .onnx file.

It takes raw samples, as `predict.py` does, and answers what `predict.Model.outputs` answers: what samples are brought
to before the network and targets after it lies in the graph, and config.json in its metadata. The file counts only
when onnxruntime answers held-out samples with it as torch does.

By torch's TorchScript exporter: the newer one needs onnxscript beside onnx, and both write the same for these networks.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cyxwiz_protocol.job_folder import JobFolder

from .conversions import SAMPLES
from .leash import CANNOT, leave_in_time
from .predict import Model

try:
    import onnx
    import onnxruntime
except ImportError as missing:
    print(f"this node's trainer lacks a package: {missing}")
    sys.exit(CANNOT)

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference from torch, relative to the largest number that torch answers with, and at least to 1."""
INPUT, OUTPUT = "samples", "outputs"


class Whole(nn.Module):
    """The network with what belongs before and behind it, as `predict.Model.outputs` has it."""

    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        config = model.config
        self.network = model.network
        self.is_text = config["task"] == "nextToken"
        dimensions = len(config["input"]["shape"])
        for name in ("mean", "std"):
            given = None if self.is_text else torch.tensor(config["input"][name])
            value = None if given is None else given.reshape(-1, *(1,) * (dimensions - 1))
            self.register_buffer(f"input_{name}", value)
            target = config["targets"] and torch.tensor(config["targets"][name])
            self.register_buffer(f"target_{name}", target)
        self.scales_targets = config["targets"] is not None

    def forward(self, samples: Tensor) -> Tensor:
        if not self.is_text:
            samples = (samples.float() - self.input_mean) / self.input_std
        outputs = self.network(samples)
        return outputs * self.target_std + self.target_mean if self.scales_targets else outputs


def write(model: Model, path: Path, samples: Tensor) -> None:
    """`path` is the model. Raises whatever the exporter says to a network it has no words for."""
    # Text may be shorter than the samples it was trained on.
    lengths = {0: "n", 1: "places"} if model.config["task"] == "nextToken" else {0: "n"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the older one, and what it makes constant: compared
        torch.onnx.export(
            Whole(model).eval(),
            (samples[:2],),
            str(path),
            dynamo=False,
            external_data=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: lengths, OUTPUT: lengths},
        )
    content = onnx.load(path)
    onnx.helper.set_model_props(content, {"cyxwiz": json.dumps(model.config)})
    onnx.checker.check_model(content)
    onnx.save(content, path)


def compared(model: Model, path: Path, samples: Tensor) -> str:
    """What is the same, in words. Raises Different."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    batches = [samples, samples[:1]]  # more than one size: a number of samples must not be part of the graph
    if model.config["task"] == "nextToken" and samples.shape[1] > 1:
        batches.append(samples[:1, : samples.shape[1] // 2])
    farthest, numbers = 0.0, 0
    for batch in batches:
        ours = model.outputs(batch)
        theirs = torch.from_numpy(session.run([OUTPUT], {INPUT: batch.numpy()})[0])
        if theirs.shape != ours.shape:
            raise Different(f"onnxruntime answers in shape {list(theirs.shape)}, torch in {list(ours.shape)}")
        difference = float((theirs - ours).abs().max())
        most = TOLERANCE * max(1.0, float(ours.abs().max()))
        if not difference <= most:
            raise Different(f"onnxruntime's answers differ from torch's by {difference:.1e}, at most {most:.1e} may be")
        farthest, numbers = max(farthest, difference), numbers + ours.numel()
    return f"onnxruntime answers as torch: largest difference {farthest:.1e} in {numbers} numbers"


class Different(Exception):
    """The file does not answer as the model does."""


def main() -> None:
    """The file is written and compared, or the process ends with another exit code than 0."""
    folder, path, samples = (Path(argument) for argument in sys.argv[1:4])
    leave_in_time(JobFolder(Path(sys.argv[4])))
    model = Model(folder)
    inputs = load_file(samples)[SAMPLES]
    try:
        write(model, path, inputs)
        said = compared(model, path, inputs)
    except Exception as error:  # an exporter and a runtime, each with errors of its own: what they say is the answer
        words = " ".join(str(error).split()) or type(error).__name__
        print(words if isinstance(error, Different) else f"this network cannot be exported: {words[:180]}")
        sys.exit(CANNOT)
    print(said)


if __name__ == "__main__":
    main()
