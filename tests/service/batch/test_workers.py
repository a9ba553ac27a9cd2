"""Processes that work on tasks."""

import os
import signal
from typing import Any

import pytest

from contract.errors import DataInvalid, WorkerLost
from service.batch.workers import Report, Work, Workers


def squares(given: int) -> Work:
    def work(task: int, report: Report) -> tuple[int, int]:
        report(task)
        if task == given:
            raise DataInvalid("this one is wrong", place=str(task))
        return task * task, os.getpid()

    return work


def killed(_: Any) -> Work:
    def work(task: int, report: Report) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return work


@pytest.mark.parametrize(("count", "processes"), [(1, 1), (3, 3)])
def test_each_task_is_done_once_and_told_of(count: int, processes: int) -> None:
    told: list[int] = []
    with Workers(count, squares) as crew:
        done = list(crew.run(-1, range(30), told.append))
    assert sorted(square for square, _ in done) == [n * n for n in range(30)]
    assert sorted(told) == list(range(30))
    pids = {pid for _, pid in done}
    assert len(pids) <= processes and (os.getpid() in pids) == (count == 1)


@pytest.mark.parametrize("count", [1, 2])
def test_what_goes_wrong_in_a_worker_is_raised_here(count: int) -> None:
    with Workers(count, squares) as crew, pytest.raises(DataInvalid) as caught:
        list(crew.run(3, range(10), lambda _: None))
    assert (caught.value.fact, caught.value.place) == ("this one is wrong", "3")


def test_a_worker_that_is_killed_is_missed() -> None:
    with Workers(2, killed) as crew, pytest.raises(WorkerLost, match="SIGKILL"):
        list(crew.run(None, range(4), lambda _: None))


def test_left_as_a_block_no_process_stays() -> None:
    with Workers(2, squares) as crew:
        processes = [process for process, _ in crew._crew]
        assert all(process.is_alive() for process in processes)
    assert not any(process.is_alive() for process in processes)
