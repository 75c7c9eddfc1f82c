"""A table's columns as a model sees them: a number is one input, a word is one of its column's categories, one-hot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cyxwiz_trainer.failures import UserError

MOST_CATEGORIES = 256
"""Of one column. Each is an input of the model: a column of names or of keys would have one for every row."""
MOST_WORDS = 65_536
"""Different words of a column that are kept to be counted."""


@dataclass(frozen=True)
class Columns:
    """What a model's inputs are, in order."""

    names: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Of the columns that hold words, by name. The order is that of their inputs."""

    @property
    def width(self) -> int:
        """Inputs of a model."""
        return sum(len(self.categories.get(name, ("",))) for name in self.names)

    def check(self, file: str, names: Sequence[str]) -> None:
        """Raises UserError when a table with the columns `names` has others than these."""
        if missing := [name for name in self.names if name not in names]:
            raise UserError(f"{file} has no column {missing[0][:64]!r}, which the model learns from")
        if strange := [name for name in names if name not in self.names]:
            raise UserError(f"{file} has a column {strange[0][:64]!r}, which the model does not learn from")


class Words:
    """The cells of a column of words, each different word kept once."""

    def __init__(self, file: str, column: str) -> None:
        self._what = f"{file}, column {column[:100]!r}"
        self._places: dict[str, int] = {}
        self._codes: list[int] = []

    def append(self, word: str) -> None:
        """Raises UserError when the column has more different words than can be categories of anything."""
        place = self._places.setdefault(word, len(self._places))
        if place >= MOST_WORDS:
            raise self._too_many(f"more than {MOST_WORDS:,}")
        self._codes.append(place)

    @property
    def codes(self) -> NDArray[np.int64]:
        """(rows,) places in `vocabulary`."""
        return np.array(self._codes, np.int64)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """As they were first seen."""
        return tuple(self._places)

    def categories(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """The different words in `rows`, sorted. Raises UserError when there are too many for a model."""
        vocabulary = self.vocabulary
        found = tuple(sorted(vocabulary[place] for place in np.unique(self.codes[rows])))
        if len(found) > MOST_CATEGORIES:
            raise self._too_many(f"{len(found):,}")
        return found

    def one_hot(self, categories: Sequence[str]) -> NDArray[np.float32]:
        """(rows, categories): 1 at the word's own; a word that is none of them is 0 everywhere."""
        numbers = {word: number for number, word in enumerate(categories)}
        known = np.eye(len(categories) + 1, len(categories), dtype=np.float32)  # its last row is that of no category
        return known[[numbers.get(word, len(categories)) for word in self.vocabulary]][self.codes]

    def _too_many(self, count: str) -> UserError:
        return UserError(
            f"{self._what}: {count} different words, and a column of words may have {MOST_CATEGORIES}: leave the "
            "column out, give rare words one name, or turn it into numbers"
        )
