"""A .csv table: a header, numbers in the columns, and one column to predict, of words or numbers."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError, unknown

from .dataset import LARGEST_LABEL, Dataset, whole
from .file import File
from .request import Request

MOST_CLASSES_BY_ITSELF = 100
"""More different whole numbers than these are quantities, unless task: classification says otherwise."""
_LONGEST_CELL = 1_048_576
_BYTES_PER_BYTE = 8
"""Memory for a byte of the file: a digit and its comma become a float64, and the labels stay words for a while."""


def load(file: File, request: Request) -> Dataset:
    """The data of `file`. Raises UserError that names the row, the column and what was expected there."""
    request.check_size(file.name, _BYTES_PER_BYTE * file.size)
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with file.path.open(encoding="utf-8-sig", newline="") as lines:
            header, values, words, rows = _read(file.name, csv.reader(lines, strict=True), request.label_column)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file.name} is no UTF-8 text: byte {error.start} is {error.object[error.start]:#x}"
        ) from error
    except (csv.Error, OSError) as error:
        raise UserError(f"{file.name} is no readable table: {error}") from error
    if not words:
        raise UserError(f"{file.name} has a header and no rows")
    return table_of(file.name, header, np.frombuffer(values, np.float64), words, rows, request)


def table_of(
    name: str,
    header: Sequence[str],
    values: NDArray[np.float64],
    words: list[str],
    rows: Sequence[int],
    request: Request,
) -> Dataset:
    """The data of a table: `values` row by row, the labels as words, and where each row stands in the file.

    Raises UserError that names the row, the column and what was expected there.
    """
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
        x = values.reshape(len(words), len(header)).astype(np.float32)
    if not np.isfinite(x).all():
        row, column = (int(place[0]) for place in np.nonzero(~np.isfinite(x)))
        raise UserError(f"{name}, row {rows[row]}, column {header[column]!r}: a finite number is needed")
    y, names = _labels(name, words, rows, request.task)
    dataset = whole((x, y), None, fraction=request.fraction, seed=request.seed, label_names=names)
    return replace(dataset, feature_names=tuple(header))


def _read(name: str, reader: Any, label_column: str | None) -> tuple[list[str], array[float], list[str], array[int]]:
    """Names of the features, their values row by row, the labels, and each row's line in the file."""
    header = next(reader, [])
    if len(header) < 2 or len(set(header)) < len(header):
        raise UserError(f"{name}: the first line must name at least two columns, each once")
    label: str = header[-1] if label_column is None else label_column
    if label not in header:
        raise unknown(f"column of {name}", label, header)
    place = header.index(label)
    features = header[:place] + header[place + 1 :]
    values, words, rows = array("d"), [], array("q")
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{name}, row {reader.line_num}: {len(row)} cells, and the header names {len(header)}")
        words.append(row.pop(place))
        rows.append(reader.line_num)
        try:
            values.extend(map(float, row))
        except ValueError as error:
            column = next(column for column, cell in zip(features, row, strict=True) if _number(cell) is None)
            cell = row[features.index(column)]
            raise UserError(
                f"{name}, row {reader.line_num}, column {column!r}: a number is needed, and there is {cell[:40]!r}"
            ) from error
    return features, values, words, rows


def _labels(name: str, words: list[str], rows: Sequence[int], task: str) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Targets as float64, or class numbers with the classes' names in order."""
    numbers = [_number(word) for word in words]
    is_number = [number is not None and math.isfinite(number) for number in numbers]
    if task == "regression" or (task == "auto" and sum(is_number) * 2 > len(words)):
        if not all(is_number):
            first = is_number.index(False)
            raise UserError(
                f"{name}, row {rows[first]}: the label {words[first][:40]!r} is no finite number: mend it, or set "
                "task: classification"
            )
        values = np.array(numbers, np.float64)
        few_wholes = (values == values.round()).all() and len(np.unique(values)) <= MOST_CLASSES_BY_ITSELF
        if task == "regression" or not few_wholes:
            return values, None
    if "" in words:
        raise UserError(f"{name}, row {rows[words.index('')]}: the label is empty")
    classes = sorted(set(words), key=lambda word: (_number(word) if all(is_number) else 0.0, word))
    if not 2 <= len(classes) <= LARGEST_LABEL + 1:
        raise UserError(f"{name}: the labels have {len(classes)} different values: 2 to {LARGEST_LABEL + 1} are needed")
    places = {word: place for place, word in enumerate(classes)}
    return np.array([places[word] for word in words]), tuple(classes)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
