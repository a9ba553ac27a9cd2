"""The head of a request that may come again: the same bytes, but for the lengths that it gives.

Knows HTTP/1.1 heads that were accepted before. Does not parse any, nor know what a header means, other than the length
of the body.
"""

import re
from collections.abc import Mapping
from operator import add
from typing import NamedTuple, Self

CONTENT_LENGTH = b"content-length"
LENGTHS = re.compile(rb"(\r\n((?:[a-z-]+-)?content-length):[ \t]*)[0-9]{1,7}(?=\r\n)", re.IGNORECASE)
END = b"\r\n\r\n"


class Body(NamedTuple):
    """Where a body begins, how many bytes it has, and the lengths in the head by name."""

    begin: int
    size: int
    lengths: Mapping[bytes, bytes]


class Head(NamedTuple):
    """The names of the lengths, what stands before each of them, and what behind the last.

    >>> head = Head.of(b"POST / HTTP/1.1\\r\\nContent-Length: 2\\r\\nHost: x\\r\\n\\r\\n")
    >>> data = b"POST / HTTP/1.1\\r\\nContent-Length: 10\\r\\nHost: x\\r\\n\\r\\n0123456789"
    >>> data[head.body_in(data).begin:]
    b'0123456789'
    """

    names: tuple[bytes, ...]
    before: tuple[bytes, ...]
    behind: bytes

    @classmethod
    def of(cls, head: bytes) -> Self | None:
        """Of a head that an HTTP parser has accepted; None where it says no length, or in an unusual way."""
        *found, behind = LENGTHS.split(head)
        names = tuple(map(bytes.lower, found[2::3]))
        if CONTENT_LENGTH not in names or len(set(names)) < len(names):
            return None
        return cls(names, tuple(map(add, found[0::3], found[1::3])), behind)

    def body_in(self, data: bytes) -> Body | None:
        """The body, if this is such a head and all of its body, and nothing else. A body of no bytes is none."""
        at, lengths = 0, dict[bytes, bytes]()
        for name, before in zip(self.names, self.before, strict=True):
            if not data.startswith(before, at):
                return None
            at += len(before)
            end = data.find(b"\r", at, at + 8)
            lengths[name] = digits = data[at : max(at, end)]
            if not digits.isdigit():
                return None
            at = end
        begin, size = at + len(self.behind), int(lengths[CONTENT_LENGTH])
        whole = data.startswith(self.behind, at) and 0 < size == len(data) - begin
        return Body(begin, size, lengths) if whole else None
