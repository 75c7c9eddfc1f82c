"""Answers samples with the model in this folder. Needs torch and nothing else.

    python predict.py samples.npy              # (n, ...) samples of the shape config.json names
    python predict.py table.csv                # a header and rows; columns are found by their names, and words that the
                                               # model has not learnt are answered for, and named as "unknown"
    python predict.py --text "Once upon" --bytes 200

A line of JSON per sample. From Python: `from predict import Model; Model().outputs(samples)`. The trainer copies this
file beside exported weights; model.safetensors is read here as its format says, so no further package is needed.
"""

from __future__ import annotations

import argparse
import ast
import csv
import importlib.util
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
DTYPES = {"F32": torch.float32, "I64": torch.int64, "U8": torch.uint8, "BOOL": torch.bool}
NPY_DTYPES = {"|u1": torch.uint8, "<f4": torch.float32, "<f8": torch.float64, "<i4": torch.int32, "<i8": torch.int64}
BATCH = 256


class Model:
    """The trained network with what belongs before and behind it."""

    def __init__(self, folder: Path = HERE) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        spec = importlib.util.spec_from_file_location("network", folder / "network.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        network = self.config["network"]
        self.network = getattr(module, network["class"])(**network["arguments"])
        self.network.load_state_dict(read_safetensors(folder / "model.safetensors"))
        self.network.eval()

    @torch.inference_mode()
    def outputs(self, samples: Tensor) -> Tensor:
        """(n, outputs) scores of classes or values of quantities; (n, places, 256) scores of text."""
        given = self.config["input"]
        if self.config["task"] != "nextToken":
            mean, std = (torch.tensor(given[name]) for name in ("mean", "std"))
            places = (-1, *(1,) * (samples.ndim - 2))
            samples = (samples.float() - mean.reshape(places)) / std.reshape(places)
        outputs = torch.cat([self.network(batch) for batch in samples.split(BATCH)])
        if self.config["task"] == "regression":
            scale = self.config["targets"]
            return outputs * torch.tensor(scale["std"]) + torch.tensor(scale["mean"])
        return outputs

    def answers(self, samples: Tensor) -> Iterator[dict[str, Any]]:
        """What each sample is, in words."""
        outputs = self.outputs(samples)
        if self.config["task"] == "regression":
            yield from ({"values": row.tolist()} for row in outputs)
            return
        labels = self.config["labels"]
        for row in outputs.softmax(dim=1):
            probability, place = row.max(dim=0)
            yield {"label": labels[place] if labels else int(place), "probability": round(float(probability), 6)}

    def continued(self, text: str, count: int) -> str:
        """`text` and the `count` bytes that most likely follow."""
        tokens = list(text.encode()) or [0]
        for _ in range(count):
            window = torch.tensor([tokens[-self.config["input"]["shape"][0] :]])
            tokens.append(int(self.outputs(window)[0, -1].argmax()))
        return bytes(tokens).decode(errors="replace")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by name: 8 bytes of the header's length, the header as JSON, then the values."""
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    tensors: dict[str, Tensor] = {}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            values = torch.frombuffer(content[start:end], dtype=torch.uint8) if end > start else torch.empty(0)
            tensors[name] = values.view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def read_npy(path: Path) -> Tensor:
    """The array of a .npy file of plain numbers, its last axis changing fastest."""
    content = bytearray(path.read_bytes())
    if content[:6] != b"\x93NUMPY" or content[6] not in (1, 2):
        raise SystemExit(f"{path} is no .npy file of plain numbers")
    size = 2 if content[6] == 1 else 4
    length = int.from_bytes(content[8 : 8 + size], "little")
    header = ast.literal_eval(content[8 + size : 8 + size + length].decode("latin1"))
    if header["descr"] not in NPY_DTYPES or header["fortran_order"]:
        raise SystemExit(f"{path} holds {header['descr']}: save it as float32 or uint8 with numpy.ascontiguousarray")
    values = torch.frombuffer(content[8 + size + length :], dtype=NPY_DTYPES[header["descr"]])
    return values.reshape(header["shape"])


def read_table(
    path: Path, names: list[str] | None, categories: dict[str, list[str]]
) -> tuple[Tensor, list[dict[str, str]]]:
    """The columns `names` of a .csv file as the model's inputs, and each row's words that the model has not learnt.

    A column of words has an input for each of its `categories`: 1 at the row's own, and 0 at all for another word.
    """
    samples: list[list[float]] = []
    strangers: list[dict[str, str]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = names or list(rows.fieldnames or ())
        if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
            raise SystemExit(f"{path} has no column {missing[0]!r}, which the model was trained on")
        for row in rows:
            sample: list[float] = []
            for name in columns:
                if name in categories:
                    sample += [float(row[name] == word) for word in categories[name]]
                    continue
                number = _number(row[name])
                if number is None:
                    raise SystemExit(
                        f"{path}, row {rows.line_num}, column {name!r}: a finite number is needed, and there is "
                        f"{row[name] or ''!r}"
                    )
                sample.append(number)
            samples.append(sample)
            words = {name: row[name] for name in columns if name in categories}
            strangers.append({name: word for name, word in words.items() if word not in categories[name]})
    return torch.tensor(samples), strangers


def _number(cell: str | None) -> float | None:
    try:
        number = float(cell or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def as_trained(samples: Tensor, shape: list[int]) -> Tensor:
    """Samples in the shape the model was trained on; images may come without channels or with channels last."""
    if len(shape) == 3 and samples.ndim == 3:
        samples = samples[:, None]
    if list(samples.shape[1:]) == [*shape[1:], shape[0]] != shape:
        samples = samples.permute(0, 3, 1, 2)
    if list(samples.shape[1:]) != shape:
        raise SystemExit(f"a sample has shape {list(samples.shape[1:])}, and the model was trained on {shape}")
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="?", type=Path, help="a .npy or .csv file")
    parser.add_argument("--text", help="what the model shall continue")
    parser.add_argument("--bytes", type=int, default=100, help="how far (default 100)")
    arguments = parser.parse_args()
    model = Model()
    if (arguments.samples is None) != (model.config["task"] == "nextToken") or (
        (arguments.text is None) == (arguments.samples is None)
    ):
        parser.error("give samples, or --text to a model of text")
    if arguments.text is not None:
        print(json.dumps({"text": model.continued(arguments.text, arguments.bytes)}))
        return
    shape = model.config["input"]["shape"]
    if arguments.samples.suffix != ".csv":
        for answer in model.answers(as_trained(read_npy(arguments.samples), shape)):
            print(json.dumps(answer))
        return
    samples, strangers = read_table(arguments.samples, model.config["features"], model.config["categories"])
    for answer, unknown in zip(model.answers(as_trained(samples, shape)), strangers, strict=True):
        print(json.dumps(answer | ({"unknown": unknown} if unknown else {})))


if __name__ == "__main__":
    main()
