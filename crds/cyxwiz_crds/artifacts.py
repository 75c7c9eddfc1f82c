"""What a job starts from and what it leaves: weights, where they lie and how they are fetched."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from .base import Count, Line, Model, Name, Word

Sha256 = Annotated[str, Field(max_length=64)]
"""Hexadecimal."""
Uri = Annotated[str, Field(max_length=1024)]
SignedPath = Annotated[str, Field(max_length=1024)]
"""A path of the API server for `kubectl get --raw`; whoever holds it may read what it names until it runs out."""


class InitFrom(Model):
    """Weights to start from: exactly one of job and uri."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "has(self.job) != has(self.uri)", "message": "initFrom needs exactly one of job and uri"}
            ]
        }
    )

    job: Name | None = None
    """A TrainingJob of the same namespace; this job waits until that one has succeeded. While its weights lie on one
    node only, this job runs there."""
    uri: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A .safetensors file, addressed like a data set."""


class InitialWeights(Model):
    """The weights an attempt starts from, found when it was bound. Written by the operator."""

    uri: Uri
    """node://<node>/<path below the node's job folders>, or where the job they come from has copied them to."""
    sha256: Sha256
    """SHA-256 of the file; other bytes are refused."""


class Export(Model):
    """The model, or its training, in one more format of spec.output.formats."""

    format: Word
    """onnx or tensorboard."""
    message: Line = ""
    """What was compared and how far it agrees; or why there is no such file."""
    sha256: Sha256 | None = None
    """SHA-256 of the file, hexadecimal; absent when there is none."""
    bytes: Count | None = None
    """Size of the file."""
    uri: Uri | None = None
    """Where the file is, as of the weights."""
    download_path: SignedPath | None = None
    """For `kubectl get --raw`, as of the weights."""


class ModelArtifact(Model):
    """The trained weights."""

    sha256: Sha256
    """SHA-256 of the file, hexadecimal."""
    bytes: Count
    """Size of the file."""
    format: Word = "safetensors"
    """File format."""
    uri: Uri
    """Where the file is: node://<node>/<path below the node's job folders>, or its place below output.uri."""
    node_uri: Uri | None = None
    """Where the copy on the node that trained it is, while uri is elsewhere."""
    durable: bool = False
    """False while the only copy is on the node that trained it."""
    download_path: SignedPath | None = None
    """For `kubectl get --raw`: streams the file through the API server, until 29 days after it was last reported."""
    exports: Annotated[list[Export], Field(max_length=8)] = []
    """What else spec.output.formats asked for."""
