"""Messages between processes."""

import os

import pytest

from service.api.swap.line import line


def test_messages_arrive_in_order_and_with_their_files() -> None:
    one, other = line()
    assert other.receive() is None
    reading, writing = os.pipe()
    one.send({"say": "first"}, writing)
    one.send({"say": "second"})
    os.close(writing)
    message, file = other.receive() or ({}, None)
    assert message == {"say": "first"} and file is not None
    os.write(file, b"through it")
    assert os.read(reading, 20) == b"through it", "a descriptor of its own"
    assert other.receive() == ({"say": "second"}, None)
    for descriptor in (reading, file):
        os.close(descriptor)
    one.close()
    assert other.receive() is None, "hung up"
    with pytest.raises(OSError):
        other.send({})
    other.close()


def test_whoever_does_not_listen_is_told_nothing_and_nobody_waits_for_him() -> None:
    one, other = line()
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            one.send({"say": "x" * 100})
    one.close()
    other.close()
