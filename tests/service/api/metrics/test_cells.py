"""Cells that forked processes write and read."""

import os

import numpy as np

from service.api.metrics.cells import Block, Counter, Histogram


def test_what_forked_workers_count_adds_up_and_goes_on_in_the_place_of_one_that_is_gone() -> None:
    block = Block(workers=2, cells=8)
    for worker in (0, 1, 1):  # the second of number 1 takes the place of the first
        pid = os.fork()
        if pid == 0:
            Counter(block.row(worker), 3).add(2)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert block.values(3, 4).tolist() == [[2.0], [4.0]]
    assert not block.values(0, 3).any() and not block.values(4, 8).any()


def test_a_histogram_counts_up_to_and_with_each_edge() -> None:
    block = Block(workers=1, cells=6)
    values = [0.5, 1.0, 1.5, 2.0, 4.0, 9.0]
    one, many = Histogram(block.row(0), 0, (1.0, 2.0, 4.0)), Block(workers=1, cells=6)
    for value in values:
        one.observe(value)
    assert block.values(0, 6).tolist() == [[2.0, 2.0, 1.0, 1.0, 18.0, 0.0]]
    Histogram(many.row(0), 0, (1.0, 2.0, 4.0)).observe_all(np.array(values, np.float32))
    assert np.array_equal(many.values(0, 6), block.values(0, 6))
