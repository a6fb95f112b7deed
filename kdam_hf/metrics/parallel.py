"""Work on a stream in several processes: results in order, few items under way, and an error where a process dies."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from kdam_hf.errors import DataWorkerError, KdamValueError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    num_proc: int,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
    context: Any = None,
) -> Iterator[Result]:
    """`work(item)` for every item, in the order of the items.

    Args:
        work: a function of a module, or a `partial` of one.
        items: at most two per process are held at a time, so a generator that reads files needs little memory.
        num_proc: processes; where Python does not fork by default, a script must guard its entry with
            `if __name__ == "__main__"`. 1 works in this process and starts none.
        initializer: called once in each of them, with `initargs`.
        context: of `multiprocessing`; the default one for None.

    Raises:
        KdamValueError: num_proc < 1.
        DataWorkerError: a process died.
    """
    if num_proc < 1:
        raise KdamValueError(f"num_proc is {num_proc}: expected a number of processes, at least 1")
    if num_proc == 1:
        yield from map(work, items)
        return
    begun = 0
    try:
        with ProcessPoolExecutor(num_proc, context, initializer, initargs) as pool:
            under_way: deque[Future[Result]] = deque()
            for item in items:
                begun += 1
                under_way.append(pool.submit(work, item))
                if len(under_way) == 2 * num_proc:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
    except BrokenProcessPool as error:
        raise DataWorkerError(
            f"one of {num_proc} processes died after {begun} items. If it printed nothing above, it was killed, mostly for "
            "lack of memory: use fewer processes."
        ) from error
