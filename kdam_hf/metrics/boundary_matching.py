"""Match two sets of pixels one to one within a radius: as many pairs as possible and, of those matchings, a shortest one.

Unusual here: this is exact, and fast. The number of pairs is a largest flow of ones; the shortest matching is an assignment
in which every first pixel may also stay alone, at a cost above that of all pairs together.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow, min_weight_full_bipartite_matching
from scipy.spatial import KDTree

Ints = NDArray[np.integer]


def match_pixels(first: Ints, second: Ints, width: int, radius: float, shortest: bool) -> Ints:
    """Pairs of a maximum matching between two sets of pixels.

    Args:
        first: flat indices of pixels, int64 (N,), of images that are `width` pixels wide.
        second: likewise, (M,).
        width: of the images.
        radius: how far the two pixels of a pair may be apart, pixels.
        shortest: also make the sum of the distances, in whole hundredths of a pixel, as small as it can be; takes some six
            times as long.

    Returns:
        int64 (P, 2): indices into `first` and into `second`. P does not depend on `shortest`.

    Source:
        The problem is that of Martin, Fowlkes, Malik, PAMI 26(5), 2004, appendix B. Dinic's flow has the steps of Hopcroft and
        Karp, SIAM Journal on Computing 2(4), 1973; the assignment is that of Jonker and Volgenant, Computing 38, 1987.
    """
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    if len(first) > len(second):  # the search starts from the smaller side
        return match_pixels(second, first, width, radius, shortest)[:, ::-1]
    places = (np.stack(np.divmod(pixels, width), axis=1) for pixels in (first, second))
    trees = [KDTree(each, balanced_tree=False, compact_nodes=False) for each in places]
    near = trees[0].sparse_distance_matrix(trees[1], radius, output_type="coo_matrix")
    count, others = near.shape
    rows, columns = np.arange(count, dtype=np.int32), count + np.arange(others, dtype=np.int32)
    if shortest:  # the solver takes a cost of zero for no pair; one more for each pair changes nothing
        cost, alone = np.rint(100 * near.data) + 1, count * math.ceil(100 * radius + 2)
        ends = np.concatenate([near.col, others + rows])
        graph = (np.concatenate([cost, np.full(count, alone)]), (np.concatenate([near.row, rows]), ends))
        row, column = min_weight_full_bipartite_matching(csr_array(graph, shape=(count, others + count)))
        return np.stack([row, column], axis=1)[column < others]
    source, sink = count + others, count + others + 1  # after the first pixels and the second ones
    starts = np.concatenate([np.full(count, source, np.int32), near.row, columns])
    ends = np.concatenate([rows, count + near.col, np.full(others, sink, np.int32)])
    graph = csr_array((np.ones(len(starts), np.int32), (starts, ends)), shape=(sink + 1, sink + 1))
    flow = maximum_flow(graph, source, sink).flow[:count].tocoo()
    return np.stack([flow.row, flow.col - count], axis=1)[flow.data > 0].astype(np.int64)
