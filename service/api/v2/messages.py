"""The protobuf messages of the protocol, made from a table in place of generated code.

Knows names, types and numbers as the protocol's public grpc_service.proto and model_config.proto have them. Does not
know what they mean. Of ModelConfig it holds the fields that are answered; a client reads the others as not set.
"""

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE, SERVICE = "inference", "inference.GRPCInferenceService"
PARAMETERS = "map InferParameter parameters = {}"
METADATA_REQUEST = ("string name = 1", "string version = 2")

# message -> its fields, as in a .proto file; `oneof` stands before fields of which a message has one
MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live = 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready = 1",),
    "ModelReadyRequest": METADATA_REQUEST,
    "ModelReadyResponse": ("bool ready = 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name = 1", "string version = 2", "repeated string extensions = 3"),
    "ModelMetadataRequest": METADATA_REQUEST,
    "ModelMetadataResponse": (
        "string name = 1",
        "repeated string versions = 2",
        "string platform = 3",
        "repeated ModelMetadataResponse.TensorMetadata inputs = 4",
        "repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    ),
    "ModelMetadataResponse.TensorMetadata": ("string name = 1", "string datatype = 2", "repeated int64 shape = 3"),
    "InferParameter": (
        "oneof bool bool_param = 1",
        "oneof int64 int64_param = 2",
        "oneof string string_param = 3",
        "oneof double double_param = 4",
        "oneof uint64 uint64_param = 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1",
        "repeated int32 int_contents = 2",
        "repeated int64 int64_contents = 3",
        "repeated uint32 uint_contents = 4",
        "repeated uint64 uint64_contents = 5",
        "repeated float fp32_contents = 6",
        "repeated double fp64_contents = 7",
        "repeated bytes bytes_contents = 8",
    ),
    "ModelInferRequest": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        PARAMETERS.format(4),
        "repeated ModelInferRequest.InferInputTensor inputs = 5",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6",
        "repeated bytes raw_input_contents = 7",
    ),
    "ModelInferRequest.InferInputTensor": (
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        PARAMETERS.format(4),
        "InferTensorContents contents = 5",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": ("string name = 1", PARAMETERS.format(2)),
    "ModelInferResponse": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        PARAMETERS.format(4),
        "repeated ModelInferResponse.InferOutputTensor outputs = 5",
        "repeated bytes raw_output_contents = 6",
    ),
    "ModelInferResponse.InferOutputTensor": (
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        PARAMETERS.format(4),
        "InferTensorContents contents = 5",
    ),
    "ModelConfigRequest": METADATA_REQUEST,
    "ModelConfigResponse": ("ModelConfig config = 1",),
    "ModelConfig": (
        "string name = 1",
        "string platform = 2",
        "int32 max_batch_size = 4",
        "repeated ModelInput input = 5",
        "repeated ModelOutput output = 6",
        "string backend = 17",
    ),
    "ModelInput": ("string name = 1", "DataType data_type = 2", "repeated int64 dims = 4", "bool optional = 8"),
    "ModelOutput": ("string name = 1", "DataType data_type = 2", "repeated int64 dims = 3"),
}
DATA_TYPES = ("TYPE_INVALID = 0", "TYPE_INT64 = 9", "TYPE_FP32 = 11", "TYPE_STRING = 13")

FIELD = re.compile(r"(?:(repeated|map|oneof) )?([\w.]+) (\w+) = (\d+)")
Field = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    name: getattr(Field, f"TYPE_{name.upper()}")
    for name in ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")
}


def message_classes() -> dict[str, Any]:
    """A class for each message. They live in a pool of their own, beside any generated ones in the same process."""
    file = descriptor_pb2.FileDescriptorProto(name="fullfunnel_v2.proto", package=PACKAGE, syntax="proto3")
    enum = file.enum_type.add(name="DataType")
    for text in DATA_TYPES:
        name, number = text.split(" = ")
        enum.value.add(name=name, number=int(number))
    made: dict[str, Any] = {}
    for path, fields in MESSAGES.items():
        outer, _, name = path.rpartition(".")
        made[path] = made[outer].nested_type.add(name=name) if outer else file.message_type.add(name=name)
        for text in fields:
            _add_field(made[path], path, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {path: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{path}")) for path in MESSAGES}


def _add_field(message: Any, path: str, text: str) -> None:
    match = FIELD.fullmatch(text)
    assert match is not None, text  # noqa: S101
    how, kind, name, number = match.groups()
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if how in ("repeated", "map"):
        field.label = Field.LABEL_REPEATED
    if how == "map":  # on the wire a map is a list of entries
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(entry, path, "string key = 1")
        _add_field(entry, path, f"{kind} value = 2")
        kind = f"{path}.{entry.name}"
    if how == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type = Field.TYPE_ENUM if kind == "DataType" else Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
