"""The wire format, against the library's own writer."""

import onnx
import pytest
from onnx import helper

from service.scoring.protobuf import BYTES, Malformed, fields, head, varint


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
