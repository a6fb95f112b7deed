import torch

from kdam_hf.metrics import DepthErrors, in_processes


def depth_of(metres):
    """Enough work for the threads of torch, if this process has any."""
    metric = DepthErrors()
    metric.update(torch.full((1, 600, 800), metres), torch.ones(1, 600, 800))
    return metric.compute()["rmse"]


def test_results_come_in_order_and_children_of_a_process_with_threads_do_not_hang():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = [depth_of(metres) for metres in (1.0, 2.0, 3.0, 4.0, 5.0)]
        there = list(in_processes(depth_of, [1.0, 2.0, 3.0, 4.0, 5.0], 2, torch.set_num_threads, (1,)))
    finally:
        torch.set_num_threads(threads)
    assert here == there == [0, 1, 2, 3, 4]
