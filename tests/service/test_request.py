"""The compiled reading of requests: what JSON and Python make of them, or nothing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.errors import RequestInvalid
from service.api.ranking import arrays_of, read_request, wire_of
from service.api.settings import Limits
from service.api.wire import PlainRequest, RankingRequest
from service.scoring import _request, request
from service.scoring.request import INTEGER, NUMBER, TEXT, WORD, Feature
from service.scoring.scorer import Feeds, Scorer
from service.scoring.settings import ScoringSettings
from tests.service.test_fuzz import aligned, requests
from tests.service.toy_bundle import publish_toy

FULL: dict[str, Any] = {
    "user": {
        "user_id": "u1",
        "city": "Shanghai",
        "age": 31,
        "recent_items": ["i4", None, "", "stranger", "i1", "i2", "i3"],
        "recent_actions": ["view", "buy", None, "", "sell", "buy", "view"],
    },
    "candidates": {
        "item_id": ["i1", "zz", "i6"],
        "category": [1, None, -9],
        "price": [9.9, None, 1e-7],
        "tags": [[1, 2, None, 3, 4], None, []],
    },
}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    directory = tmp_path_factory.mktemp("request") / "toy"
    publish_toy(directory)
    return Scorer.load(directory)


def dumped(**changes: Any) -> bytes:
    return orjson.dumps({**FULL, **changes})


def columns_of(scorer: Scorer, body: bytes) -> RankingRequest:
    return wire_of(scorer, Limits()).read_request(body)


def check_same(feeds: Feeds, expected: Feeds) -> None:
    assert feeds.keys() == expected.keys()
    for name, array in expected.items():
        assert (feeds[name].dtype, feeds[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(feeds[name], array, name)


def is_plain(scorer: Scorer, body: bytes) -> bool:
    """Whether it is read by compiled code, and then to what JSON and Python make of it."""
    try:
        found = read_request(scorer, Limits(), body)
    except RequestInvalid:
        return False
    if not isinstance(found, PlainRequest):
        return False
    expected = columns_of(scorer, body)
    assert (found.count, found.order_by, found.top_k) == (expected.count, expected.order_by, expected.top_k)
    check_same(arrays_of(scorer, [found]), arrays_of(scorer, [expected]))
    return True


@pytest.mark.parametrize(
    "body",
    [
        dumped(),
        dumped(top_k=2),
        dumped(top_k=2**40, order_by="pcvr"),
        dumped(user=None),
        dumped(user={}),
        dumped(candidates={"item_id": ["i1"]}),
        dumped(candidates={"price": [0], "item_id": ["i1"], "tags": [[7]]}),
        json.dumps({"candidates": FULL["candidates"], "user": FULL["user"]}, indent=3).encode(),
        b' \r\n\t{ "candidates" : { "item_id" : [ "i1" , "i2" ] , "tags" : [ [ ] , [ 1 , null ] ] } , "user" : { } } ',
        orjson.dumps({"candidates": FULL["candidates"]}),
    ],
)
def test_ordinary_requests_are_read_to_the_same_arrays(scorer: Scorer, body: bytes) -> None:
    assert is_plain(scorer, body)


def prices(*written: str) -> bytes:
    items = ",".join(['"i1"'] * len(written))
    return f'{{"candidates":{{"item_id":[{items}],"price":[{",".join(written)}]}}}}'.encode()


@pytest.mark.parametrize(
    "written",
    [
        *(
            "0",
            "-0",
            "0.0",
            "-0.0",
            "1",
            "-1",
            "10",
            "123456789012345678",
            "-999999999999999999",
            "1234567890123456789",
        ),
        *("12345678901234567890", "1" * 39, "0.1", "9.9", "99.41000366210938", "0.30000001192092896", "1e5", "1E+5"),
        *("1e-5", "1.5e22", "1.5e23", "1e-30", "1e-45", "7.0064923216240854e-46", "7.0064923216240862e-46", "1e-400"),
        *("3.4028234663852886e38", "16777217", "16777217.0", "16777219", "9007199254740993"),
        *(
            "0.000000000000000000000000000000000000001",
            "123456789.123456789123456789",
            "0e999",
            "0.5e-0",
            "1e0000000001",
            "1e-18446744073709551617",  # whose power does not fit in 64 bits
            "6043120507812499999e-14",  # whose double lies between two floats
            "2429196796875000000e-13",
        ),
        *("1.00000005960464477539", "1.00000005960464477540", "1.00000005960464478", "33554433", "33554435.0"),
    ],
)
def test_a_number_becomes_the_float_that_python_makes_of_it(scorer: Scorer, written: str) -> None:
    assert is_plain(scorer, prices(written, f"-{written}" if written[0] != "-" else "1"))


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False) | st.floats(-3e38, 3e38) | st.integers(-(10**25), 10**25)
)
def test_so_does_any_number(scorer: Scorer, value: float) -> None:
    assert is_plain(scorer, prices(repr(value), str(value).replace("e", "E"), f"{value:.12g}", f"{value:.25e}"))


@pytest.mark.parametrize(
    "written",
    [
        *("01", "-01", "00", "1.", ".5", "-", "+1", "--1", "1e", "1e+", "1.e5", "0x10", "1_0", "1,", "NaN", "Infinity"),
        *(
            "1e39",
            "3.5e38",
            "-3.5e38",
            "1e400",
            "1e18446744073709551617",
            "true",
            '"1"',
            "[1]",
            "{}",
            "nul",
            "nulll",
            "1 2",
            "1\x00",
            "",
            " ",
        ),
    ],
)
def test_what_is_no_number_that_fits_is_left_to_python(scorer: Scorer, written: str) -> None:
    assert not is_plain(scorer, prices(written))


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("candidates", {}),
        ("candidates", [{"item_id": "i1"}]),
        ("candidates", None),
        ("candidates", {"item_id": []}),
        ("candidates", {"item_id": "i1"}),
        ("candidates", {"price": [1]}),  # item_id must be given
        ("candidates", {"item_id": ["i1", None]}),
        ("candidates", {"item_id": ["i1", ""]}),
        ("candidates", {"item_id": ["i1"], "price": [1, 2]}),
        ("candidates", {"item_id": ["i1", "i2"], "price": [1]}),
        ("candidates", {"item_id": ["i1"], "tags": [[1], [2]]}),
        ("candidates", {"item_id": ["i1", "i2"], "tags": [[1]]}),
        ("candidates", {"item_id": ["i1"], "tags": [1]}),
        ("candidates", {"item_id": ["i1"], "tags": [[[1]]]}),
        ("candidates", {"item_id": ["i1"], "tags": None}),
        ("candidates", {"item_id": ["i1"], "category": [1.0]}),
        ("candidates", {"item_id": ["i1"], "category": [2**63]}),
        ("candidates", {"item_id": ["i1"], "category": ["1"]}),
        ("candidates", {"item_id": ["i1"], "stranger": [1]}),
        ("candidates", {"item_id": ["i1"], "city": ["Berlin"]}),
        ("candidates", {"item_id": ["i\u00e4"]}),  # is fit to be sent, which Python decides
        ("candidates", {"item_id": ["x" * 1025]}),
        ("candidates", {"item_id": [1]}),
        ("candidates", {"item_id": ["i1"] * 1025}),
        ("user", {"item_id": "i1"}),
        ("user", {"user_id": "x" * 1025}),
        ("user", {"stranger": 1}),
        ("user", {"city": ["Berlin"]}),
        ("user", {"recent_items": "i1"}),
        ("user", {"recent_items": ["i1"], "recent_actions": []}),
        ("user", {"recent_actions": ["buy"]}),
        ("user", []),
        ("top_k", 0),
        ("top_k", -1),
        ("top_k", 1.0),
        ("top_k", "1"),
        ("top_k", None),
        ("order_by", "price"),
        ("order_by", None),
        ("stranger", 1),
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_python(scorer: Scorer, change: str, value: Any) -> None:
    assert is_plain(scorer, dumped())
    assert not is_plain(scorer, dumped(**{change: value}))


@pytest.mark.parametrize(
    ("found", "put"),
    [
        (b'"i1"', b'"i\\u0031"'),
        (b'"i1"', b'"i\n1"'),
        (b'"i1"', b'"i\x001"'),
        (b'"i1"', b'"i1'),
        (b'"i1"', b"'i1'"),
        (b'"zz"', b'"\xff"'),
        (b'"price"', b'"pr\\u0069ce"'),
        (b'"price"', b'"item_id"'),
        (b'"user":', b'"user" '),
        (b'"user":{', b'"user":{},"user":{'),
        (b'"candidates":{', b'"candidates":{"item_id":["i1","i2","i3"]},"candidates":{'),
        (b'"city"', b'"user_id"'),
        (b"[9.9,", b"[9.9,,"),
        (b"[9.9,", b"[,9.9,"),
        (b"[[1,2,", b"[[1,2,]"),
        (b"{", b'{"order_by":"pctr","order_by":"pcvr",'),
        (b"{", b'{"top_k":1,"top_k":2,'),
        (b"{", b"[{"),
        (b"{", b"\xef\xbb\xbf{"),
        (b"{", b"{,"),
        (b"{", b""),
    ],
)
def test_what_is_written_otherwise_is_left_to_python(scorer: Scorer, found: bytes, put: bytes) -> None:
    assert found in dumped()
    assert not is_plain(scorer, dumped().replace(found, put, 1))


@pytest.mark.parametrize("behind", [b"x", b"{}", b"\x00", b",", b"]", b"}"])
def test_nothing_may_follow(scorer: Scorer, behind: bytes) -> None:
    assert not is_plain(scorer, dumped() + behind) and is_plain(scorer, dumped() + b" \n")


def test_any_part_of_a_request_is_no_request(scorer: Scorer) -> None:
    assert not any(is_plain(scorer, dumped(top_k=1)[:end]) for end in range(len(dumped(top_k=1))))


@settings(max_examples=300)
@given(value=requests | st.fixed_dictionaries({"candidates": aligned}))
def test_whatever_is_read_is_what_python_reads(scorer: Scorer, value: Any) -> None:
    is_plain(scorer, json.dumps(value).encode())
    is_plain(scorer, json.dumps(value, ensure_ascii=False).encode(errors="replace"))


@settings(max_examples=1000)
@given(
    at=st.integers(0, len(dumped()) - 1),
    dropped=st.integers(0, 3),
    put=st.binary(max_size=2)
    | st.sampled_from([b'"', b"[", b"]", b"{", b"}", b",", b":", b"null", b"\\", b"0", b"e", b"."]),
)
@example(at=0, dropped=0, put=b"")
def test_a_damaged_request_is_read_as_python_reads_it_or_not_at_all(
    scorer: Scorer, at: int, dropped: int, put: bytes
) -> None:
    is_plain(scorer, dumped()[:at] + put + dumped()[at + dropped :])


def test_the_candidates_of_several_follow_each_other(scorer: Scorer) -> None:
    bodies = [
        dumped(),
        dumped(user={"recent_items": ["i1"], "recent_actions": ["buy"]}),
        dumped(candidates={"item_id": ["i3", "i2"], "tags": [[1, 2, 3], [4]]}),
        dumped(user=None, candidates={"item_id": ["q"]}),
    ]
    plain = [read_request(scorer, Limits(), body) for body in bodies]
    assert all(isinstance(each, PlainRequest) for each in plain)
    check_same(arrays_of(scorer, plain), arrays_of(scorer, [columns_of(scorer, body) for body in bodies]))
    mixed = [plain[0], *(columns_of(scorer, body) for body in bodies[1:])]
    check_same(arrays_of(scorer, mixed), arrays_of(scorer, plain))


def test_sequences_of_too_many_cells_are_refused_as_ever(tmp_path: Path) -> None:
    publish_toy(tmp_path / "toy")
    scorer = Scorer.load(tmp_path / "toy", ScoringSettings(max_cells=800))
    fits, not_so = (
        [read_request(scorer, Limits(), dumped(candidates={"item_id": ["i1"] * rows, "tags": [[1, 2, 3]] * rows}))]
        for rows in (266, 267)
    )
    assert arrays_of(scorer, fits)["tags"].shape == (266, 3)
    with pytest.raises(RequestInvalid, match="267 rows of up to 3 steps are more than 800 values"):
        arrays_of(scorer, not_so)


def test_limits_are_those_of_the_other_way(scorer: Scorer) -> None:
    def plain(**limits: Any) -> bool:
        return isinstance(read_request(scorer, Limits(**limits), dumped()), PlainRequest)

    assert plain(max_candidates=3, max_depth=4, max_body_bytes=len(dumped()))
    for short in ({"max_candidates": 2}, {"max_body_bytes": len(dumped()) - 1}):
        with pytest.raises(RequestInvalid):
            plain(**short)


def test_what_is_looked_at_are_the_columns(scorer: Scorer) -> None:
    seen: list[Any] = []

    class Look:
        def read(self, tables: Callable[[], Any], counts: tuple[int, int], feeds: Feeds) -> None:
            seen.append((tables(), counts))

    watched = scorer.unwatched()
    watched.observer = Look()  # type: ignore[assignment]
    arrays_of(watched, [read_request(watched, Limits(), dumped())] * 2)
    arrays_of(watched, [columns_of(watched, dumped())] * 2)
    assert seen[0] == seen[1] and seen[0][1] == (2, 6)


def reader(*features: Feature, words: dict[str, int] | None = None, max_bytes: int = 8) -> _request.Reader:
    names = _request.Table({f"f{number}": number for number in range(len(features))})
    return _request.Reader(names, features, _request.Table({}), max_bytes)


ROWS = {"": 0, "a": 2, "\u00e9": 3, "\u6771\u4eac": 4, "longer than eight": 5}
OF_WORDS = Feature(1, WORD, False, False, _request.Table(ROWS), 1, 9, 9, 0, 0)


@pytest.mark.parametrize(
    ("word", "row"),
    [
        *(("a", 2), ("b", 1), ("\u00e9", 3), ("\u6771\u4eac", 4), ("longer than eight", 5), ("", 9), ("eight ch", 1)),
        *(("nine char", None), ("\u00e8", None), ("\u6771", None), ("\x7f", 1)),
    ],
)
def test_known_words_have_their_row_and_of_others_only_short_ascii_is_plain(word: str, row: int | None) -> None:
    reads = reader(OF_WORDS)
    found = reads.read(json.dumps({"candidates": {"f0": [word]}}, ensure_ascii=False).encode(), 1)
    assert (found and np.frombuffer(reads.join([found], 1)[0][1][0], np.int64).tolist()) == (row and [row])  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "datatype", "there", "missing"),
    [(INTEGER, "INT64", b"\1" * 8, b"\x09" + b"\0" * 7), (NUMBER, "FP32", b"\0" * 4, b"\0\0\xc0\x7f")],
)
def test_a_feature_that_must_be_given_is_not_taken_without_a_value(
    kind: int, datatype: str, there: bytes, missing: bytes
) -> None:
    for refuses in (False, True):
        reads = reader(OF_WORDS._replace(kind=kind, table=None, refuses=refuses))
        for data, good in ((there, True), (missing, not refuses)):
            tensor = {"name": "f0", "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": len(data)}}
            described = orjson.dumps({"inputs": [tensor]})
            assert (reads.tensors(described + data, len(described), 1) is not None) == good


def test_the_length_of_the_json_lies_within_the_body() -> None:
    for length in (-1, 3):
        with pytest.raises(ValueError, match="within the body"):
            reader(OF_WORDS).tensors(b"{}", length, 1)
    with pytest.raises(TypeError):
        reader(OF_WORDS).tensors(bytearray(b"{}"), 2, 1)  # type: ignore[arg-type]


def test_every_word_of_a_large_vocabulary_is_found_and_no_other() -> None:
    words = {f"w{number}": number for number in range(5000)}
    reads = reader(OF_WORDS._replace(table=_request.Table(words), unknown=-7))
    asked = [f"w{number}" for number in range(6000)]
    found = reads.read(orjson.dumps({"candidates": {"f0": asked}}), 6000)
    assert found is not None
    rows = np.frombuffer(reads.join([found], 0)[0][1][0], np.int64)  # type: ignore[index]
    assert rows.tolist() == [*range(5000), *[-7] * 1000]


def fnv(word: str) -> int:
    found = 0xCBF29CE484222325
    for byte in word.encode():
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return (found ^ found >> 32) % 2**32


def test_words_that_were_chosen_to_collide_are_refused_and_not_waited_for() -> None:
    alike = [word for word in map(str, range(300_000)) if fnv(word) % 1024 == 0]
    assert _request.Table(dict.fromkeys(alike[:200], 1))
    with pytest.raises(ValueError, match="too many words with one hash"):
        _request.Table(dict.fromkeys(alike[:280], 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: _request.Table({"a": -1}),
        lambda: _request.Table({"a": 2**31}),
        lambda: _request.Table({"a": 2**63}),
        lambda: _request.Table({"\ud800": 1}),
        lambda: _request.Table({1: 1}),  # type: ignore[dict-item]
        lambda: _request.Table({"a": "b"}),  # type: ignore[dict-item]
        lambda: _request.Table([("a", 1)]),  # type: ignore[arg-type]
        lambda: reader(OF_WORDS._replace(table=None)),
        lambda: reader(OF_WORDS._replace(kind=NUMBER)),
        lambda: reader(OF_WORDS._replace(kind=4)),
        lambda: reader(OF_WORDS._replace(side=2)),
        lambda: reader(OF_WORDS._replace(side=-1)),
        lambda: reader(OF_WORDS._replace(sequence=True, main=1)),
        lambda: reader(OF_WORDS._replace(sequence=True, main=1), OF_WORDS),
        lambda: reader(OF_WORDS._replace(sequence=True, main=1), OF_WORDS._replace(sequence=True, main=1, side=0)),
        lambda: reader((1, 2, 3)),  # type: ignore[arg-type]
        lambda: reader(OF_WORDS).read("{}", 1),  # type: ignore[arg-type]
        lambda: reader(OF_WORDS).read(b"{}"),  # type: ignore[call-arg]
        lambda: reader(OF_WORDS).read(b"{}", 2**64),
        lambda: reader(OF_WORDS).join([1], 1),  # type: ignore[list-item]
        lambda: reader(OF_WORDS).join([reader(OF_WORDS).read(b'{"candidates":{"f0":["a"]}}', 1)], 1),  # type: ignore[list-item]
    ],
)
def test_what_it_is_not_made_for_is_an_error_and_touches_no_memory(make: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        make()


def test_names_that_are_no_features_are_left_to_python() -> None:
    reads = _request.Reader(_request.Table({"f0": 0, "f1": 1}), (OF_WORDS,), _request.Table({}), 8)
    assert reads.read(b'{"candidates":{"f0":["a"]}}', 1) is not None
    assert reads.read(b'{"user":{"f1":"a"},"candidates":{"f0":["a"]}}', 1) is None


def test_every_kind_on_either_side_alone_or_as_a_sequence() -> None:
    of = OF_WORDS._replace
    kinds = [of(), of(kind=INTEGER, table=None), of(kind=NUMBER, table=None), of(kind=TEXT, table=None)]
    for kind, value, missing in zip(kinds, ("a", 7, 0.5, "t\u00e9xt"), (9, 9, np.nan, ""), strict=True):
        single = reader(kind._replace(side=0), kind)
        found = single.read(orjson.dumps({"user": {"f0": None}, "candidates": {"f1": [value, None]}}), 2)
        assert found is not None
        (users, items), _, _ = single.join([found, found], 0)  # type: ignore[misc]
        there = 2 if kind.kind == WORD else value
        block = {NUMBER: 1, TEXT: 2}.get(kind.kind, 0)
        for side, expected in ((users, [missing] * 2), (items, [there, missing] * 2)):
            np.testing.assert_array_equal(decoded(side[block], kind.kind), expected)
        lists = reader(*(kind._replace(side=side, sequence=True, main=side, most=2) for side in (0, 1)))
        written = {"user": {"f0": [value, value]}, "candidates": {"f1": [[None, value, value, value], []]}}
        one, other = lists.read(orjson.dumps(written), 2), lists.read(b'{"candidates":{"f1":[null]}}', 2)
        assert one is not None and other is not None
        _, ((users_of, user_steps), (items_of, item_steps)), owners = lists.join([one, other], 6)  # type: ignore[misc]
        assert np.frombuffer(owners, np.int64).tolist() == [0, 0, 1]
        assert (user_steps, item_steps) == (2, 2)
        np.testing.assert_array_equal(decoded(users_of, kind.kind), [there, there, missing, missing])
        np.testing.assert_array_equal(decoded(items_of, kind.kind), [there, there, *[missing] * 4])
        assert lists.join([one, other], 5) is None


def decoded(cells: Any, kind: int) -> Any:
    return cells if kind == TEXT else np.frombuffer(cells, np.float32 if kind == NUMBER else np.int64)


def test_no_reference_is_kept_or_dropped(scorer: Scorer) -> None:
    reads = scorer.requests
    assert reads is not None
    bodies = [dumped(), dumped(candidates={"item_id": ["i1", 3]}), dumped(user={"user_id": "\u00e9"}), b"{"]
    held = (*bodies, reads, reads._reader, None, "")

    def grown() -> list[int]:
        """By how much references and memory grow while all is read 200 times."""
        before = [*map(sys.getrefcount, held), sys.getallocatedblocks()]
        for _ in range(200):
            found = [reads.read(body, 1000) for body in bodies]
            assert [each is not None for each in found] == [True, False, True, False]
            reads.arrays([each for each in found if each is not None])
        del found
        after = [*map(sys.getrefcount, held), sys.getallocatedblocks()]
        return [abs(a - b) for a, b in zip(after, before, strict=True)]

    rounds = [grown() for _ in range(5)]  # other threads of this process come and go meanwhile
    assert max(map(min, zip(*rounds, strict=True))) < 100, rounds


def test_without_compiled_code_requests_are_read_by_python(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "_request", None)
    assert request.Requests.of(scorer.users, scorer.candidates, (), {}, ScoringSettings()) is None


def test_a_vocabulary_that_does_not_fit_is_left_to_python(scorer: Scorer) -> None:
    (name, words), *_ = scorer.session.words.items()
    odd = {**scorer.session.words, name: type(words)({**words.rows, "odd": 2**40}, words.unknown, words.missing)}
    assert request.Requests.of(scorer.users, scorer.candidates, (), odd, ScoringSettings()) is None
