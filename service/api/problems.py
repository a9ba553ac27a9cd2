"""Every error as an RFC 9457 problem document, or as the one sentence that clients of /v2 read.

One table says which error becomes which status. A document holds sentences from a fixed catalogue and the names of
features and fields: never a value that was sent, a path, or anything of the inside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

from contract import errors
from contract.errors import FullfunnelError, SeveralInvalid
from service.scoring.columns import MAX_ERRORS

MEDIA_TYPE = "application/problem+json"
MAX_TEXT = 400  # characters of one sentence
MAX_BYTES = 16 * 1024


@dataclass(frozen=True)
class Kind:
    """One kind of problem. `error` is the class it comes from, or None where HTTP itself refuses."""

    status: int
    slug: str
    title: str
    error: type[FullfunnelError] | None = None
    retry_after_s: int | None = None
    says_what: bool = True


# the first row whose class fits decides
KINDS = (
    Kind(401, "key-missing", "A key is needed", errors.KeyMissing),
    Kind(403, "key-forbidden", "The key is not for this", errors.KeyForbidden),
    Kind(400, "body-malformed", "The body is not of its format", errors.BodyMalformed),
    Kind(400, "too-deep", "The JSON is nested too deeply", errors.TooDeep),
    Kind(404, "unknown-model", "A model that is not served here", errors.UnknownModel),
    Kind(403, "place-forbidden", "A place that jobs may not touch", errors.PlaceForbidden),
    Kind(404, "unknown-job", "A job that is not known here", errors.UnknownJob),
    Kind(413, "body-too-large", "The body is too large", errors.BodyTooLarge),
    Kind(413, "table-too-large", "The table is too large", errors.TableTooLarge),
    Kind(422, "column-missing", "A column that is needed is missing", errors.ColumnMissing),
    Kind(422, "column-type-invalid", "A column of a type that cannot be scored", errors.ColumnTypeInvalid),
    Kind(422, "table-invalid", "The table cannot be scored", errors.DataInvalid),
    Kind(422, "key-reused", "The idempotency key belongs to another job", errors.KeyReused),
    Kind(422, "rows-refused", "Rows that cannot be scored", errors.RowsRefused),
    Kind(422, "too-many-candidates", "Too many candidates", errors.TooManyCandidates),
    Kind(422, "too-many-requests", "Too many requests in one call", errors.TooManyRequests),
    Kind(422, "unknown-field", "A field that requests do not have", errors.UnknownField),
    Kind(422, "unknown-feature", "A feature that the model does not have", errors.UnknownFeature),
    Kind(422, "feature-missing", "Something that must be given is missing", errors.FeatureMissing),
    Kind(422, "value-invalid", "A value that cannot be scored", errors.ValueInvalid),
    Kind(422, "length-mismatch", "Lengths that must be equal differ", errors.LengthMismatch),
    Kind(422, "several-invalid", "Several things are wrong", errors.SeveralInvalid),
    Kind(422, "request-invalid", "The request cannot be scored", errors.RequestInvalid),
    Kind(409, "swap-busy", "The model is being changed", errors.SwapBusy),
    Kind(403, "swap-forbidden", "The model cannot be changed from there", errors.SwapForbidden),
    Kind(422, "swap-invalid", "The bundle cannot be served", errors.SwapInvalid),
    Kind(409, "swap-refused", "The model cannot be changed like that", errors.SwapRefused),
    Kind(503, "not-ready", "No model is ready", errors.NotReady, retry_after_s=1),
    Kind(503, "overloaded", "Too much at once", errors.Overloaded, retry_after_s=1),
    Kind(500, "score-invalid", "The model failed", errors.ScoreInvalid, says_what=False),
    Kind(400, "http-malformed", "The request is not HTTP/1.1"),
    Kind(404, "not-found", "There is nothing here"),
    Kind(405, "method-not-allowed", "This path does not take this method"),
    Kind(408, "request-timeout", "The request did not arrive in time"),
    Kind(415, "unsupported-media-type", "The body is of no accepted type, or compressed"),
    Kind(431, "headers-too-large", "The headers are too large or too many"),
    Kind(500, "internal", "The service failed", says_what=False),
)


def kind_of_error(error: FullfunnelError) -> Kind:
    """The row of an error; what no row names is a fault of the service."""
    return next((kind for kind in KINDS if kind.error and isinstance(error, kind.error)), KINDS[-1])


def kind_of_status(status: int) -> Kind:
    """The row of a status that HTTP itself gives."""
    return next((kind for kind in KINDS if kind.error is None and kind.status == status), KINDS[-1])


def document(kind: Kind, request_id: str, error: FullfunnelError | None = None) -> bytes:
    """The problem document. At most 16 KB, whatever the error holds."""
    body: dict[str, Any] = {
        "type": _type(kind),
        "title": kind.title,
        "status": kind.status,
        "request_id": request_id,
    }
    if error is not None and kind.says_what:
        found = error.errors if isinstance(error, SeveralInvalid) else (error,)
        body["detail"] = _cut(str(found[0]) if len(found) == 1 else f"{error.fact}.")
        body["errors"] = [_located(each) for each in found[:MAX_ERRORS]]
    content = orjson.dumps(body)
    if len(content) > MAX_BYTES:
        body["errors"] = body["errors"][:1]
        content = orjson.dumps(body)
    return content


def sentence(kind: Kind, error: FullfunnelError | None = None, max_text: int = MAX_TEXT * MAX_ERRORS) -> str:
    """What is wrong, on one line, for protocols whose errors are a text."""
    if error is None or not kind.says_what:
        return f"{kind.title}."
    found = error.errors if isinstance(error, SeveralInvalid) else (error,)
    return _cut(" ".join(_cut(str(each)) for each in found[:MAX_ERRORS]), max_text)


def problem(
    kind: Kind,
    request_id: str,
    error: FullfunnelError | None = None,
    *,
    path: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response that carries it, in the form that clients of `path` read."""
    sent = dict(headers or {})
    if kind.retry_after_s is not None:
        sent["retry-after"] = str(kind.retry_after_s)
    if kind.status == 401:
        sent["www-authenticate"] = "Bearer"
    if path == "/v2" or path.startswith("/v2/"):
        return Response(orjson.dumps({"error": sentence(kind, error)}), kind.status, sent, "application/json")
    return Response(document(kind, request_id, error), kind.status, sent, MEDIA_TYPE)


def _located(error: FullfunnelError) -> dict[str, str]:
    found = {"type": _type(kind_of_error(error)), "place": error.place, "detail": error.fact, "remedy": error.remedy}
    return {name: _cut(text) for name, text in found.items() if text}


def _type(kind: Kind) -> str:
    return f"urn:fullfunnel:problem:{kind.slug}"


def _cut(text: str, max_text: int = MAX_TEXT) -> str:
    return text if len(text) <= max_text else text[: max_text - 1] + "…"
