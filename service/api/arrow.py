"""A request and an answer as Arrow IPC streams, for clients that have columns already.

The record batches are the candidates, a column for each feature; the user, `order_by` and `top_k` are JSON in the
schema's metadata under `fullfunnel`. The answer is a column for each output (and `index`, where sorted), with the model
in its metadata. Knows Arrow. Imported when the first such request comes, since pyarrow is large and few need it.

A stream is looked at before pyarrow decodes it: compressed buffers, and more rows than may be sent, are refused, so
that what is in memory is in proportion to what was sent.
"""

import io
import struct
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import BodyMalformed, RequestInvalid, TooManyCandidates, ValueInvalid
from service.api.ranking import name_of, ranked, wire_of
from service.api.settings import Limits
from service.api.wire import PlainRequest, RankingRequest
from service.scoring.columns import shown
from service.scoring.scorer import Scorer

METADATA = b"fullfunnel"
CONTINUATION = b"\xff\xff\xff\xff"
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # types of a message; others hold no buffers
HEADER_TYPE, HEADER = 1, 2  # fields of a message
LENGTH, COMPRESSION, DICTIONARY_DATA = 0, 3, 1  # fields of a record batch, and of a dictionary batch


def read_request(scorer: Scorer, limits: Limits, body: bytes) -> RankingRequest:
    """The body of /v1/predict.

    Raises: RequestInvalid.
    """
    try:
        too_many = TooManyCandidates(
            f"more than {limits.max_candidates} candidates", place="candidates", remedy="send them in several requests"
        )
        check_stream(body, limits.max_candidates, limits.max_rows, too_many)
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
        table.validate(full=True)
        asked = orjson.loads((table.schema.metadata or {}).get(METADATA, b"{}"))
    except (pa.ArrowException, struct.error, LookupError, OSError, ValueError) as error:
        raise BodyMalformed("the body is not an Arrow stream", remedy="send one, uncompressed") from error
    if not isinstance(asked, dict) or "candidates" in asked:
        raise ValueInvalid("must be an object with `user`, `order_by` and `top_k`", place="schema metadata, fullfunnel")
    return wire_of(scorer, limits).request({**asked, "candidates": dict(_columns(table))})


def answer(scorer: Scorer, request: RankingRequest | PlainRequest) -> bytes:
    """The stream that answers one request.

    Raises: RequestInvalid, ScoreInvalid.
    """
    metadata = {b"model": orjson.dumps(name_of(scorer))}
    table = pa.table(ranked(scorer, request)).replace_schema_metadata(metadata)
    written = io.BytesIO()
    with pa.ipc.new_stream(written, table.schema) as stream:
        stream.write_table(table)
    return written.getvalue()


def _columns(table: pa.Table) -> Iterator[tuple[str, list[Any] | NDArray[Any]]]:
    if len(set(table.column_names)) < table.num_columns:
        raise ValueInvalid("two columns have one name", place="candidates")
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if number and not column.null_count and kind == column.type:
            yield name, column.to_numpy()
        elif number or _is_text(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind) or kind == pa.null():
            yield name, column.to_pylist()
        else:
            place = f"candidates.{shown(name)}"
            raise ValueInvalid("a column of this type cannot be read", place=place, remedy="send strings or numbers")


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def check_stream(body: bytes, max_rows: int, max_length: int, too_many: RequestInvalid) -> None:
    """Refuse what would grow in memory: compressed buffers, or more rows, or longer batches and dictionaries.

    Raises: BodyMalformed, `too_many`, struct.error.
    """
    rows, at = 0, 0
    while at + 8 <= len(body):
        if body[at : at + 4] != CONTINUATION:
            raise BodyMalformed("the body is not an Arrow stream", place=f"byte {at}")
        (size,) = struct.unpack_from("<i", body, at + 4)
        if size == 0:  # the end of the stream
            break
        start = at + 8
        if size < 0 or start + size > len(body):
            raise BodyMalformed("the body is not an Arrow stream", place=f"byte {at}")
        message = body[start : start + size]
        kind, header, body_length = _message(message)
        if kind == DICTIONARY_BATCH:
            header = _follow(message, header, DICTIONARY_DATA)
        if kind in (DICTIONARY_BATCH, RECORD_BATCH):
            if _field(message, header, COMPRESSION):
                raise BodyMalformed("the body is compressed", remedy="send the stream uncompressed")
            length = _int64(message, header, LENGTH)
            if kind == RECORD_BATCH:
                rows += length
            if not 0 <= length <= max_length or rows > max_rows:
                raise too_many
        if not 0 <= body_length <= len(body):
            raise BodyMalformed("the body is not an Arrow stream", place=f"byte {at}")
        at = start + size + body_length


def _message(message: bytes) -> tuple[int, int, int]:
    """Its type, where its header lies, and how long its body is."""
    (root,) = struct.unpack_from("<I", message)
    at = _field(message, root, HEADER_TYPE)
    return message[at] if at else 0, _follow(message, root, HEADER), _int64(message, root, 3)


def _field(buffer: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 if it is not there."""
    (back,) = struct.unpack_from("<i", buffer, table)
    if not 0 <= table - back <= len(buffer) - 4:
        raise struct.error
    (size,) = struct.unpack_from("<H", buffer, table - back)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", buffer, table - back + 4 + 2 * number)
    return table + offset if offset else 0


def _follow(buffer: bytes, table: int, number: int) -> int:
    """Where the table that a field refers to lies."""
    at = _field(buffer, table, number)
    (offset,) = struct.unpack_from("<I", buffer, at)
    return at + int(offset)


def _int64(buffer: bytes, table: int, number: int) -> int:
    at = _field(buffer, table, number)
    return int(struct.unpack_from("<q", buffer, at)[0]) if at else 0
