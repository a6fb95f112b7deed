"""Match two sets of pixels one to one within a radius: as many pairs as possible and, of those matchings, a shortest one.

Unusual here: this is exact, and fast because the maximum matching cuts the shortest one into two easy halves. Left
pixels that an exposed left pixel reaches by alternating paths compete for right pixels that are all taken in every
maximum matching; all other left pixels are taken in every one (König). So each half has a side that is matched
completely, and a search for a partner always ends, mostly within a few steps.

Legend: left and right are the smaller and the larger set; a graph is (starts, partners, costs), where the partners of
node i are partners[starts[i]:starts[i + 1]]; a mate of -1 means exposed.
"""

from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdam_hf.metrics.compiled import compiled

Ints = NDArray[np.integer]
Graph = tuple[Ints, Ints, Ints]
FAR = np.int64(1) << 62


class Window(NamedTuple):
    """The pixels within a radius of a pixel, in an image that has been framed so that all of them exist."""

    shape: tuple[int, int]
    reach: int  # width of the frame, pixels
    steps: Ints  # (K,) to the flat index of each neighbour, near first
    costs: Ints  # (K,) distances in hundredths of a pixel, rounded as the reference protocol rounds them


def window(shape: tuple[int, int], radius: float) -> Window:
    """All pixels at most `radius` pixels away, for images of (H, W)."""
    reach = min(int(radius), max(shape))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squared = rows**2 + columns**2
    near_first = np.argsort(squared, kind="stable")
    near_first = near_first[squared[near_first] <= radius * radius]
    steps = rows * (shape[1] + 2 * reach) + columns
    costs = np.rint(100 * np.sqrt(squared)).astype(np.int64)
    return Window(shape, reach, steps[near_first], costs[near_first])


def match_pixels(first: Ints, second: Ints, within: Window, shortest: bool) -> Ints:
    """Pairs of a maximum matching between two sets of pixels.

    Args:
        first: flat indices of pixels, ascending, int64 (N,).
        second: likewise, (M,).
        within: how far the two pixels of a pair may be apart.
        shortest: also make the sum of the distances (in hundredths of a pixel, rounded) as small as it can be; it
            costs more time, and without it pairs are merely short rather than long.

    Returns:
        int64 (P, 2): indices into `first` and into `second`. P does not depend on the order of the two, nor on `shortest`.

    Source:
        The assignment problem is that of Martin, Fowlkes, Malik, PAMI 26(5), 2004, appendix B. Hopcroft and Karp, SIAM J.
        Comput. 2(4), 1973. Shortest augmenting paths: Jonker and Volgenant, Computing 38, 1987.
    """
    swapped = len(first) > len(second)
    left, right = (second, first) if swapped else (first, second)
    frame_height, frame_width = (side + 2 * within.reach for side in within.shape)
    framed = [
        (side // within.shape[1] + within.reach) * frame_width + side % within.shape[1] + within.reach
        for side in (left, right)
    ]
    graph = _radius_graph(*framed, frame_height * frame_width, within.steps, within.costs)
    mate_left, mate_right, reached = _maximum_matching(graph, len(right))
    if shortest:
        mate_left = _shortest_matching(graph, mate_right, reached)
    matched = np.flatnonzero(mate_left >= 0)
    pairs = np.stack([matched, mate_left[matched]], axis=1)
    return pairs[:, ::-1] if swapped else pairs


@compiled
def _radius_graph(left: Ints, right: Ints, size: int, steps: Ints, costs: Ints) -> Graph:
    """Partners of each left pixel, near first; both sets are flat indices into a framed image of `size` pixels."""
    node_at = np.full(size, -1, np.int32)
    for j in range(len(right)):
        node_at[right[j]] = j
    starts = np.zeros(len(left) + 1, np.int64)
    partners = np.empty(8 * len(left) + len(steps), np.int32)
    pair_costs = np.empty(len(partners), np.int32)
    count = 0
    for i in range(len(left)):
        if count + len(steps) > len(partners):
            partners = np.concatenate((partners, np.empty_like(partners)))
            pair_costs = np.concatenate((pair_costs, np.empty_like(pair_costs)))
        for k in range(len(steps)):
            j = node_at[left[i] + steps[k]]
            if j >= 0:
                partners[count] = j
                pair_costs[count] = costs[k]
                count += 1
        starts[i + 1] = count
    return starts, partners[:count], pair_costs[:count]


@compiled
def _maximum_matching(graph: Graph, right_count: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Hopcroft and Karp; returns the mates of both sides and which left nodes exposed left nodes reach."""
    starts, partners, _ = graph
    left_count = len(starts) - 1
    mate_left = np.full(left_count, -1, np.int32)
    mate_right = np.full(right_count, -1, np.int32)
    for i in range(left_count):
        for e in range(starts[i], starts[i + 1]):
            if mate_right[partners[e]] < 0:
                mate_left[i] = partners[e]
                mate_right[partners[e]] = i
                break
    layer = np.empty(left_count, np.int32)
    while _find_layers(graph, mate_left, mate_right, layer):
        _augment(graph, mate_left, mate_right, layer)
    return mate_left, mate_right, layer >= 0


@compiled
def _find_layers(graph: Graph, mate_left: Ints, mate_right: Ints, layer: Ints) -> bool:
    """Steps of alternating paths from exposed left nodes to each left node, -1 where there is none.

    Returns whether they come to an exposed right node; no layer beyond the first such is filled in.
    """
    starts, partners, _ = graph
    queue = np.empty(len(layer), np.int32)
    tail = 0
    for i in range(len(layer)):
        layer[i] = -1
        if mate_left[i] < 0:
            layer[i] = 0
            queue[tail] = i
            tail += 1
    head = 0
    last = len(layer)
    while head < tail and layer[queue[head]] <= last:
        i = queue[head]
        head += 1
        for e in range(starts[i], starts[i + 1]):
            owner = mate_right[partners[e]]
            if owner < 0:
                last = layer[i]
            elif layer[owner] < 0:
                layer[owner] = layer[i] + 1
                queue[tail] = owner
                tail += 1
    return last < len(layer)


@compiled
def _augment(graph: Graph, mate_left: Ints, mate_right: Ints, layer: Ints) -> None:
    """Add one pair along each of a maximal set of shortest alternating paths that share no node."""
    starts, partners, _ = graph
    following = starts.copy()  # the next pair of each left node to try
    path = np.empty(len(layer), np.int32)
    for source in range(len(layer)):
        if mate_left[source] >= 0:
            continue
        path[0] = source
        depth = 0
        while depth >= 0:
            i = path[depth]
            if following[i] == starts[i + 1]:
                depth -= 1
                continue
            owner = mate_right[partners[following[i]]]
            following[i] += 1
            if owner < 0:
                for step in range(depth + 1):
                    j = partners[following[path[step]] - 1]
                    mate_left[path[step]] = j
                    mate_right[j] = path[step]
                break
            if layer[owner] == layer[i] + 1:
                depth += 1
                path[depth] = owner


@compiled
def _shortest_matching(graph: Graph, mate_right: Ints, reached: NDArray[np.bool_]) -> Ints:
    """Mates of left nodes in a maximum matching of least total cost, in the two halves that any maximum matching has."""
    wanted = np.zeros(len(mate_right), np.bool_)  # right nodes that reached left nodes compete for
    for j in range(len(mate_right)):
        wanted[j] = mate_right[j] >= 0 and reached[mate_right[j]]
    new_left = np.full(len(reached), -1, np.int32)
    new_right = np.full(len(mate_right), -1, np.int32)
    _assign(np.flatnonzero(wanted), _transposed(graph, len(mate_right)), reached, new_right, new_left)
    _assign(np.flatnonzero(~reached), graph, ~wanted, new_left, new_right)
    return new_left


@compiled
def _transposed(graph: Graph, right_count: int) -> Graph:
    """The same pairs, listed by right node."""
    starts, partners, costs = graph
    new_starts = np.zeros(right_count + 1, np.int64)
    for j in partners:
        new_starts[j + 1] += 1
    for j in range(right_count):
        new_starts[j + 1] += new_starts[j]
    position = new_starts[:-1].copy()
    new_partners = np.empty_like(partners)
    new_costs = np.empty_like(costs)
    for i in range(len(starts) - 1):
        for e in range(starts[i], starts[i + 1]):
            new_partners[position[partners[e]]] = i
            new_costs[position[partners[e]]] = costs[e]
            position[partners[e]] += 1
    return new_starts, new_partners, new_costs


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
    scratch = (
        np.full(len(mate_column), FAR, np.int64),
        np.empty(len(mate_column), np.int32),
        np.zeros(len(mate_column), np.bool_),
    )
    for i in rows:
        if mate_row[i] < 0:
            _insert(i, graph, allowed, (mate_row, mate_column), (row_price, column_price), scratch)


@compiled
def _insert(
    source: int,
    graph: Graph,
    allowed: NDArray[np.bool_],
    mates: tuple[Ints, Ints],
    prices: tuple[Ints, Ints],
    scratch: tuple[Ints, Ints, NDArray[np.bool_]],
) -> None:
    """Match an exposed row along the shortest path to an exposed column, by Dijkstra's search.

    `scratch` holds, per column, the distance (FAR: not seen), the row before it and whether it is settled; it is left
    as it was found.
    """
    starts, partners, costs = graph
    mate_row, mate_column = mates
    row_price, column_price = prices
    distance, came_from, settled = scratch
    columns = len(mate_column)
    seen = [0 for _ in range(0)]  # the compiler takes the type of an empty list from this
    heap = [0 for _ in range(0)]
    row, so_far, end = source, 0, -1
    while end < 0:
        for e in range(starts[row], starts[row + 1]):
            j = partners[e]
            through_row = so_far + costs[e] - row_price[row] - column_price[j]
            if allowed[j] and through_row < distance[j]:
                if distance[j] == FAR:
                    seen.append(j)
                distance[j] = through_row
                came_from[j] = row
                heappush(heap, through_row * columns + j)  # one number: ordered by distance, and carries the column
        nearest = heappop(heap) % columns
        while settled[nearest]:
            nearest = heappop(heap) % columns
        so_far = distance[nearest]
        settled[nearest] = True
        row = mate_column[nearest]
        if row < 0:
            end = nearest
    row_price[source] += so_far
    for j in seen:
        if settled[j] and j != end:
            row_price[mate_column[j]] += so_far - distance[j]
            column_price[j] -= so_far - distance[j]
        distance[j] = FAR
        settled[j] = False
    while end >= 0:
        row = came_from[end]
        mate_column[end] = row
        mate_row[row], end = end, mate_row[row]
