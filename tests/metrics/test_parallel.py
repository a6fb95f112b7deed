import pytest
import torch

from kdam_hf.errors import KdamValueError
from kdam_hf.metrics import DepthErrors, in_processes

METRES = (1.0, 2.0, 3.0, 4.0, 5.0)


def depth_of(metres):
    """Enough work for the threads of torch, if this process has any."""
    metric = DepthErrors()
    metric.update(torch.full((1, 600, 800), metres), torch.ones(1, 600, 800))
    return metric.compute()["rmse"]


def test_results_come_in_order_and_children_of_a_process_with_threads_do_not_hang():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = list(in_processes(depth_of, METRES, 1))
        there = list(in_processes(depth_of, METRES, 2, torch.set_num_threads, (1,)))
    finally:
        torch.set_num_threads(threads)
    assert here == there == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_items_are_taken_as_they_are_needed_and_an_error_comes_through(num_proc):
    items = iter([torch.inf, *range(20)])
    with pytest.raises(KdamValueError, match="NaN or Inf"):
        list(in_processes(depth_of, items, num_proc))
    assert len(list(items)) > 20 - 2 * num_proc
    with pytest.raises(KdamValueError, match="num_proc is 0"):
        list(in_processes(depth_of, [], 0))
