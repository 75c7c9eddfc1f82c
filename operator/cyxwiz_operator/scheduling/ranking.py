"""Every node's answer to one demand, kept right while places are given: a placement changes one node, not all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence

import numpy as np

from cyxwiz_operator.node_table import Floats, Ints, NodeTable
from cyxwiz_operator.views import Demand

from .filters import FITS, examine
from .room import Room
from .scoring import score

_BILLION = 10**9
_ABOVE_ANY_SCORE = 4 * _BILLION
_FRONT = 256
"""So many of the best nodes are kept sorted."""
_NONE_LEFT = np.iinfo(np.int64).max


class Ranking:
    """Verdicts and scores of all nodes for one demand, and the best of them in order.

    The order is one integer per node, the smaller the better: the score in billionths, so that a tie is a tie whatever
    the order of a sum, and the row, so that ties go by name. `_front` holds, sorted, every fitting node whose rank is
    below `_floor`; since scores only fall within a pass, nobody ever enters it from behind.
    """

    def __init__(self, demand: Demand, nodes: NodeTable) -> None:
        self.demand = demand
        self.verdicts = examine(demand, nodes)
        self._scores = score(demand, nodes)
        self._names = nodes.names
        self._ranks = _ranks(self._scores.total)
        self._words: dict[int, str] = {}
        self._front: list[int] = []
        self._floor = 0
        self._refill()

    def best_first(self, count: int, passed_over: Collection[int] = ()) -> list[int]:
        """The rows of up to `count` nodes that fit, best first, without those of `passed_over`."""
        while True:
            found: list[int] = []
            for rank in self._front:
                row = rank % len(self._names)
                if row not in passed_over:
                    found.append(row)
                    if len(found) == count:
                        return found
            if self._floor == _NONE_LEFT:
                return found
            self._refill()

    def words(self, row: int) -> str:
        """The node's score and its parts."""
        found = self._words.get(row)
        if found is None:
            found = self._words[row] = self._scores.words(row, self._names[row])
        return found

    def correct(self, row: int, room: Room) -> None:
        """The node has only this room left."""
        verdicts = self.verdicts
        fitted = verdicts.first_failed[row] == FITS
        verdicts.correct(row, room.lacks(self.demand))
        if not fitted:
            return
        before = int(self._ranks[row])
        if before < self._floor:
            del self._front[bisect_left(self._front, before)]
        self._words.pop(row, None)
        self._scores.correct(row, room.free_share(self.demand))
        rank = self._ranks[row] = _rank(float(self._scores.total[row]), row, len(self._names))
        if verdicts.first_failed[row] == FITS and rank < self._floor:
            insort(self._front, rank)

    def _refill(self) -> None:
        """The front is longer by _FRONT, or holds every node that fits."""
        ranks = self._ranks[self.verdicts.fits]
        wanted = len(self._front) + _FRONT
        if wanted < len(ranks):
            ranks = np.partition(ranks, wanted)
            self._floor = int(ranks[wanted])
            ranks = ranks[:wanted]
        else:
            self._floor = _NONE_LEFT
        self._front = np.sort(ranks).tolist()


class Rankings:
    """The nodes while places are given, and the ranking of each demand met so far."""

    def __init__(self, nodes: NodeTable) -> None:
        self.nodes = nodes.thawed()
        self._charged: list[int] = []
        self._rooms: dict[int, Room] = {}
        self._known: dict[Demand, tuple[Ranking, int]] = {}

    def of(self, demand: Demand) -> Ranking:
        """Right for what is free now. Costs what all nodes cost the first time, then what changed since."""
        charged = len(self._charged)
        ranking, seen = self._known.get(demand) or (Ranking(demand, self.nodes), charged)
        for row in set(self._charged[seen:]):
            ranking.correct(row, self._rooms[row])
        self._known[demand] = ranking, charged
        return ranking

    def room(self, row: int) -> Room:
        """What the node has left. Not to be changed by others."""
        if row not in self._rooms:
            self._rooms[row] = Room.of(self.nodes, row)
        return self._rooms[row]

    def charge(self, row: int, demand: Demand, devices: Sequence[int]) -> None:
        """A job takes its place."""
        self.room(row).take(demand, devices)
        self.nodes.charge(row, demand, devices)
        self._charged.append(row)


def _ranks(totals: Floats) -> Ints:
    billionths = np.rint(totals * _BILLION).astype(np.int64)
    return (_ABOVE_ANY_SCORE - billionths) * len(totals) + np.arange(len(totals))


def _rank(total: float, row: int, count: int) -> int:
    return (_ABOVE_ANY_SCORE - round(total * _BILLION)) * count + row
