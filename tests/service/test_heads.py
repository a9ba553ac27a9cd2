"""A head is known again by its bytes, whatever lengths it gives, and only with all of its body."""

import pytest

from service.api.heads import Head

BEFORE, BEHIND = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: ", b"\r\nAccept: */*\r\n\r\n"
HEAD = Head.of(BEFORE + b"12" + BEHIND)


@pytest.mark.parametrize("length", [1, 9, 12, 1234567])
def test_a_body_of_any_length_is_found(length: int) -> None:
    assert HEAD is not None
    data = BEFORE + b"%d" % length + BEHIND + b"b" * length
    body = HEAD.body_in(data)
    assert body is not None and (data[body.begin :], body.size) == (b"b" * length, length)
    assert HEAD.body_in(data + b"P") is HEAD.body_in(data[:-1]) is None, "more, or less"


def test_other_lengths_may_differ_too_and_are_told() -> None:
    named = BEFORE + b"%d\r\nInference-Header-Content-Length: %d" + BEHIND
    head = Head.of(named % (12, 3))
    assert head is not None
    for data in (named % (4, 2) + b"body", named % (4, 1234567) + b"body"):
        body = head.body_in(data)
        assert body is not None and data[body.begin :] == b"body"
        assert body.lengths == {
            b"content-length": b"4",
            b"inference-header-content-length": data.partition(b"Inference-Header-Content-Length: ")[2].split(b"\r")[0],
        }
    for other in (named.replace(b"Inference", b"inference") % (4, 2), BEFORE + b"4" + BEHIND, named % (4, 12345678)):
        assert head.body_in(other + b"body") is None
    assert head.body_in((named % (4, 2)).replace(b": 2", b": x") + b"body") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BEFORE,
        BEFORE + b"1",
        BEFORE + b"0" + BEHIND,
        BEFORE + b"" + BEHIND + b"b",
        BEFORE + b"+1" + BEHIND + b"b",
        BEFORE + b" 1" + BEHIND + b"b",
        BEFORE + b"1 " + BEHIND + b"b",
        BEFORE + b"1_0" + BEHIND + b"b" * 10,
        BEFORE + "\u0661".encode() + BEHIND + b"b",
        BEFORE + b"10000000" + BEHIND + b"b" * 10_000_000,
        BEFORE.replace(b"/p", b"/q") + b"1" + BEHIND + b"b",
        BEFORE + b"1" + BEHIND.replace(b"*/*", b"a/b") + b"b",
        BEFORE + b"1\r\nTransfer-Encoding: chunked" + BEHIND + b"b",
        b"\r\n" + BEFORE + b"1" + BEHIND + b"b",
    ],
)
def test_what_is_not_that_head_with_one_body_is_not_known(data: bytes) -> None:
    assert HEAD is not None
    assert HEAD.body_in(data) is None


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 12 \r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 12345678\r\n\r\n",
        b"POST /?content-length: 1 HTTP/1.1\r\nx: content-length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\ninference-header-content-length: 1\r\n\r\n",
    ],
)
def test_a_head_without_an_ordinary_length_is_not_kept(head: bytes) -> None:
    assert Head.of(head) is None
