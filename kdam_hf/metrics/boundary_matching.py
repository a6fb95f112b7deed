"""Match two sets of pixels one to one within a radius: as many pairs as possible and, of those matchings, a shortest one.

Unusual here: this is exact, and fast. Going through pixels on lines in reading order, each taking the first free partner, is
nearly a maximum matching; few searches have to mend it. That cuts the shortest one into two easy halves: left pixels that
exposed left pixels reach by alternating paths compete for right pixels that every maximum matching takes; all other left
pixels are taken in every one (König). So each half has a side that is matched completely, and a search always ends.

Legend: left and right are the smaller and the larger set; a graph is (starts, partners, costs), where the partners of
node i are partners[starts[i]:starts[i + 1]]; a mate of -1 means exposed.
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from kdam_hf.jit import compiled

Ints = NDArray[np.integer]
Graph = tuple[Ints, Ints, Ints]
FAR = np.int64(1) << 62


class Window(NamedTuple):
    """What lies within a radius of a pixel; by the absolute difference in rows and in columns, up to R."""

    shape: tuple[int, int]
    half_widths: Ints  # (R + 1,) the largest difference in columns
    costs: Ints  # (R + 1, R + 1) distances in hundredths of a pixel, rounded as the reference protocol rounds them


def window(shape: tuple[int, int], radius: float) -> Window:
    """All pixels at most `radius` pixels away, for images of (H, W)."""
    steps = np.arange(min(int(radius), max(shape)) + 1)
    squared = steps[:, None] ** 2 + steps**2
    half_widths = (squared <= radius * radius).sum(axis=1) - 1
    return Window(shape, half_widths, np.rint(100 * np.sqrt(squared)).astype(np.int64))


def match_pixels(first: Ints, second: Ints, within: Window, shortest: bool) -> Ints:
    """Pairs of a maximum matching between two sets of pixels.

    Args:
        first: flat indices of pixels, ascending, int64 (N,).
        second: likewise, (M,).
        within: how far the two pixels of a pair may be apart.
        shortest: also make the sum of the distances as small as it can be; takes about three times as long.

    Returns:
        int64 (P, 2): indices into `first` and into `second`. P does not depend on the order of the two, nor on `shortest`.

    Source:
        The problem is that of Martin, Fowlkes, Malik, PAMI 26(5), 2004, appendix B. Reading order: Glover, Naval Research
        Logistics 14, 1967. Shortest augmenting paths: Jonker and Volgenant, Computing 38, 1987.
    """
    swapped = len(first) > len(second)
    left, right = (second, first) if swapped else (first, second)
    index = np.full(within.shape, -1, np.int32)
    index.flat[right] = np.arange(len(right))
    graph = _radius_graph(left, index, within.half_widths, within.costs)
    mate_left, mate_right, reached = _maximum_matching(graph, len(right))
    if shortest and (mate_left >= 0).any():
        mate_left = _shortest_matching(graph, mate_right, reached)
    matched = np.flatnonzero(mate_left >= 0)
    pairs = np.stack([matched, mate_left[matched]], axis=1)
    return pairs[:, ::-1] if swapped else pairs


@compiled
def _radius_graph(left: Ints, index: Ints, half_widths: Ints, costs: Ints) -> Graph:
    """Partners of each left pixel, in reading order; `index` (H, W) holds right pixels by their number, -1 elsewhere."""
    reach = len(half_widths) - 1
    height, width = index.shape
    starts = np.zeros(len(left) + 1, np.int64)
    partners = np.empty(16 * len(left) + (2 * reach + 1) ** 2, np.int32)
    pair_costs = np.empty(len(partners), np.int32)
    count = 0
    for i in range(len(left)):
        if count + (2 * reach + 1) ** 2 > len(partners):
            partners = np.concatenate((partners, np.empty_like(partners)))
            pair_costs = np.concatenate((pair_costs, np.empty_like(pair_costs)))
        row, column = left[i] // width, left[i] % width
        for y in range(max(row - reach, 0), min(row + reach + 1, height)):
            half = half_widths[abs(y - row)]
            for x in range(max(column - half, 0), min(column + half + 1, width)):
                if index[y, x] >= 0:
                    partners[count] = index[y, x]
                    pair_costs[count] = costs[abs(y - row), abs(x - column)]
                    count += 1
        starts[i + 1] = count
    return starts, partners[:count], pair_costs[:count]


@compiled
def _maximum_matching(graph: Graph, right_count: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Mates of both sides, and which left nodes exposed left nodes reach by alternating paths.

    After the start in reading order a breadth-first search from each exposed node finds a shortest augmenting path. Where
    there is none, what the search saw is a dead end for all later searches, and stays marked.
    """
    starts, partners, _ = graph
    mate_left = np.full(len(starts) - 1, -1, np.int32)
    mate_right = np.full(right_count, -1, np.int32)
    for i in range(len(mate_left)):
        for e in range(starts[i], starts[i + 1]):
            if mate_right[partners[e]] < 0:
                mate_left[i] = partners[e]
                mate_right[partners[e]] = i
                break
    reached = np.zeros(len(mate_left), np.bool_)
    seen = np.zeros(right_count, np.bool_)
    came_from = np.empty(right_count, np.int32)
    queue = np.empty(right_count, np.int32)
    for source in range(len(mate_left)):
        if mate_left[source] >= 0:
            continue
        end, count = _search(source, graph, mate_right, seen, came_from, queue)
        if end < 0:
            reached[source] = True
            for j in queue[:count]:
                reached[mate_right[j]] = True
        else:
            for j in queue[:count]:
                seen[j] = False
        while end >= 0:
            i = came_from[end]
            mate_right[end] = i
            mate_left[i], end = end, mate_left[i]
    return mate_left, mate_right, reached


@compiled
def _search(
    source: int, graph: Graph, mate_right: Ints, seen: NDArray[np.bool_], came_from: Ints, queue: Ints
) -> tuple[int, int]:
    """Breadth-first along alternating paths: the exposed right node found, or -1, and how many of the queue were seen."""
    starts, partners, _ = graph
    i, head, count = source, 0, 0
    while True:
        for e in range(starts[i], starts[i + 1]):
            j = partners[e]
            if not seen[j]:
                seen[j] = True
                came_from[j] = i
                queue[count] = j
                count += 1
                if mate_right[j] < 0:
                    return j, count
        if head == count:
            return -1, count
        i = mate_right[queue[head]]
        head += 1


def _shortest_matching(graph: Graph, mate_right: Ints, reached: NDArray[np.bool_]) -> Ints:
    """Mates of left nodes in a maximum matching of least total cost, in the two halves that any maximum matching has."""
    contested = (mate_right >= 0) & reached[mate_right]  # right nodes that reached left nodes compete for
    starts, partners, costs = graph
    by_right = csr_array((costs, partners, starts), shape=(len(reached), len(mate_right))).tocsc()
    transposed = by_right.indptr.astype(starts.dtype), by_right.indices, by_right.data
    new_left = np.full(len(reached), -1, np.int32)
    new_right = np.full(len(mate_right), -1, np.int32)
    _assign(np.flatnonzero(contested), transposed, reached, new_right, new_left)
    _assign(np.flatnonzero(~reached), graph, ~contested, new_left, new_right)
    return new_left


@compiled
def _assign(rows: Ints, graph: Graph, allowed: NDArray[np.bool_], mate_row: Ints, mate_column: Ints) -> None:
    """Give every row one of the allowed columns at least total cost; it must be possible.

    Each row first tries the columns that cost it least; those left over are inserted one by one along a shortest path.
    Prices keep cost - row_price - column_price at 0 for chosen pairs and at 0 or above for the others.
    """
    starts, partners, costs = graph
    row_price = np.zeros(len(mate_row), np.int64)
    column_price = np.zeros(len(mate_column), np.int64)
    for i in rows:
        row_price[i] = FAR
        for e in range(starts[i], starts[i + 1]):
            if allowed[partners[e]]:
                row_price[i] = min(row_price[i], costs[e])
        for e in range(starts[i], starts[i + 1]):
            j = partners[e]
            if costs[e] == row_price[i] and allowed[j] and mate_column[j] < 0:
                mate_row[i] = j
                mate_column[j] = i
                break
    for i in rows:
        if mate_row[i] < 0:
            _insert(i, graph, allowed, (mate_row, mate_column), (row_price, column_price))


@compiled
def _insert(
    source: int, graph: Graph, allowed: NDArray[np.bool_], mates: tuple[Ints, Ints], prices: tuple[Ints, Ints]
) -> None:
    """Match an exposed row along the shortest path to an exposed column, by Dijkstra's search."""
    starts, partners, costs = graph
    mate_row, mate_column = mates
    row_price, column_price = prices
    columns = len(mate_column)
    distance = np.full(columns, FAR, np.int64)
    came_from = np.empty(columns, np.int32)  # the row before a column
    settled = np.zeros(columns, np.bool_)
    heap = [0 for _ in range(0)]  # the compiler takes the type of an empty list from this
    row, so_far, end, to_end = source, 0, -1, FAR
    while row >= 0:
        for e in range(starts[row], starts[row + 1]):
            j = partners[e]
            through_row = so_far + costs[e] - row_price[row] - column_price[j]
            if allowed[j] and through_row < to_end and through_row < distance[j]:
                distance[j] = through_row
                came_from[j] = row
                if mate_column[j] < 0:
                    end, to_end = j, through_row
                else:
                    heappush(heap, through_row * columns + j)  # one number: ordered by distance, and carries the column
        row = -1
        while row < 0 and len(heap) > 0:
            nearest = heappop(heap) % columns
            so_far = distance[nearest]
            if so_far >= to_end:
                break
            if not settled[nearest]:
                settled[nearest] = True
                row = mate_column[nearest]
    row_price[source] += to_end
    for j in np.flatnonzero(settled):
        row_price[mate_column[j]] += to_end - distance[j]
        column_price[j] -= to_end - distance[j]
    while end >= 0:
        row = came_from[end]
        mate_column[end] = row
        mate_row[row], end = end, mate_row[row]
