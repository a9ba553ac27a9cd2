"""The bytes of a request as columns of raw values.

Knows JSON and the shape of a request. Does not know which values a feature takes (scoring) nor HTTP: the command
line reads the same format from files.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import orjson

from contract.bundle import Golden
from contract.errors import (
    BodyMalformed,
    BodyTooLarge,
    FeatureMissing,
    RequestInvalid,
    SeveralInvalid,
    TooDeep,
    TooManyCandidates,
    TooManyRequests,
    UnknownField,
    ValueInvalid,
)
from contract.tasks import Output
from service.api.settings import Limits
from service.scoring.columns import MAX_ERRORS, count_rows, shown
from service.scoring.request import Plain, Requests, is_deeper

FIELDS = frozenset({"user", "candidates", "top_k", "order_by"})
BRACKETS = bytes.maketrans(b"{}", b"[]")
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """One user and `count` candidates. `order_by` is the output to sort by, None for the order they came in."""

    user: dict[str, Any]
    candidates: dict[str, list[Any]]
    count: int
    order_by: str | None
    top_k: int | None


@dataclass(slots=True)  # frozen, it would take three times as long to make
class PlainRequest:
    """The same of a request whose values did not become columns; `columns` reads it again."""

    plain: Plain
    count: int
    order_by: str | None
    top_k: int | None
    columns: Callable[[], RankingRequest]


@dataclass(slots=True)
class Wire:
    """Reads requests for one model: `item_features` and `outputs` are the names it knows, `requests` what is plain."""

    limits: Limits
    item_features: Collection[str]
    outputs: tuple[Output, ...]
    requests: Requests | None = None

    def read(self, body: bytes) -> RankingRequest | PlainRequest:
        """The body of /v1/predict, in the shortest way there is.

        Raises: RequestInvalid.
        """
        limits = self.limits
        if self.requests is None or len(body) > limits.max_body_bytes:
            return self.read_request(body)
        plain = self.requests.read(body, limits.max_candidates)
        if plain is None:
            return self.read_request(body)
        order_by = self.outputs[plain.order].name if plain.order >= 0 else self.default_order if plain.top else None
        return PlainRequest(plain, plain.count, order_by, plain.top or None, partial(self.read_request, body))

    def read_request(self, body: bytes) -> RankingRequest:
        """The body of /v1/predict.

        Raises: RequestInvalid.
        """
        return self.request(read_json(body, self.limits))

    def read_batch(self, body: bytes) -> list[RankingRequest]:
        """The body of /v1/predict:batch.

        Raises: RequestInvalid.
        """
        batch = _object(read_json(body, self.limits), "")
        _check_fields(batch, frozenset({"requests"}))
        requests = batch.get("requests")
        if not isinstance(requests, list):
            raise ValueInvalid("must be a list of requests", place="requests")
        if len(requests) > self.limits.max_requests:
            raise TooManyRequests(
                f"more than {self.limits.max_requests} requests", place="requests", remedy="send them in several calls"
            )
        read, rows = [], 0
        for index, request in enumerate(requests):
            try:
                read.append(self.request(request))
            except RequestInvalid as error:
                raise within(error, f"requests[{index}]") from None
            rows += read[-1].count
            if rows > self.limits.max_rows:
                raise TooManyCandidates(
                    f"more than {self.limits.max_rows} candidates in all requests together",
                    place="requests",
                    remedy="send them in several calls",
                )
        return read

    @property
    def default_order(self) -> str:
        """The output that `top_k` alone sorts by: the end of the funnel."""
        joint = [output.name for output in self.outputs if output.kind == "joint"]
        return joint[-1] if joint else self.outputs[-1].name

    def request(self, value: Any) -> RankingRequest:
        """A request whose columns have been read already, from JSON or otherwise.

        Raises: RequestInvalid.
        """
        request = _object(value, "")
        _check_fields(request, FIELDS)
        given = request.get("user")
        user = {} if given is None else _object(given, "user")
        candidates, count = self._candidates(request.get("candidates"))
        top_k, order_by = request.get("top_k"), request.get("order_by")
        if top_k is not None and (type(top_k) is not int or top_k < 1):
            raise ValueInvalid("must be a whole number of at least 1", place="top_k")
        if order_by is not None and order_by not in [output.name for output in self.outputs]:
            names = ", ".join(output.name for output in self.outputs)
            raise ValueInvalid("must be an output of the model", place="order_by", remedy=f"choose one of {names}")
        if order_by is None and top_k is not None:
            order_by = self.default_order
        return RankingRequest(user, candidates, count, order_by, top_k)

    def _candidates(self, value: Any) -> tuple[dict[str, list[Any]], int]:
        if value is None or value == {}:
            if self.item_features:
                raise FeatureMissing("must be given", place="candidates", remedy="send a list, or an object of columns")
            return {}, 1
        if isinstance(value, list):
            self._check_count(len(value))
            return self._transposed(value), len(value)
        columns = _object(value, "candidates")
        for name in columns:
            if isinstance(columns[name], list):
                self._check_count(len(columns[name]))
        return columns, count_rows(columns, "item") or 0

    def _transposed(self, rows: list[Any]) -> dict[str, list[Any]]:
        """A list of objects as columns. Of names no feature has, only so many are kept as errors are reported."""
        for index in (index for index, row in enumerate(rows) if type(row) is not dict):
            _object(rows[index], f"candidates[{index}]")
        names = dict.fromkeys(chain.from_iterable(rows))
        known = [name for name in names if name in self.item_features]
        unknown = [name for name in names if name not in self.item_features][:MAX_ERRORS]
        return {name: [row.get(name) for row in rows] for name in [*known, *unknown]}

    def _check_count(self, count: int) -> None:
        if count > self.limits.max_candidates:
            raise TooManyCandidates(
                f"more than {self.limits.max_candidates} candidates",
                place="candidates",
                remedy="send them in several requests",
            )


def read_json(body: bytes, limits: Limits) -> Any:
    """The value that is written in `body`.

    Raises: BodyTooLarge, BodyMalformed, TooDeep.
    """
    if len(body) > limits.max_body_bytes:
        raise BodyTooLarge(f"more than {limits.max_body_bytes} bytes", remedy="send fewer candidates at once")
    too_deep = TooDeep(f"the JSON is nested deeper than {limits.max_depth} levels")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if "depth" in error.msg or "recursion" in error.msg:
            raise too_deep from None
        raise BodyMalformed("the body is not JSON", place=f"byte {error.pos}") from None
    if _is_deeper(body, limits.max_depth):
        raise too_deep
    return value


def within(error: RequestInvalid, place: str) -> RequestInvalid:
    """The same error, found inside `place`."""
    if isinstance(error, SeveralInvalid):
        return SeveralInvalid([within(each, place) for each in error.errors])
    inner = f"{place}.{error.place}" if error.place else place
    return type(error)(error.fact, place=inner, remedy=error.remedy)


def example_request(golden: Golden, candidates: int = 3) -> dict[str, Any]:
    """A request made of golden rows: the first user and the first few candidates."""
    return {
        "user": {name: values[0] for name, values in golden.rows.user.items()},
        "candidates": {name: values[:candidates] for name, values in golden.rows.candidates.items()},
    }


def _is_deeper(body: bytes, levels: int) -> bool:
    """Whether valid JSON is nested deeper than `levels`: with strings cut out, each round takes the innermost away."""
    if (deeper := is_deeper(body, levels)) is not None:
        return deeper
    if not _has_more_openings(body, levels):
        return False
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(BRACKETS, NOT_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _has_more_openings(body: bytes, count: int) -> bool:
    """Whether there are more than so many brackets that open; `find` is several times faster than `count`."""
    for bracket in (b"[", b"{"):
        at = body.find(bracket)
        while at >= 0 and count >= 0:
            count -= 1
            at = body.find(bracket, at + 1)
    return count < 0


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueInvalid("must be an object", place=place)
    return value


def _check_fields(value: dict[str, Any], known: frozenset[str]) -> None:
    if not value.keys() <= known:
        raise UnknownField(
            "a field that requests do not have",
            place=next(shown(name) for name in value if name not in known),
            remedy=f"a request may have {', '.join(sorted(known))}",
        )
