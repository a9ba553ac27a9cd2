"""The gRPC server: codes, limits, typed contents, and coming and going with HTTP."""

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc as grpcio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.errors import SettingInvalid
from service.api.lifecycle import Lifecycle
from service.api.listening import listen
from service.api.predictions import Predictions
from service.api.problems import KINDS
from service.api.serving import serve
from service.api.settings import Settings
from service.api.v2 import rpc
from service.api.v2.inference import infer
from service.reading import Reading
from service.scoring.scorer import Scorer
from tests.service.api.v2.test_inference import read
from tests.service.api.v2.test_tensors import packed
from tests.service.process import PATIENCE_S, ServiceProcess

ADDRESS = "/inference.GRPCInferenceService/{}"


@contextmanager
def stub_of(service: ServiceProcess, **options: Any) -> Iterator[Any]:
    with grpcio.insecure_channel(f"127.0.0.1:{service.grpc_port}", **options) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def stub(service: ServiceProcess) -> Iterator[Any]:
    with stub_of(service) as made:
        yield made


def request(*tensors: tuple[str, str, list[int]], **fields: Any) -> Any:
    inputs = [service_pb2.ModelInferRequest.InferInputTensor(name=n, datatype=d, shape=s) for n, d, s in tensors]
    return service_pb2.ModelInferRequest(**{"model_name": "toy", "inputs": inputs, **fields})


def one_item() -> Any:
    return request(("item_id", "BYTES", [1]), raw_input_contents=[packed(b"i1")])


@contextmanager
def refused(code: str, text: str) -> Iterator[None]:
    with pytest.raises(grpcio.RpcError) as caught:
        yield
    assert caught.value.code().name == code, caught.value.details()
    assert re.search(text, caught.value.details()), caught.value.details()


def test_typed_contents_are_taken_like_raw_ones(stub: Any, scorer: Scorer) -> None:
    asked = request(
        ("item_id", "BYTES", [2]),
        ("category", "INT16", [2]),
        ("price", "FP64", [2]),
        ("tags", "UINT8", [2, 2]),
        ("city", "BYTES", [1]),
        ("age", "FP32", [1]),
        ("row_user", "INT64", [2]),
    )
    asked.inputs[0].contents.bytes_contents.extend([b"i1", "ü".encode()])
    asked.inputs[1].contents.int_contents.extend([2, -9])
    asked.inputs[2].contents.fp64_contents.extend([7.5, float("nan")])
    asked.inputs[3].contents.uint_contents.extend([1, 2, 3, 1])
    asked.inputs[4].contents.bytes_contents.append(b"Berlin")
    asked.inputs[5].contents.fp32_contents.append(44)
    asked.inputs[6].contents.int64_contents.extend([0, 0])
    answer = stub.ModelInfer(asked)
    candidates = {"item_id": ["i1", "ü"], "category": [2, -9], "price": [7.5, None], "tags": [[1, 2], [3, 1]]}
    expected = scorer.score({"city": ["Berlin"], "age": [44]}, candidates)
    assert [output.name for output in answer.outputs] == list(expected)
    for output, content in zip(answer.outputs, answer.raw_output_contents, strict=True):
        assert list(output.shape) == [2]
        np.testing.assert_allclose(np.frombuffer(content, "<f4"), expected[output.name], atol=1e-7)


def test_what_comes_raw_is_read_as_it_is_over_http(stub: Any, scorer: Scorer) -> None:
    answer = stub.ModelInfer(one_item())
    expected = infer(scorer, read(scorer, {"item_id": ("BYTES", [1], packed(b"i1"))}))
    assert [np.frombuffer(c, "<f4").tolist() for c in answer.raw_output_contents] == (
        [values.tolist() for values in expected.values()]
    )


def shared_memory(asked: Any) -> None:
    asked.inputs[0].parameters["shared_memory_region"].string_param = "x"


def same_output_again_and_again(asked: Any) -> None:
    for _ in range(1000):
        asked.outputs.add(name="pctr")


def typed_too(asked: Any) -> None:
    asked.inputs[0].contents.bytes_contents.append(b"i1")


def typed_only_not_utf8(asked: Any) -> None:
    asked.ClearField("raw_input_contents")
    asked.inputs[0].contents.bytes_contents.append(b"\xff")


def typed_in_the_wrong_field(asked: Any) -> None:
    asked.ClearField("raw_input_contents")
    asked.inputs[0].contents.int64_contents.append(1)


REFUSED: list[tuple[Callable[[Any], Any], str, str]] = [
    (lambda asked: asked.raw_input_contents.append(b""), "INVALID_ARGUMENT", "has 2 members where there are 1 inputs"),
    (lambda asked: asked.inputs.add(name="price", datatype="FP32", shape=[1]), "INVALID_ARGUMENT", "has 1 members"),
    (lambda asked: asked.inputs[0].shape.append(1), "INVALID_ARGUMENT", "has 2 axes"),
    (lambda asked: asked.inputs[0].shape.__setitem__(0, -1), "INVALID_ARGUMENT", "whole numbers from 0 on"),
    (lambda asked: asked.inputs[0].shape.__setitem__(0, 2**62), "INVALID_ARGUMENT", "more than 8192"),
    (lambda asked: asked.inputs[0].shape.__setitem__(0, 2), "INVALID_ARGUMENT", "holds 6 bytes"),
    (same_output_again_and_again, "INVALID_ARGUMENT", "asked for twice"),
    (lambda asked: asked.outputs.add(name="x"), "INVALID_ARGUMENT", "outputs.x"),
    (lambda asked: asked.outputs.add(name="pctr").parameters["classification"], "INVALID_ARGUMENT", "extension"),
    (shared_memory, "INVALID_ARGUMENT", "extension"),
    (typed_too, "INVALID_ARGUMENT", "sent twice, raw and typed"),
    (typed_only_not_utf8, "INVALID_ARGUMENT", "not UTF-8"),
    (typed_in_the_wrong_field, "INVALID_ARGUMENT", "holds 0 values"),
    (lambda asked: setattr(asked, "model_name", "other"), "NOT_FOUND", "ask for toy"),
    (lambda asked: setattr(asked, "model_version", "2"), "NOT_FOUND", "ask for 1"),
    (lambda asked: setattr(asked, "id", "x" * 5000), "INVALID_ARGUMENT", "id: is longer"),
]


@pytest.mark.parametrize(("change", "code", "text"), REFUSED)
def test_a_wrong_request_gets_a_code_and_a_sentence(
    stub: Any, change: Callable[[Any], Any], code: str, text: str
) -> None:
    asked = one_item()
    change(asked)
    with refused(code, text):
        stub.ModelInfer(asked)


def test_the_request_the_wrong_ones_are_made_of_is_answered(stub: Any) -> None:
    assert len(stub.ModelInfer(one_item()).raw_output_contents) == 3


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig"])
def test_bytes_that_are_no_message_are_refused(service: ServiceProcess, method: str) -> None:
    with grpcio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        call = channel.unary_unary(ADDRESS.format(method))
        with refused("INVALID_ARGUMENT", "is not the message of this method"):
            call(b"\xff\xff\xff")


def test_methods_that_are_not_there_are_said_to_be_so(stub: Any) -> None:
    with refused("UNIMPLEMENTED", ""):
        stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())


def test_a_compressed_message_is_refused_because_nothing_bounds_what_it_grows_to(service: ServiceProcess) -> None:
    asked = one_item()
    asked.parameters["padding"].string_param = "x" * 100_000
    with stub_of(service, compression=grpcio.Compression.Gzip) as stub, refused("UNIMPLEMENTED", "[Cc]ompress"):
        stub.ModelInfer(asked)


def test_every_answer_has_an_id(stub: Any) -> None:
    _, call = stub.ServerLive.with_call(service_pb2.ServerLiveRequest())
    assert re.fullmatch("[0-9a-f]{16}", dict(call.trailing_metadata())["x-request-id"])


def test_limits_hold_over_grpc(toy: Path) -> None:
    limits = {"max_body_bytes": 2000, "max_buffered_bytes": 1000}
    with ServiceProcess(toy, "--grpc-port", "0", **limits) as service, stub_of(service) as stub:
        asked = one_item()
        asked.parameters["padding"].string_param = "x" * 1500
        with refused("UNAVAILABLE", "too many bodies"):
            stub.ModelInfer(asked)
        asked.parameters["padding"].string_param = "x" * 3000
        with refused("RESOURCE_EXHAUSTED", "larger than max"):
            stub.ModelInfer(asked)
        asked.parameters["padding"].string_param = "x" * 500
        for _ in range(3):  # what was answered or refused is no longer held
            stub.ModelInfer(asked)


def test_a_request_that_does_not_arrive_is_not_waited_for_without_end(toy: Path) -> None:
    speaking = threading.Event()

    def never() -> Iterator[bytes]:
        speaking.wait(PATIENCE_S)
        yield b""

    with (
        ServiceProcess(toy, "--grpc-port", "0", receive_timeout_s=0.5, max_concurrency=1) as service,
        grpcio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel,
    ):
        silent = channel.stream_unary(ADDRESS.format("ModelInfer"))
        for call in [silent.future(never()) for _ in range(3)]:
            with refused("DEADLINE_EXCEEDED", "did not arrive in time"):
                call.result(PATIENCE_S)
        speaking.set()
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert len(stub.ModelInfer(one_item()).raw_output_contents) == 3


def test_every_status_an_error_can_have_has_a_code() -> None:
    assert {kind.status for kind in KINDS if kind.error is not None} <= set(rpc.CODES)


def speak(load: Callable[[], Any], caplog: pytest.LogCaptureFixture, talk: Callable[[Any, Lifecycle], Any]) -> None:
    """Talk to a server in this process, on one event loop with its client."""

    async def both() -> None:
        settings = Settings(grpc_port=0)
        lifecycle = Lifecycle(settings, load)
        with caplog.at_level(logging.INFO, "fullfunnel"):
            server = await rpc.start(settings, lifecycle, Predictions(settings, lifecycle))
        port = re.findall(r"grpc://127\.0\.0\.1:(\d+)", caplog.text)[-1]
        try:
            async with grpcio.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await talk(service_pb2_grpc.GRPCInferenceServiceStub(channel), lifecycle)
        finally:
            await server.stop(0)
            lifecycle.threads.shutdown()

    asyncio.run(both())


def test_before_the_model_is_loaded_and_while_draining_it_is_not_ready(
    scorer: Scorer, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(stub: Any, lifecycle: Lifecycle) -> None:
        assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
        assert not (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
        with refused("UNAVAILABLE", "no model has been loaded yet"):
            await stub.ModelInfer(one_item())
        await lifecycle.start()
        assert (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
        assert (await stub.ModelReady(service_pb2.ModelReadyRequest(name="toy"))).ready
        lifecycle.draining = True
        assert not (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
        assert not (await stub.ModelReady(service_pb2.ModelReadyRequest(name="toy"))).ready
        assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
        await stub.ModelInfer(one_item())
        with ExitStack() as places:
            for _ in range(64):
                places.enter_context(lifecycle.prediction())
            with refused("UNAVAILABLE", "too many predictions"):
                await stub.ModelInfer(one_item())
            assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
        await stub.ModelInfer(one_item())

    speak(lambda: scorer, caplog, talk)


def test_a_fault_of_the_service_is_logged_and_says_nothing_of_the_inside(
    scorer: Scorer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(scorer, "scores", broken)

    async def talk(stub: Any, lifecycle: Lifecycle) -> None:
        await lifecycle.start()
        with refused("INTERNAL", r"^The service failed\.$"):
            await stub.ModelInfer(one_item())

    speak(lambda: scorer, caplog, talk)
    assert "secret" in caplog.text


def test_a_public_address_is_refused_with_a_grpc_port_as_without() -> None:
    with pytest.raises(SettingInvalid, match="--insecure"):
        serve(Reading(Path("nowhere")), Settings(host="0.0.0.0", port=0, grpc_port=0))


def test_it_listens_on_the_host_of_http_and_nowhere_else(service: ServiceProcess) -> None:
    with socket.socket() as probe:
        probe.settimeout(PATIENCE_S)
        assert probe.connect_ex(("127.0.0.2", service.grpc_port)) != 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", service.grpc_port)) == 0


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_in_use_ends_the_process_with_one_message(toy: Path, shared: bool, processes: str) -> None:
    with listen("127.0.0.1", 0, shared=shared) as taken:
        port = str(taken.getsockname()[1])
        options = ["--port", "0", "--grpc-port", port, "--workers", processes]
        command = [sys.executable, "-m", "service", str(toy), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: cannot listen here" in done.stderr
    assert "Remedy: stop what does, or choose another --grpc-port" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_turns_ready_false_answers_on_and_ends_in_order(toy: Path) -> None:
    with ServiceProcess(toy, "--grpc-port", "0", "--drain-delay-s", "1") as service, stub_of(service) as stub:
        stub.ModelInfer(one_item())
        service.client.close()
        service.terminate()
        give_up = time.monotonic() + PATIENCE_S
        while stub.ServerReady(service_pb2.ServerReadyRequest()).ready:
            assert time.monotonic() < give_up
        assert len(stub.ModelInfer(one_item()).raw_output_contents) == 3
        assert service.process.wait(PATIENCE_S) == 0
        with pytest.raises(grpcio.RpcError):
            stub.ServerLive(service_pb2.ServerLiveRequest())


def test_workers_answer_on_one_port_and_are_replaced(toy: Path) -> None:
    with ServiceProcess(toy, "--grpc-port", "0", "--workers", "2", "--drain-delay-s", "0") as service:
        service.client.close()
        first = listening_on_grpc(service, 2)
        assert len(set(first)) == 1
        answer_ten_times(service)
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
        for times, worker in enumerate(children.read_text().split(), start=3):
            os.kill(int(worker), signal.SIGKILL)
            assert set(listening_on_grpc(service, times)) == set(first)
        answer_ten_times(service)  # of the workers that began none is left
        service.terminate()
        assert service.process.wait(PATIENCE_S) == 0


def listening_on_grpc(service: ServiceProcess, times: int) -> list[bytes]:
    """The ports, once workers have said so often that they listen."""
    line = rb"listening on grpc://127\.0\.0\.1:(\d+)"
    service._wait_for(rb"(?s)(" + rb".*?".join([line.replace(b"(", b"(?:")] * times) + rb")")
    return re.findall(line, service.log)


def answer_ten_times(service: ServiceProcess) -> None:
    """Each time over a connection of its own, and so by either worker."""
    for _ in range(10):
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpcio.insecure_channel(f"127.0.0.1:{service.grpc_port}", options) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            ready = service_pb2.ServerReadyRequest()
            while not stub.ServerReady(ready, wait_for_ready=True, timeout=PATIENCE_S).ready:
                time.sleep(0.05)
            assert len(stub.ModelInfer(one_item()).raw_output_contents) == 3


def test_without_a_port_grpc_is_not_even_loaded(toy: Path, service: ServiceProcess) -> None:
    def maps(running: ServiceProcess) -> str:
        return Path(f"/proc/{running.process.pid}/maps").read_text()

    with ServiceProcess(toy) as plain:
        assert "onnxruntime" in maps(plain)
        assert "cygrpc" not in maps(plain)
    assert "cygrpc" in maps(service)
