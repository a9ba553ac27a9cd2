"""What is said on stderr: well-formed, without what clients sent, and never waited for."""

import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.api.logs import MAX_BYTES, Dropping, JsonLine, Line
from tests.service.process import ServiceProcess

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "canary-7f3a"


@pytest.fixture
def pipe() -> Iterator[tuple[int, logging.Logger, Dropping]]:
    reading, writing = os.pipe()
    handler = Dropping(writing)
    handler.setFormatter(JsonLine())
    logger = logging.Logger("fullfunnel")
    logger.addHandler(handler)
    yield reading, logger, handler
    os.close(reading)
    os.close(writing)


def test_a_json_line_has_its_fields_and_no_message_of_an_exception(pipe: tuple[int, logging.Logger, Dropping]) -> None:
    reading, logger, _ = pipe
    try:
        raise KeyError(SECRET)
    except KeyError:
        logger.exception("request %s failed", "r1", extra={"request_id": "r1", "traceparent": None})
    line = os.read(reading, 65536).decode()
    found = json.loads(line)
    assert line.count("\n") == 1 and SECRET not in line
    assert {**found, "time": 0, "exception": 0, "pid": 0} == {
        "time": 0, "level": "ERROR", "logger": "fullfunnel", "message": "request r1 failed", "request_id": "r1",
        "exception": 0, "pid": 0,
    }  # fmt: skip
    assert found["exception"].endswith("KeyError") and "test_logs.py" in found["exception"]


def test_a_text_line_names_the_fields_that_its_message_does_not() -> None:
    record = logging.LogRecord("fullfunnel.access", logging.INFO, "", 0, "answered", None, None)
    record.__dict__ |= {"route": "/v1/predict", "outcome": "ok", "duration_ms": 1.5}
    assert Line().format(record) == "INFO fullfunnel.access: answered route=/v1/predict outcome=ok duration_ms=1.5"
    try:
        raise ValueError(SECRET)
    except ValueError:
        record.exc_info = sys.exc_info()
    plain = logging.Formatter()
    assert SECRET not in Line().format(record) and "ValueError" in Line().format(record)
    assert SECRET in plain.format(record), "one formatter changes what another writes"
    assert SECRET not in Line().format(record)


def test_a_full_pipe_loses_lines_and_the_next_one_says_how_many(pipe: tuple[int, logging.Logger, Dropping]) -> None:
    reading, logger, handler = pipe
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4 * MAX_BYTES)
    for _ in range(1000):  # would wait for ever, if it did
        logger.info("x" * 500)
    lost = handler._dropped
    assert lost > 900
    os.read(reading, 65536)
    logger.info("again")
    lines = [json.loads(line) for line in os.read(reading, 65536).splitlines()]
    assert [line["message"] for line in lines] == [f"{lost} lines were lost, because nobody read them in time", "again"]


def test_a_long_line_is_cut(pipe: tuple[int, logging.Logger, Dropping]) -> None:
    reading, logger, _ = pipe
    logger.info("x" * 100_000)
    assert len(os.read(reading, 2**20)) == MAX_BYTES


@pytest.mark.parametrize("body", [{"candidates": {"item_id": ["i1"]}}, {"candidates": {"item_id": [1]}}])
@pytest.mark.parametrize("inline_ms", [5, 0])
def test_ids_come_back_with_the_answer_and_stand_in_the_access_log(toy: Path, body: object, inline_ms: int) -> None:
    headers = {"x-request-id": "r-1", "traceparent": TRACE}
    with ServiceProcess(toy, "--log-format", "json", access_log=True, inline_ms=inline_ms) as service:
        answer = service.client.post("/v1/predict", json=body, headers=headers)
        assert answer.headers["traceparent"] == TRACE and answer.headers["x-request-id"] == "r-1"
        broken = service.client.post("/v1/predict", json=body, headers={"traceparent": TRACE.upper()})
        assert "traceparent" not in broken.headers
        service._wait_for(rb'answered".*\n.*(answered)".*\n')
        lines = [json.loads(line) for line in service.log.splitlines()]
    first = next(line for line in lines if line["logger"] == "fullfunnel.access")
    assert (first["request_id"], first["traceparent"], first["route"]) == ("r-1", TRACE, "/v1/predict")
    assert first["outcome"] == ("ok" if answer.status_code == 200 else "value-invalid") and first["duration_ms"] > 0


def test_nothing_that_was_sent_is_logged(toy: Path) -> None:
    requests = [
        {"user": {"user_id": SECRET, "city": SECRET}, "candidates": {"item_id": [SECRET]}},
        {"user": {"age": SECRET}, "candidates": {"item_id": ["i1"]}},
        {SECRET: 1},
        {"candidates": {SECRET: [1], "item_id": ["i1"]}},
    ]
    with ServiceProcess(toy, "--log-format", "json", access_log=True) as service:
        for body in requests:
            service.client.post("/v1/predict", json=body)
        service.client.get(f"/{SECRET}")
        service.client.post("/v1/predict", content=b'{"' + SECRET.encode())
        service.terminate()
        assert service.process.wait(30) == 0
        assert service.process.stderr is not None
        said = service.log + service.process.stderr.read()
    assert said.count(b'"answered"') == len(requests) + 2 and SECRET.encode() not in said
