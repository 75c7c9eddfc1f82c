"""A .parquet table: columns of numbers or of words, and one column to predict, of words or numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError, unknown

from .columns import Words
from .dataset import Dataset
from .file import File
from .request import Request
from .table import Table, dataset_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 65_536
_BYTES_PER_VALUE = 12
"""A float64, and a float32 beside it."""
_BYTES_PER_LABEL = 64
"""A word, until classes are counted."""
_LONGEST_NAME = 4096
MOST_COLUMNS = 100_000


def load(file: File, request: Request) -> Dataset:
    """The data of `file`. Raises UserError that names the row, the column and what was expected there."""
    import pyarrow as pa  # late: no other job needs it
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(
            file.path, thrift_string_size_limit=2**26, thrift_container_size_limit=2**22, memory_map=False
        ) as table:
            return _load(file.name, table, request)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file.name} is no readable Parquet file: {str(error)[:200]}") from error


def _load(name: str, table: pq.ParquetFile, request: Request) -> Dataset:
    schema = table.schema_arrow
    names: list[str] = schema.names
    if not 2 <= len(names) <= MOST_COLUMNS or len(set(names)) < len(names):
        raise UserError(f"{name}: 2 to {MOST_COLUMNS} columns with different names are needed, it has {len(names)}")
    label: str = names[-1] if request.label_column is None else request.label_column
    if label not in names:
        raise unknown(f"column of {name}", label, names)
    features = [column for column in names if column != label]
    if request.columns is not None:
        request.columns.check(name, features)
    if len(max(names, key=len)) > _LONGEST_NAME:
        raise UserError(f"{name}: a column's name is longer than {_LONGEST_NAME} characters")
    words = {column: Words(name, column) for column in features if _holds_words(name, schema.field(column), request)}
    holds_numbers = [column for column in features if column not in words]
    count = table.metadata.num_rows
    if count == 0:
        raise UserError(f"{name} has columns and no rows")
    request.check_size(name, count * (len(features) * _BYTES_PER_VALUE + _BYTES_PER_LABEL))
    values = np.empty((count, len(holds_numbers)), np.float64)
    labels: list[str] = []
    word_bytes = 0
    for batch in table.iter_batches(_BATCH_ROWS, columns=names):
        start = len(labels)
        if start + batch.num_rows > count:
            raise UserError(f"{name} has more rows than the {count} it declares")
        for place, column in enumerate(holds_numbers):
            values[start : start + batch.num_rows, place] = _numbers(name, column, batch.column(column), start)
        for column, cells in words.items():
            for word in batch.column(column).to_pylist():
                cells.append("" if word is None else str(word))
        more = _labels(name, label, batch.column(label), start)
        word_bytes += sum(map(len, more))
        request.check_size(name, word_bytes)
        labels += more
    if len(labels) < count:
        raise UserError(f"{name} has {len(labels)} rows and declares {count}")
    return dataset_of(name, Table(tuple(features), values, words, labels, range(1, count + 1)), request)


def _holds_words(name: str, column: pa.Field, request: Request) -> bool:
    """Raises UserError for a column of neither numbers nor words, and of words where the model knows numbers."""
    import pyarrow.types as types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    is_word = types.is_string(kind) or types.is_large_string(kind)
    may_be_word = request.columns is None or column.name in request.columns.categories
    if not is_number and not (is_word and may_be_word):
        needed = "numbers or words" if may_be_word else "numbers"
        raise UserError(f"{name}, column {column.name[:100]!r}: {needed} are needed, and it holds {str(kind)[:100]}")
    return is_word if request.columns is None else may_be_word


def _numbers(name: str, column: str, values: pa.Array, start: int) -> NDArray[np.float64]:
    import pyarrow as pa

    if values.null_count:
        row = start + 1 + int(values.is_null().to_numpy(zero_copy_only=False).argmax())
        raise UserError(f"{name}, row {row}, column {column[:100]!r}: a number is needed, and there is none")
    return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _labels(name: str, column: str, values: pa.Array, start: int) -> list[str]:
    import pyarrow.types as types

    kind = values.type.value_type if types.is_dictionary(values.type) else values.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise UserError(f"{name}, column {column[:100]!r}: labels are numbers or words, and it holds {str(kind)[:100]}")
    found: list[Any] = values.to_pylist()
    if None in found:
        raise UserError(f"{name}, row {start + 1 + found.index(None)}, column {column[:100]!r}: the label is empty")
    return [str(value) for value in found]
