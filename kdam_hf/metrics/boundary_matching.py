"""Match two sets of pixels one to one within a radius: as many pairs as possible and, of those matchings, a shortest one.

Unusual here: this is exact, and fast. A maximum matching cuts the shortest one into two easy halves: first pixels that exposed
first pixels reach by alternating paths compete for second pixels that every maximum matching takes; all other first pixels
are taken in every one (König). So each half has a side that is matched completely, as scipy's solver asks.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_bipartite_matching, min_weight_full_bipartite_matching
from scipy.spatial import KDTree

Ints = NDArray[np.integer]


def match_pixels(first: Ints, second: Ints, width: int, radius: float, shortest: bool) -> Ints:
    """Pairs of a maximum matching between two sets of pixels.

    Args:
        first: flat indices of pixels, int64 (N,), of images that are `width` pixels wide.
        second: likewise, (M,).
        width: of the images.
        radius: how far the two pixels of a pair may be apart, pixels.
        shortest: also make the sum of the distances, in whole hundredths of a pixel, as small as it can be; takes some five
            times as long.

    Returns:
        int64 (P, 2): indices into `first` and into `second`. P does not depend on `shortest`.

    Source:
        The problem is that of Martin, Fowlkes, Malik, PAMI 26(5), 2004, appendix B. Hopcroft and Karp, SIAM Journal on
        Computing 2(4), 1973; Jonker and Volgenant, Computing 38, 1987.
    """
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    if len(first) > len(second):  # the search starts from the smaller side
        return match_pixels(second, first, width, radius, shortest)[:, ::-1]
    places = (np.stack(np.divmod(pixels, width), axis=1) for pixels in (first, second))
    trees = [KDTree(each, balanced_tree=False, compact_nodes=False) for each in places]
    near = trees[0].sparse_distance_matrix(trees[1], radius, output_type="coo_matrix")
    # the solver takes a cost of zero for no pair; one more for each pair changes nothing
    graph = csr_array((np.rint(100 * near.data) + 1, (near.row, near.col)), shape=near.shape)
    mates = maximum_bipartite_matching(graph, perm_type="column")
    matched, exposed = np.flatnonzero(mates >= 0), np.flatnonzero(mates < 0)
    if not shortest or not graph.nnz:
        return np.stack([matched, mates[matched]], axis=1)
    # a graph of steps: rows, then columns, then where all paths begin, at exposed rows
    count, source, along = len(mates), sum(graph.shape), graph.tocoo()
    starts = np.concatenate([along.row, count + mates[matched], np.full(len(exposed), source)])
    ends = np.concatenate([count + along.col, matched, exposed])
    steps = csr_array((np.ones(len(starts), np.int8), (starts, ends)), shape=(source + 1, source + 1))
    reached = np.zeros(source + 1, np.bool_)
    reached[breadth_first_order(steps, source, return_predecessors=False)] = True
    pairs = []
    for side in (reached, ~reached):
        rows, columns = np.flatnonzero(side[:count]), np.flatnonzero(side[count:source])
        half = graph[rows][:, columns]
        if half.nnz:
            row, column = min_weight_full_bipartite_matching(half)
            pairs.append(np.stack([rows[row], columns[column]], axis=1))
    return np.concatenate(pairs)
