"""The table of messages against the generated ones that Triton's client carries."""

from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from service.api.v2.messages import DATA_TYPES, MESSAGES, PACKAGE, SERVICE, message_classes

CLASSES = message_classes()
GENERATED = service_pb2.DESCRIPTOR.pool

IN_PART = ("ModelConfig", "ModelInput", "ModelOutput")


def facts(field: Any) -> tuple[Any, ...]:
    message, oneof = field.message_type, field.containing_oneof
    entry = None
    if message is not None and message.GetOptions().map_entry:
        entry = {name: facts(inner) for name, inner in message.fields_by_name.items()}
    return (
        field.number,
        field.type,
        field.is_repeated,
        field.is_packed,
        message.full_name if message is not None else None,
        oneof.name if oneof is not None else None,
        entry,
    )


@pytest.mark.parametrize("path", MESSAGES)
def test_every_field_is_that_of_the_public_protocol(path: str) -> None:
    ours = CLASSES[path].DESCRIPTOR
    theirs = GENERATED.FindMessageTypeByName(f"{PACKAGE}.{path}")
    assert {name: facts(field) for name, field in ours.fields_by_name.items()} == {
        name: facts(field) for name, field in theirs.fields_by_name.items() if name in ours.fields_by_name
    }
    if path not in IN_PART:
        assert set(ours.fields_by_name) == set(theirs.fields_by_name)


def test_the_data_types_are_those_of_the_public_protocol() -> None:
    theirs = {f"{name} = {number}" for name, number in model_config_pb2.DataType.items()}
    assert set(DATA_TYPES) <= theirs


def test_the_service_has_the_public_name() -> None:
    assert SERVICE in {service.full_name for service in service_pb2.DESCRIPTOR.services_by_name.values()}


def test_bytes_of_one_are_read_by_the_other() -> None:
    ours = CLASSES["ModelInferRequest"](model_name="toy", id="7", raw_input_contents=[b"x"])
    ours.parameters["priority"].uint64_param = 3
    ours.inputs.add(name="price", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1.5, 2.5])
    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert (theirs.model_name, theirs.id, theirs.raw_input_contents[0]) == ("toy", "7", b"x")
    assert theirs.parameters["priority"].uint64_param == 3
    assert list(theirs.inputs[0].contents.fp32_contents) == [1.5, 2.5]
    assert CLASSES["ModelInferRequest"].FromString(theirs.SerializeToString()) == ours
