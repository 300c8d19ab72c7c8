"""Shards as Prefect tasks: one after the other, side by side in threads, or on a Ray cluster.

What travels to a shard's task is a picklable piece of work and its items; what comes back is its result. On Ray the
worker's machine needs this package and the environment variables that name keys and passwords; nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import State
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.config.data import ShardsSection
from flows.errors import FlowError, is_ours
from flows.stages.contract import Done, ignore
from judges import JudgeUnavailable

# After the judge's own patience with its servers, which is minutes; what was judged is in the ledger.
RETRY_SECONDS: tuple[float, ...] = (30.0, 120.0, 300.0)


class Job:
    """A shard's work with its items. A plain class: Prefect would walk through the rows of a dataclass or a list."""

    __slots__ = ("items", "work")

    def __init__(self, work: Callable[[Any], Any], items: Any) -> None:
        self.work, self.items = work, items

    def __call__(self) -> Any:
        return self.work(self.items)


def run_shards(
    name: str,
    items: Sequence[Any],
    work: Callable[[Any], Any],
    *,
    how: ShardsSection,
    done: Done = ignore,
) -> list[Any]:
    """Do the work item by item, each as a Prefect task, as the configuration's `launcher.shards` says.

    Raises what a shard raised; shards that were not begun by then are left.
    """
    total = len(items)
    results: list[Any] = [None] * total
    if how.runner == "in_turn":
        for number, item in enumerate(items):
            results[number] = _task(name, number, total)(Job(work, item))
            done(number, results[number])
        return results
    finished: SimpleQueue[tuple[int, PrefectFuture[Any]]] = SimpleQueue()

    def settle() -> None:
        number, future = finished.get()
        results[number] = _result(future, f"{name} {number + 1} of {total}")
        done(number, results[number])

    under_way = 0
    with _runner(how) as runner:
        for number, item in enumerate(items):
            if under_way == how.at_once:
                settle()
                under_way -= 1
            future = runner.submit(_task(name, number, total), {"job": Job(work, item)})
            future.add_done_callback(lambda future, number=number: finished.put((number, future)))
            under_way += 1
        for _ in range(under_way):
            settle()
    return results


def _task(name: str, number: int, total: int) -> Any:
    return task(
        name=name,
        task_run_name=f"{name} {number + 1} of {total}",
        cache_policy=NO_CACHE,
        retries=len(RETRY_SECONDS),
        retry_delay_seconds=list(RETRY_SECONDS),
        retry_condition_fn=_may_come_back,
    )(_shard)


def _may_come_back(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Whether another try can help: the judge was away. Anything else would only fail again."""
    return isinstance(state.result(raise_on_failure=False), JudgeUnavailable)


def _shard(job: Job) -> Any:
    return job()


def _runner(how: ShardsSection) -> AbstractContextManager[TaskRunner[Any]]:
    if how.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=how.at_once)
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise FlowError(
            "launcher.shards.runner: ray needs Ray and prefect-ray: pip install 'charter[ray]'"
        ) from error
    # Ray would print every worker's output into the run's terminal.
    settings: dict[str, Any] = {"log_to_driver": False}
    if how.address == "auto":  # which the task runner takes for a cluster of its own
        settings["address"] = "auto"
    return _OneLine(RayTaskRunner(address=how.address, init_kwargs=settings))


class _OneLine(AbstractContextManager["TaskRunner[Any]"]):
    """A Ray task runner whose failure to connect is one line."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    def __enter__(self) -> TaskRunner[Any]:
        try:
            return self._runner.__enter__()
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:300]
            raise FlowError(
                f"launcher.shards.address: no Ray cluster answers at {self._runner.address}: {reason}"
            ) from error

    def __exit__(self, *exc_info: Any) -> None:
        self._runner.__exit__(*exc_info)


def _result(future: PrefectFuture[Any], shard: str) -> Any:
    try:
        return future.result()
    except Exception as error:
        if is_ours(error):
            raise
        if type(error).__module__.partition(".")[0] == "ray":
            reason = " ".join(str(error).split())[:300]
            raise FlowError(
                f"{shard}: its Ray worker failed: {reason}; what was judged is kept, start again"
            ) from error
        raise
