"""The Open Inference Protocol over gRPC, on the event loop that HTTP is served on.

Knows grpc and the messages; which error becomes which code is one table, from the statuses of `problems.py`. Does not
know models. Imported only where a port is set: grpc takes 23 MB and some tenths of a second to import.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from contract.errors import (
    AddressUnavailable,
    BodyMalformed,
    FullfunnelError,
    LengthMismatch,
    UnknownField,
    ValueInvalid,
)
from service.api.edge import REQUEST_ID, ids_of
from service.api.lifecycle import Lifecycle
from service.api.metrics.families import OK
from service.api.predictions import Predictions
from service.api.problems import kind_of_error, kind_of_status, sentence
from service.api.settings import Limits, Settings
from service.api.v2.codec import REFUSED_PARAMETERS
from service.api.v2.inference import Inference, check_model, infer, read_inference
from service.api.v2.messages import SERVICE, message_classes
from service.api.v2.metadata import model_config, model_metadata, server_metadata
from service.api.v2.tensors import Tensor, raw
from service.scoring.scorer import Scorer

MESSAGES = message_classes()
# the status that HTTP would answer -> the code of gRPC
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
# datatype -> the field of InferTensorContents that holds its values, and their type; FP16 has none and is sent raw
CONTENTS: dict[str, tuple[str, Any]] = {
    "BYTES": ("bytes_contents", None),
    "INT8": ("int_contents", np.int32),
    "INT16": ("int_contents", np.int32),
    "INT32": ("int_contents", np.int32),
    "INT64": ("int64_contents", np.int64),
    "UINT8": ("uint_contents", np.uint32),
    "UINT16": ("uint_contents", np.uint32),
    "UINT32": ("uint_contents", np.uint32),
    "UINT64": ("uint64_contents", np.uint64),
    "FP32": ("fp32_contents", np.float32),
    "FP64": ("fp64_contents", np.float64),
}
MAX_DETAILS = 1024  # characters; details travel in trailers, which clients bound
# so that probes are answered while every prediction's place is taken
PLACES_FOR_PROBES = 16

log = logging.getLogger("fullfunnel")
Method = Callable[[Any], Awaitable[Any]]


async def start(settings: Settings, lifecycle: Lifecycle, predictions: Predictions, *, shared: bool = False) -> Any:
    """A server that answers; `stop(seconds)` ends it. With `shared`, other processes may listen there too.

    Raises: AddressUnavailable.
    """
    server = grpc.aio.server(
        options=_options(settings.limits, shared),
        maximum_concurrent_rpcs=settings.limits.max_concurrency + PLACES_FOR_PROBES,
    )
    server.add_generic_rpc_handlers((handler(Service(lifecycle, predictions), settings.limits),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.grpc_port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        raise AddressUnavailable(
            "cannot listen here", place=address, remedy="stop what does, or choose another --grpc-port"
        ) from None
    await server.start()
    log.info("listening on grpc://%s:%d", host, bound)
    return server


class Service:
    """The methods: a request's message in, an answer's message out."""

    def __init__(self, lifecycle: Lifecycle, predictions: Predictions) -> None:
        self.lifecycle, self._predictions = lifecycle, predictions

    async def server_live(self, body: bytes) -> Any:
        """The process turns."""
        return MESSAGES["ServerLiveResponse"](live=True)

    async def server_ready(self, body: bytes) -> Any:
        """Whether a verified model answers."""
        return MESSAGES["ServerReadyResponse"](ready=self._is_ready())

    async def model_ready(self, body: bytes) -> Any:
        """Whether this model answers. Raises: NotReady, UnknownModel."""
        request = parse("ModelReadyRequest", body)
        self._served(request.name, request.version)
        return MESSAGES["ModelReadyResponse"](ready=self._is_ready())

    async def server_metadata(self, body: bytes) -> Any:
        """The server, and the extensions it has."""
        return ParseDict(server_metadata(), MESSAGES["ServerMetadataResponse"]())

    async def model_metadata(self, body: bytes) -> Any:
        """What the model takes and answers. Raises: NotReady, UnknownModel."""
        request = parse("ModelMetadataRequest", body)
        return ParseDict(
            model_metadata(self._served(request.name, request.version)), MESSAGES["ModelMetadataResponse"]()
        )

    async def model_config(self, body: bytes) -> Any:
        """The model as Triton configures it. Raises: NotReady, UnknownModel."""
        request = parse("ModelConfigRequest", body)
        config = model_config(self._served(request.name, request.version))
        return ParseDict({"config": config}, MESSAGES["ModelConfigResponse"]())

    async def model_infer(self, body: bytes) -> Any:
        """Score. Raises: RequestInvalid, NotReady, Overloaded, ScoreInvalid."""
        self.lifecycle.hold(len(body))
        try:
            return await self._predictions.make(read_request, answer, body)
        finally:
            self.lifecycle.release(len(body))

    def _served(self, name: str, version: str) -> Scorer:
        scorer = self.lifecycle.scorer
        check_model(scorer, name, version)
        return scorer

    def _is_ready(self) -> bool:
        try:
            self.lifecycle.check_ready()
        except FullfunnelError:
            return False
        return True


def handler(service: Service, limits: Limits) -> Any:
    """What grpc calls for each method of the protocol.

    Each is unary, yet registered as one that takes a stream, which is the same on the wire: for a single message grpc
    itself would wait without end.
    """
    methods: dict[str, Method] = {
        "ServerLive": service.server_live,
        "ServerReady": service.server_ready,
        "ModelReady": service.model_ready,
        "ServerMetadata": service.server_metadata,
        "ModelMetadata": service.model_metadata,
        "ModelConfig": service.model_config,
        "ModelInfer": service.model_infer,
    }
    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            name: grpc.stream_unary_rpc_method_handler(
                partial(_guarded, service, f"grpc/{name}", method, limits.receive_timeout_s),
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, method in methods.items()
        },
    )


async def _guarded(
    service: Service,
    route: str,
    method: Method,
    receive_timeout_s: float,
    bodies: AsyncIterator[bytes],
    context: Any,
) -> Any:
    """The answer, or an error as a code and a sentence; every answer carries an id, as in HTTP."""
    metadata = dict(context.invocation_metadata())
    sent = ((name.encode(), value.encode()) for name, value in metadata.items() if isinstance(value, str))
    ids, began = ids_of(sent), time.perf_counter()
    request_id = ids.request_id
    context.set_trailing_metadata(((REQUEST_ID, request_id),))
    error: FullfunnelError | None = None
    try:
        service.lifecycle.check_key(route, str(metadata.get("authorization", "")))
        body = await asyncio.wait_for(anext(bodies, b""), receive_timeout_s)
        answer = await method(body)
        service.lifecycle.answered(route, OK, began, ids)
        return answer
    except TimeoutError:
        kind = kind_of_status(408)
    except FullfunnelError as refused:
        error, kind = refused, kind_of_error(refused)
        if kind.status == 500:
            log.error("request %s: %s", request_id, refused)
    except Exception:
        log.exception("request %s failed", request_id, extra=ids._asdict())
        kind = kind_of_status(500)
    service.lifecycle.answered(route, kind.slug, began, ids)
    await context.abort(CODES[kind.status], sentence(kind, error, MAX_DETAILS))


def parse(name: str, body: bytes) -> Any:
    """The message in `body`. Raises: BodyMalformed."""
    try:
        return MESSAGES[name].FromString(body)
    except DecodeError:
        raise BodyMalformed("the body is not the message of this method", place=name) from None


def read_request(scorer: Scorer, limits: Limits, body: bytes) -> Inference:
    """What a ModelInferRequest asks. Raises: RequestInvalid."""
    request = parse("ModelInferRequest", body)
    check_model(scorer, request.model_name, request.model_version)
    requested: list[tuple[str, bool]] = []
    for output in request.outputs:
        _check_parameters(output.parameters, f"outputs.{len(requested)}")
        requested.append((output.name, True))
        if len(requested) > len(scorer.manifest.outputs):
            break  # one is unknown or named twice, and will be refused
    return read_inference(scorer, limits, request.id, _tensors(request), requested)


def answer(scorer: Scorer, asked: Inference) -> Any:
    """The ModelInferResponse. Raises: RequestInvalid, ScoreInvalid."""
    manifest = scorer.manifest
    response = MESSAGES["ModelInferResponse"](model_name=manifest.name, model_version=manifest.version, id=asked.id)
    for name, values in infer(scorer, asked).items():
        response.outputs.add(name=name, datatype="FP32", shape=values.shape)
        response.raw_output_contents.append(raw(values))
    return response


def _tensors(request: Any) -> Iterator[tuple[str, Tensor]]:
    contents = request.raw_input_contents
    if contents and len(contents) != len(request.inputs):
        raise LengthMismatch(
            f"has {len(contents)} members where there are {len(request.inputs)} inputs",
            place="raw_input_contents",
            remedy="send all inputs raw, in their order, or none",
        )
    for index, entry in enumerate(request.inputs):
        _check_parameters(entry.parameters, f"inputs[{index}]")
        if contents and entry.HasField("contents"):
            raise ValueInvalid("is sent twice, raw and typed", place=f"inputs[{index}].contents", remedy="send it once")
        data = memoryview(contents[index]) if contents else _typed(entry, f"inputs[{index}].contents")
        yield entry.name, Tensor(entry.datatype, tuple(entry.shape), data)


def _typed(entry: Any, place: str) -> Any:
    name, dtype = CONTENTS.get(entry.datatype, ("", None))
    if not name:
        return []  # a datatype that is refused, or has to be sent raw
    values = getattr(entry.contents, name)
    if dtype is not None:
        return np.array(values, dtype=dtype)
    try:
        return [str(value, "utf-8") for value in values]
    except UnicodeDecodeError:
        raise ValueInvalid("holds a string that is not UTF-8", place=place) from None


def _check_parameters(parameters: Any, place: str) -> None:
    for name in sorted(REFUSED_PARAMETERS):
        if name in parameters:
            raise UnknownField(
                "this extension of the protocol is not there", place=f"{place}.{name}", remedy="leave it out"
            )


def _options(limits: Limits, shared: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.max_body_bytes),
        ("grpc.max_metadata_size", limits.max_head_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_head_bytes),
        ("grpc.max_connection_idle_ms", limits.keep_alive_s * 1000),
        ("grpc.server_handshake_timeout_ms", int(limits.receive_timeout_s * 1000)),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # identity only: what expands is not bounded
        ("grpc.so_reuseport", int(shared)),  # or a port that is taken would be shared in silence
    ]
