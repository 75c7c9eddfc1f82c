"""A .csv table: a header, columns of numbers or of words, and one column to predict, of words or numbers."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError, unknown

from .columns import Columns, Words
from .dataset import LARGEST_LABEL, Dataset, held_out, sha256_of, whole
from .file import File
from .request import NOTHING, Request

MOST_CLASSES_BY_ITSELF = 100
"""More different whole numbers than these are quantities, unless task: classification says otherwise."""
ROWS_THAT_TELL = 10_000
"""A column is what most of its filled cells in so many first rows are."""
_LONGEST_CELL = 1_048_576
_BYTES_PER_BYTE = 8
"""Memory for a byte of the file: a digit and its comma become a float64, and the labels stay words for a while."""
_BYTES_PER_INPUT = 8
"""A float32, and its copy in the part that it is trained on or held out in."""


@dataclass(frozen=True)
class Table:
    """What a file holds, before anything of it is a sample."""

    features: tuple[str, ...]
    numbers: NDArray[np.float64]
    """(rows, columns that hold numbers), in the order of `features`."""
    words: Mapping[str, Words]
    """Of the columns that hold words."""
    labels: list[str]
    rows: Sequence[int]
    """Where each row stands in the file."""


def load(file: File, request: Request) -> Dataset:
    """The data of `file`. Raises UserError that names the row, the column and what was expected there."""
    request.check_size(file.name, _BYTES_PER_BYTE * file.size)
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with file.path.open(encoding="utf-8-sig", newline="") as lines:
            table = _read(file.name, csv.reader(lines, strict=True), request)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file.name} is no UTF-8 text: byte {error.start} is {error.object[error.start]:#x}"
        ) from error
    except (csv.Error, OSError) as error:
        raise UserError(f"{file.name} is no readable table: {error}") from error
    if not table.labels:
        raise UserError(f"{file.name} has a header and no rows")
    return dataset_of(file.name, table, request)


def dataset_of(name: str, table: Table, request: Request) -> Dataset:
    """The data of a table. Raises UserError that names the row, the column and what was expected there."""
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
        numbers = table.numbers.astype(np.float32)
    holds_numbers = [column for column in table.features if column not in table.words]
    if not np.isfinite(numbers).all():
        row, column = (int(place[0]) for place in np.nonzero(~np.isfinite(numbers)))
        raise UserError(f"{name}, row {table.rows[row]}, column {holds_numbers[column]!r}: a finite number is needed")
    y, names = _labels(name, table.labels, table.rows, request.task)
    columns = request.columns or _learnt(table, request)
    if table.words:
        request.check_size(name, len(table.labels) * columns.width * _BYTES_PER_INPUT)
    x = numbers if columns.names == tuple(holds_numbers) else _inputs(table, numbers, columns)
    digest = _digest(table, numbers, y) if table.words else None
    dataset = whole((x, y), None, fraction=request.fraction, seed=request.seed, label_names=names, digest=digest)
    return replace(dataset, columns=columns, note=_strangers(name, table, columns))


def _learnt(table: Table, request: Request) -> Columns:
    """The categories that samples to train on have: what is held out must teach the model nothing."""
    rows = np.arange(len(table.labels))
    if request.fraction != NOTHING and len(rows) > 1:
        rows, _ = held_out(len(rows), request.fraction, request.seed)
    return Columns(table.features, {column: words.categories(rows) for column, words in table.words.items()})


def _inputs(table: Table, numbers: NDArray[np.float32], columns: Columns) -> NDArray[np.float32]:
    """(rows, inputs of a model)."""
    inputs = np.empty((len(numbers), columns.width), np.float32)
    places = {column: place for place, column in enumerate(name for name in table.features if name not in table.words)}
    start = 0
    for column in columns.names:
        if column in table.words:
            part = table.words[column].one_hot(columns.categories[column])
        else:
            part = numbers[:, [places[column]]]
        inputs[:, start : start + part.shape[1]] = part
        start += part.shape[1]
    return inputs


def _strangers(name: str, table: Table, columns: Columns) -> str | None:
    """What is said of words that are no category."""
    strange: dict[int, str] = {}
    for column, words in table.words.items():
        known = np.isin(words.vocabulary, columns.categories[column])
        for row in np.flatnonzero(~known[words.codes]):
            strange.setdefault(int(row), column)
    if not strange:
        return None
    row = min(strange)
    words = table.words[strange[row]]
    return (
        f"{name}: {len(strange)} of {len(table.labels)} rows hold a word that no sample has which the model learns "
        f"from, the first {words.vocabulary[words.codes[row]][:40]!r} in row {table.rows[row]}, column "
        f"{strange[row][:40]!r}: it counts as none of the column's categories"
    )


def _digest(table: Table, numbers: NDArray[np.float32], y: NDArray[Any]) -> str:
    """Over what the file says, whichever of its words become categories."""
    vocabularies = repr([(column, words.vocabulary) for column, words in table.words.items()])
    return sha256_of(numbers, y, *(words.codes for words in table.words.values()), more=vocabularies.encode())


def _read(name: str, reader: Any, request: Request) -> Table:
    header = next(reader, [])
    if len(header) < 2 or len(set(header)) < len(header):
        raise UserError(f"{name}: the first line must name at least two columns, each once")
    label: str = header[-1] if request.label_column is None else request.label_column
    if label not in header:
        raise unknown(f"column of {name}", label, header)
    place = header.index(label)
    features = header[:place] + header[place + 1 :]
    if request.columns is not None:
        request.columns.check(name, features)
    lines = _lines(name, reader, len(header))
    first = list(islice(lines, ROWS_THAT_TELL))
    if request.columns is None:
        may_hold = [(at, column) for at, column in enumerate(header) if at != place]
        holds_words = [column for at, column in may_hold if _are_words(row[at] for _, row in first)]
    else:
        holds_words = [column for column in features if column in request.columns.categories]
    words = {column: Words(name, column) for column in holds_words}
    number_places = [at for at, column in enumerate(header) if column not in words and at != place]
    word_places = [(header.index(column), cells) for column, cells in words.items()]
    values, labels, rows = array("d"), list[str](), array("q")
    for line, row in chain(first, lines):
        labels.append(row[place])
        rows.append(line)
        for at, cells in word_places:
            cells.append(row[at])
        numbers = [row[at] for at in number_places]
        try:
            values.extend(map(float, numbers))
        except ValueError as error:
            at = next(at for at in number_places if _number(row[at]) is None)
            raise UserError(
                f"{name}, row {line}, column {header[at]!r}: a number is needed, and there is {row[at][:40]!r}"
            ) from error
    flat = np.frombuffer(values, np.float64) if values else np.empty(0)
    return Table(tuple(features), flat.reshape(len(labels), len(number_places)), words, labels, rows)


def _lines(name: str, reader: Any, cells: int) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line it ends in."""
    for row in reader:
        if not row:
            continue
        if len(row) != cells:
            raise UserError(f"{name}, row {reader.line_num}: {len(row)} cells, and the header names {cells}")
        yield reader.line_num, row


def _are_words(cells: Iterator[str]) -> bool:
    """Fewer than half of those that are filled are numbers."""
    filled = [cell for cell in cells if cell.strip()]
    return sum(_number(cell) is not None for cell in filled) * 2 < len(filled)


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
