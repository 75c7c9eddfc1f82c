"""Every node's answer to one demand, kept right while places are given: a placement changes one node, not all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cyxwiz_operator.node_table import Floats, Ints, NodeTable
from cyxwiz_operator.views import Demand

from .filters import examine
from .room import Room
from .scoring import Scores, availability_of, score

_BILLION = 10**9
_ABOVE_ANY_SCORE = 4 * _BILLION
_FRONT = 256
"""So many of the best nodes are kept sorted."""
_NONE_LEFT = np.iinfo(np.int64).max


class Order:
    """All nodes by score, for every demand that scores them alike.

    A node's rank is one integer, the smaller the better: the score in billionths, so that a tie is a tie whatever the
    order of a sum, and the row, so that ties go by name.
    """

    def __init__(self, scores: Scores, names: Sequence[str]) -> None:
        self.ranks: Ints = _ranks(scores.total)
        self._scores = scores
        self._names = names
        self._words: dict[int, str] = {}

    def correct(self, row: int) -> int:
        """The node's new rank: it has less free than before."""
        self._words.pop(row, None)
        billionths = round(self._scores.total_of(row) * _BILLION)
        rank = (_ABOVE_ANY_SCORE - billionths) * len(self._names) + row
        self.ranks[row] = rank
        return rank

    def words(self, row: int) -> str:
        """The node's score and its parts."""
        found = self._words.get(row)
        if found is None:
            found = self._words[row] = self._scores.words(row, self._names[row])
        return found


class Ranking:
    """Verdicts of all nodes on one demand, and the best of those that fit in order.

    `_front` holds, sorted, the rank of every fitting node whose rank is below `_floor`; since scores only fall within a
    pass, nobody ever enters it from behind.
    """

    def __init__(self, demand: Demand, nodes: NodeTable, order: Order) -> None:
        self.demand = demand
        self.verdicts = examine(demand, nodes)
        self.words = order.words
        self._order = order
        self._front: list[int] = []
        self._rank_of: dict[int, int] = {}
        """Row to rank, of those in front."""
        self._floor = 0
        self._refill()

    def best_first(self, count: int, passed_over: Collection[int] = ()) -> list[int]:
        """The rows of up to `count` nodes that fit, best first, without those of `passed_over`."""
        nodes = len(self._order.ranks)
        while True:
            found: list[int] = []
            for rank in self._front:
                row = rank % nodes
                if row not in passed_over:
                    found.append(row)
                    if len(found) == count:
                        return found
            if self._floor == _NONE_LEFT:
                return found
            self._refill()

    def correct(self, rows: Iterable[int], rooms: Mapping[int, Room], ranks: Mapping[int, int]) -> None:
        """These nodes have only this room left, and these ranks."""
        front, rank_of, verdicts = self._front, self._rank_of, self.verdicts
        for row in rows:
            lacks = rooms[row].lacks(self.demand)
            verdicts.correct(row, lacks)
            before = rank_of.pop(row, None)
            if before is None:
                continue  # behind the front it stays, or it did not fit
            del front[bisect_left(front, before)]
            if lacks is None and ranks[row] < self._floor:
                insort(front, ranks[row])
                rank_of[row] = ranks[row]

    def _refill(self) -> None:
        """The front is longer by _FRONT, or holds every node that fits."""
        ranks = self._order.ranks
        if self.verdicts.fitting < len(ranks):
            ranks = ranks[self.verdicts.fits]
        wanted = len(self._front) + _FRONT
        if wanted < len(ranks):
            ranks = np.partition(ranks, wanted)
            self._floor = int(ranks[wanted])
            ranks = ranks[:wanted]
        else:
            self._floor = _NONE_LEFT
        self._front = np.sort(ranks).tolist()
        self._rank_of = {rank % len(self._order.ranks): rank for rank in self._front}


class _Likes(NamedTuple):
    """What demands have in common that score every node alike."""

    gpus: bool
    gpu_memory_mib: int | None
    data: str
    checkpoint_node: str | None


class Rankings:
    """The nodes while places are given, and the ranking of each demand met so far."""

    def __init__(self, nodes: NodeTable) -> None:
        self.nodes = nodes.thawed()
        self._charged: list[int] = []
        self._rooms: dict[int, Room] = {}
        self._known: dict[Demand, tuple[Ranking, _Likes, int]] = {}
        self._orders: dict[_Likes, tuple[Order, dict[int, int]]] = {}
        """With the ranks that were corrected."""
        self._availability: dict[bool, Floats] = {}

    def of(self, demand: Demand) -> Ranking:
        """Right for what is free now. Costs what all nodes cost the first time, then what changed since."""
        charged = len(self._charged)
        known = self._known.get(demand)
        if known is None:
            likes = _Likes(demand.gpus > 0, demand.gpu_memory_mib, demand.data, demand.checkpoint_node)
            ranking = Ranking(demand, self.nodes, self._order_of(demand, likes))
        else:
            ranking, likes, seen = known
            if seen == charged:
                return ranking
            rows = self._charged[seen:]
            ranking.correct(rows if len(rows) == 1 else set(rows), self._rooms, self._orders[likes][1])
        self._known[demand] = ranking, likes, charged
        return ranking

    def room(self, row: int) -> Room:
        """What the node has left. Not to be changed by others."""
        room = self._rooms.get(row)
        if room is None:
            room = self._rooms[row] = Room.of(self.nodes, row)
        return room

    def charge(self, row: int, demand: Demand, devices: Sequence[int]) -> None:
        """A job takes its place."""
        room = self.room(row)
        room.take(demand, devices)
        self.nodes.charge(row, demand, devices)
        for for_gpus, free in self._availability.items():
            free[row] = room.free_share(for_gpus)
        for order, corrected in self._orders.values():
            corrected[row] = order.correct(row)
        self._charged.append(row)

    def _order_of(self, demand: Demand, likes: _Likes) -> Order:
        found = self._orders.get(likes)
        if found is None:
            free = self._availability.get(likes.gpus)
            if free is None:
                free = self._availability[likes.gpus] = availability_of(likes.gpus, self.nodes)
            found = self._orders[likes] = Order(score(demand, self.nodes, free), self.nodes.names), {}
        return found[0]


def _ranks(totals: Floats) -> Ints:
    billionths = np.rint(totals * _BILLION).astype(np.int64)
    return (_ABOVE_ANY_SCORE - billionths) * len(totals) + np.arange(len(totals))
