"""The head of a request that may come again: the same bytes, but for the length of the body.

Knows HTTP/1.1 heads that were accepted before. Does not parse any, nor know what a header means.
"""

import re
from typing import NamedTuple, Self

LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,7})\r\n", re.IGNORECASE)
END = b"\r\n\r\n"


class Head(NamedTuple):
    """What stands before the length of the body, and what behind it.

    >>> head = Head.of(b"POST / HTTP/1.1\\r\\nContent-Length: 2\\r\\nHost: x\\r\\n\\r\\n")
    >>> data = b"POST / HTTP/1.1\\r\\nContent-Length: 10\\r\\nHost: x\\r\\n\\r\\n0123456789"
    >>> data[head.body_in(data):]
    b'0123456789'
    """

    before: bytes
    behind: bytes

    @classmethod
    def of(cls, head: bytes) -> Self | None:
        """Of a head that an HTTP parser has accepted; None where it says no length, or in an unusual way."""
        found = LENGTH.search(head)
        return found and cls(head[: found.start(1)], head[found.end(1) :])

    def body_in(self, data: bytes) -> int:
        """Where the body begins, if this is such a head and all of its body, and nothing else; 0 if not.

        A body of no bytes is none.
        """
        at = len(self.before)
        end = data.find(b"\r", at, at + 8)
        if end < 0 or not data.startswith(self.before) or not data.startswith(self.behind, end):
            return 0
        digits, begin = data[at:end], end + len(self.behind)
        return begin if digits.isdigit() and 0 < int(digits) == len(data) - begin else 0
