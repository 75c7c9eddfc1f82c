"""A text file for nextToken: its bytes are the tokens, cut into samples of dataset.contextLength, the end held out."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from cyxwiz_trainer.failures import UserError

from .dataset import Dataset, Part
from .file import File
from .request import NOTHING, Request

VOCABULARY = 256


def load(file: File, request: Request) -> Dataset:
    """The data of `file`. Raises UserError when it is too short for two samples, or too large."""
    size, places = file.size, request.context_length
    request.check_size(file.name, 3 * size)  # the file, and what each sample reads and is to answer
    count = (size - 1) // places
    if count < 2:
        raise UserError(
            f"{file.name} has {size} bytes: two samples of dataset.contextLength {places} need {2 * places + 1}"
        )
    try:
        with file.open() as stream:
            content = stream.read(count * places + 1)
    except OSError as error:
        raise UserError(f"{file.name} cannot be read: {error.strerror}") from error
    tokens = np.frombuffer(content, np.uint8)
    if len(tokens) < count * places + 1:
        raise UserError(f"{file.name} became shorter while it was read")
    inputs = torch.from_numpy(tokens[:-1].reshape(count, places).copy())
    answers = torch.from_numpy(tokens[1:].reshape(count, places).copy())
    # The end, not samples by chance: a neighbour of every held-out sentence would have been trained on.
    held_out = 0 if request.fraction == NOTHING else min(max(round(count * request.fraction), 1), count - 1)
    kept = count - held_out
    return Dataset(
        Part(inputs[:kept], answers[:kept]),
        Part(inputs[kept:], answers[kept:]),
        VOCABULARY,
        hashlib.sha256(content).hexdigest(),
        "nextToken",
    )
