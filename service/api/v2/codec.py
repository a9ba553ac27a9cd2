"""Bodies of the protocol over HTTP: JSON, and JSON followed by the raw bytes of tensors (the binary extension).

Knows the fields of requests and answers. Does not know paths, nor which tensors a model takes.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.errors import BodyMalformed, FeatureMissing, LengthMismatch, UnknownField, ValueInvalid
from service.api.settings import Limits
from service.api.v2.inference import Inference, check_id, infer, outputs_of, read_inference
from service.api.v2.tensors import Tensor, raw
from service.api.wire import read_json
from service.scoring.columns import shown
from service.scoring.scorer import Scorer

HEADER_LENGTH = "inference-header-content-length"
# what would change the answer, and is not there: better refused than overlooked
REFUSED_PARAMETERS = frozenset({"classification", "shared_memory_region"})
REMEMBERED, REMEMBERED_BYTES = 64, 1024  # of what is said beside tensors


class _Tail:
    """The raw bytes behind the JSON, taken from front to back."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def take(self, size: Any, place: str) -> memoryview:
        if type(size) is not int or size < 0:
            raise ValueInvalid("must be a whole number from 0 on", place=place)
        if size > len(self._data):
            raise LengthMismatch(
                f"more bytes than the {len(self._data)} that are left of the body",
                place=place,
                remedy="send as many bytes as binary_data_size says",
            )
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def check_empty(self) -> None:
        if len(self._data):
            raise LengthMismatch(
                f"{len(self._data)} bytes that belong to no input",
                place="body",
                remedy=f"check {HEADER_LENGTH} and the binary_data_size of each input",
            )


def read_body(scorer: Scorer, limits: Limits, body: bytes, *, header_length: str | None) -> Inference:
    """The request in `body`, whose first `header_length` bytes are JSON (None: all of them).

    Raises: RequestInvalid.
    """
    end = len(body) if header_length is None else _length(header_length, len(body))
    whole = partial(_read_whole, scorer, limits, body, end)
    if end < len(body) and scorer.requests is not None:
        found = scorer.requests.tensors(body, end, limits.max_candidates)
        if found is not None:
            plain, rest = found
            read = _beside if len(rest) <= REMEMBERED_BYTES else _beside.__wrapped__
            try:
                id, outputs, binary = read(scorer.outputs, limits, rest)
            except BodyMalformed:  # it is told where in the whole
                return whole()
            return Inference(id, plain.count, 1, {}, outputs, binary, plain, whole)
    return whole()


@lru_cache(REMEMBERED)
def _beside(names: tuple[str, ...], limits: Limits, rest: bytes) -> tuple[str, tuple[str, ...], frozenset[str]]:
    """The id, the outputs and those wanted as raw bytes, which a client says beside its tensors: mostly the same."""
    request, requested = _asked(names, read_json(rest, limits))
    check_id(limits, request["id"])
    return request["id"], *outputs_of(names, requested)


def _read_whole(scorer: Scorer, limits: Limits, body: bytes, end: int) -> Inference:
    request, requested = _asked(scorer.outputs, read_json(body[:end], limits))
    tail = _Tail(memoryview(body)[end:])
    asked = read_inference(scorer, limits, request["id"], _tensors(_list(request, "inputs"), tail), requested)
    tail.check_empty()
    return asked


def _asked(names: tuple[str, ...], value: Any) -> tuple[dict[str, Any], list[tuple[str, bool]]]:
    """The request with an id, and the outputs that it asks for."""
    request = _object(value, "request")
    parameters = _parameters(request, "parameters")
    binary = _flag(parameters, "binary_data_output", "parameters", default=False)
    if not isinstance(request.setdefault("id", ""), str):
        raise ValueInvalid("must be a string", place="id")
    requested = list(_requested(request, binary))
    if binary and not requested:
        requested = [(name, True) for name in names]
    return request, requested


def answer(scorer: Scorer, asked: Inference) -> tuple[bytes, int | None]:
    """The body that answers, and how many bytes of it are JSON (None: all, and nothing is raw).

    Raises: RequestInvalid, ScoreInvalid.
    """
    return write_body(scorer, asked, infer(scorer, asked))


def write_body(scorer: Scorer, asked: Inference, scores: dict[str, NDArray[np.float32]]) -> tuple[bytes, int | None]:
    """As `answer`, with the scores given."""
    outputs: list[dict[str, Any]] = []
    pieces = []
    for name, values in scores.items():
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(values.shape)}
        if name in asked.binary:
            pieces.append(raw(values))
            entry["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            entry["data"] = values
        outputs.append(entry)
    document = {"model_name": scorer.manifest.name, "model_version": scorer.manifest.version, "outputs": outputs}
    if asked.id:
        document["id"] = asked.id
    header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([header, *pieces]), len(header) if pieces else None


def _tensors(entries: list[Any], tail: _Tail) -> Iterator[tuple[str, Tensor]]:
    for index, entry in enumerate(entries):
        yield _tensor(*_named(entry, f"inputs[{index}]"), tail)


def _tensor(place: str, entry: dict[str, Any], tail: _Tail) -> tuple[str, Tensor]:
    name, datatype, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    parameters = _parameters(entry, f"{place}.parameters")
    if not isinstance(datatype, str):
        raise ValueInvalid("must be a string", place=f"{place}.datatype")
    if not isinstance(shape, list):
        raise ValueInvalid("must be a list", place=f"{place}.shape")
    size, data = parameters.get("binary_data_size"), entry.get("data")
    if (size is None) == (data is None):
        raise FeatureMissing("must have either data or a binary_data_size", place=place, remedy="send one of the two")
    if size is not None:
        return name, Tensor(datatype, tuple(shape), tail.take(size, f"{place}.parameters.binary_data_size"))
    if not isinstance(data, list):
        raise ValueInvalid("must be a list", place=f"{place}.data")
    return name, Tensor(datatype, tuple(shape), data)


def _requested(request: dict[str, Any], binary: bool) -> Iterator[tuple[str, bool]]:
    for index, value in enumerate([] if request.get("outputs") is None else _list(request, "outputs")):
        place, entry = _named(value, f"outputs[{index}]")
        parameters = _parameters(entry, f"{place}.parameters")
        yield entry["name"], _flag(parameters, "binary_data", f"{place}.parameters", default=binary)


def _list(request: dict[str, Any], name: str) -> list[Any]:
    entries = request.get(name)
    if not isinstance(entries, list):
        raise ValueInvalid("must be a list", place=name)
    return entries


def _named(value: Any, place: str) -> tuple[str, dict[str, Any]]:
    entry = _object(value, place)
    if not isinstance(entry.get("name"), str):
        raise ValueInvalid("must be a string", place=f"{place}.name")
    return place, entry


def _parameters(value: dict[str, Any], place: str) -> dict[str, Any]:
    parameters = _object(value.get("parameters") or {}, place)
    for name in sorted(REFUSED_PARAMETERS & parameters.keys()):
        raise UnknownField(
            "this extension of the protocol is not there", place=f"{place}.{name}", remedy="leave it out"
        )
    return parameters


def _flag(parameters: dict[str, Any], name: str, place: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ValueInvalid("must be true or false", place=f"{place}.{name}")
    return value


def _length(text: str, most: int) -> int:
    plain = text.isascii() and text.isdigit() and len(text) < 20
    if not plain or int(text) > most:
        raise BodyMalformed(
            f"must be a number of bytes, at most the {most} of the body",
            place=HEADER_LENGTH,
            remedy="send the length of the JSON in front of the raw tensors",
        )
    return int(text)


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueInvalid("must be an object", place=shown(place))
    return value
