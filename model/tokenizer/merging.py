"""Merging of one pre-token: pairs of ids are merged in the order of their ranks."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise, repeat

# Longer pre-tokens are merged with a heap, so that a long run of letters does not take quadratic
# time; for shorter ones the plain loop is faster.
_LONG_PRETOKEN = 128
_PLACES = 1 << 32  # bytes of a pre-token have lower places
_NEVER = 1 << 62  # rank of a pair that is not merged

Ranks = Mapping[tuple[int, int], int]


def merged(ids: list[int], ranks: Ranks, results: Sequence[int]) -> list[int]:
    """Apply merges to the ids of a pre-token, which are changed.

    Args:
        ids: the ids.
        ranks: pair → its place in the order of merging.
        results: id that each merge makes.
    """
    if len(ids) > _LONG_PRETOKEN:
        return _merged_long(ids, ranks, results)
    rank_of = ranks.get
    order = list(map(rank_of, pairwise(ids), repeat(_NEVER)))  # of each id with the next one
    ids.append(-1)
    order.append(_NEVER)
    while (best := min(order)) != _NEVER:
        i = order.index(best)
        made = ids[i] = results[best]
        del ids[i + 1], order[i]
        order[i] = rank_of((made, ids[i + 1]), _NEVER)
        if i:
            order[i - 1] = rank_of((ids[i - 1], made), _NEVER)
    ids.pop()
    return ids


def _merged_long(ids: list[int], ranks: Ranks, results: Sequence[int]) -> list[int]:
    """Merge as `merged` does, with a linked list and a heap: n·log n in the length."""
    end = len(ids)
    after = array("q", range(1, end + 1))
    after[-1] = -1
    before = array("q", range(-1, end - 1))
    # A rank and a place are one number: tuples would take four times the memory.
    heap = [ranks[pair] * _PLACES + i for i, pair in enumerate(pairwise(ids)) if pair in ranks]
    heapq.heapify(heap)

    def push(i: int) -> None:
        rank = ranks.get((ids[i], ids[after[i]]))
        if rank is not None:
            heapq.heappush(heap, rank * _PLACES + i)

    while heap:
        rank, i = divmod(heapq.heappop(heap), _PLACES)
        j = after[i]
        if ids[i] < 0 or j < 0 or ranks.get((ids[i], ids[j])) != rank:
            continue  # outdated: one of the two has been merged
        ids[i], ids[j] = results[rank], -1
        after[i] = after[j]
        if after[j] >= 0:
            before[after[j]] = i
            push(i)
        if before[i] >= 0:
            push(before[i])
    return [i for i in ids if i >= 0]
