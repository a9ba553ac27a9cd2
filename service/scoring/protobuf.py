"""The wire format of protocol buffers: the fields of a message, and a field as bytes.

The serving tree holds no `onnx` package; what it must know of a model it reads from the bytes, by compiled code where
it was built (`csrc/fields.c`). Knows tags and lengths. Does not know any message.
"""

from collections.abc import Collection
from typing import NamedTuple

try:
    from service.scoring import _fields
except ImportError:
    _fields = None  # type: ignore[assignment]

TURN = 4096  # fields that are read before others get to use the interpreter
ALL = -1

VARINT, BYTES = 0, 2


class Malformed(Exception):
    """These bytes are no message."""


class Field(NamedTuple):
    """A field begins with its tag; `start` to `stop` is its content, for a varint the bytes of the number."""

    number: int
    wire: int
    begin: int
    start: int
    stop: int


def fields(data: bytes, start: int, stop: int, wanted: Collection[int] | None = None) -> list[Field]:
    """The fields of the message that lies between two positions: all, or those of the `wanted` numbers, up to 62.

    Raises: Malformed, IndexError where the data end in a number.
    """
    found: list[Field] = []
    if _fields is not None:
        at, bits = start, ALL if wanted is None else sum(1 << number for number in wanted)
        while 0 <= at < stop:
            at = _fields.fields(Field, data, at, stop, bits, TURN, found)
        if at >= 0:
            return found
    return _read(data, start, stop, wanted)


def _read(data: bytes, start: int, stop: int, wanted: Collection[int] | None) -> list[Field]:
    """The same without compiled code."""
    found = []
    at = start
    while at < stop:  # a vocabulary has a hundred thousand: most tags and sizes are one byte, most fields not wanted
        begin = at
        tag, at = (byte, at + 1) if (byte := data[at]) < 0x80 else varint(data, at)
        wire = tag & 7
        if wire == BYTES:
            size, at = (byte, at + 1) if (byte := data[at]) < 0x80 else varint(data, at)
            content, at = at, at + size
        elif wire == VARINT:
            content, (_, at) = at, varint(data, at)
        elif wire in (1, 5):
            content, at = at, at + (8 if wire == 1 else 4)
        else:
            raise Malformed
        if at > stop:
            raise Malformed
        if wanted is None or tag >> 3 in wanted:
            found.append(Field(tag >> 3, wire, begin, content, at))
    return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position after it. Raises: Malformed, IndexError."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise Malformed
    return value, at + 1


def number(value: int) -> bytes:
    """A varint.

    >>> number(300)
    b'\\xac\\x02'
    """
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def head(field: int, size: int) -> bytes:
    """What stands before `size` bytes of content."""
    return number(field << 3 | BYTES) + number(size)


def message(field: int, content: bytes) -> bytes:
    """A field that holds bytes, a string or a message.

    >>> message(1, b"abc")
    b'\\n\\x03abc'
    """
    return head(field, len(content)) + content
