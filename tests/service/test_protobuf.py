"""The wire format, against the library's own writer."""

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from service.scoring import _fields
from service.scoring.protobuf import BYTES, TURN, Field, Malformed, _read, fields, head, number, varint


def test_every_field_is_found_with_its_content() -> None:
    tensor = helper.make_tensor("t" * 300, onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    content = tensor.SerializeToString()
    found = list(fields(content, 0, len(content)))
    assert [found[0].begin, *(field.stop for field in found)] == [*(field.begin for field in found), len(content)]
    (name,) = (field for field in found if field.number == 8)
    assert content[name.start : name.stop].decode() == "t" * 300 and name.wire == BYTES
    assert content[name.begin : name.start] == head(8, 300)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**64 - 1])
def test_a_number_is_read_as_it_was_written(value: int) -> None:
    signed = value - 2**64 if value >= 2**63 else value
    content = onnx.AttributeProto(i=signed).SerializeToString()
    (field,) = fields(content, 0, len(content))
    assert varint(content, field.start) == (value, len(content))


@pytest.mark.parametrize("content", [b"\x0a\x05abc", b"\x0b", b"\x08" + b"\xff" * 11, b"\x09\x00"])
def test_bytes_that_are_no_message_are_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        list(fields(content, 0, len(content)))


def outcome(read: Callable[..., list[Field]], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except (Malformed, IndexError) as error:
        return type(error)


@settings(max_examples=1000)
@given(
    parts=st.lists(st.tuples(st.integers(1, 70), st.sampled_from([0, 1, 2, 2, 3, 5]), st.binary(max_size=9))),
    damage=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=2),
    span=st.tuples(st.integers(-2, 200), st.integers(-2, 200)) | st.none(),
    wanted=st.none() | st.frozensets(st.integers(1, 62)),
)
def test_compiled_code_finds_what_python_finds(
    parts: list[tuple[int, int, bytes]],
    damage: list[tuple[int, int]],
    span: tuple[int, int] | None,
    wanted: frozenset[int] | None,
) -> None:
    content = bytearray()
    for number_, wire, data in parts:
        content += number(number_ << 3 | wire)
        content += number(len(data)) + data if wire == BYTES else data + b"\0" * (8 - len(data) % 4)
    for at, value in damage:
        if content:
            content[at % len(content)] = value
    start, stop = span or (0, len(content))
    if start >= 0 and stop <= len(content):
        assert outcome(fields, bytes(content), start, stop, wanted) == outcome(
            _read, bytes(content), start, stop, wanted
        )


@pytest.mark.parametrize("value", [2, 2**56 - 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_numbers_of_any_length_are_passed_over_and_sizes_are_believed_only_up_to_the_end(value: int) -> None:
    content = b"\x08" + number(value) + b"\x12\x01x"
    assert [field.stop for field in fields(content, 0, len(content))] == [len(content) - 3, len(content)]
    sized = b"\x12" + number(value) + b"x"
    assert outcome(fields, sized, 0, len(sized)) is Malformed
    assert outcome(_read, sized, 0, len(sized), None) is Malformed


def test_a_long_message_is_read_in_turns() -> None:
    content = b"\x12\x01x" * (2 * TURN + 5)
    found = fields(content, 0, len(content))
    assert len(found) == 2 * TURN + 5 and found[-1] == Field(2, BYTES, len(content) - 3, len(content) - 1, len(content))
    assert isinstance(found[0], Field) and found == _read(content, 0, len(content), None)


def test_compiled_code_is_told_what_it_has_to_know() -> None:
    arguments: Any
    for arguments in ((int, b"", 0, 0, -1, 1, []), (Field, "", 0, 0, -1, 1, []), (Field, b"", 0, 0, 2**63, 1, [])):
        with pytest.raises((TypeError, OverflowError)):
            _fields.fields(*arguments)
    assert _fields.fields(Field, b"\x08\x01", 0, 3, -1, 9, []) == -1
    assert _fields.fields(Field, b"\x08\x01", -1, 2, -1, 9, []) == -1
