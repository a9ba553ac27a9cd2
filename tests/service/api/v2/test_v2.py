"""Triton's clients, unchanged, against a running service: the scores of /v1, over every transport."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from contract.features import INT64_MISSING
from tests.service.process import ServiceProcess

NAME, OUTPUTS = "toy", ("pctr", "pcvr", "pctcvr")
STRINGS, INTEGERS, NUMBERS = "BYTES", "INT64", "FP32"
DTYPES: dict[str, Any] = {STRINGS: np.object_, INTEGERS: np.int64, NUMBERS: np.float32}
Tensors = dict[str, tuple[str, list[Any]]]
Scores = dict[str, NDArray[np.float32]]

# a request of /v1, and the same in tensors
ONE_USER: tuple[dict[str, Any], Tensors] = (
    {
        "requests": [
            {
                "user": {"user_id": "u1", "city": "Shanghai", "age": 31},
                "candidates": {"item_id": ["i1", "i2", "new"], "price": [9.9, 120.0, None], "category": [1, 9, None]},
            }
        ]
    },
    {
        "user_id": (STRINGS, ["u1"]),
        "city": (STRINGS, ["Shanghai"]),
        "age": (NUMBERS, [31]),
        "item_id": (STRINGS, ["i1", "i2", "new"]),
        "price": (NUMBERS, [9.9, 120.0, np.nan]),
        "category": (INTEGERS, [1, 9, INT64_MISSING]),
    },
)
SEQUENCES: tuple[dict[str, Any], Tensors] = (
    {
        "requests": [
            {
                "user": {"recent_items": ["i4", None, "i2", "i1"], "recent_actions": ["view", "buy", None, "buy"]},
                "candidates": {"item_id": ["i1", "i2"], "tags": [[1, 2, 3], [3]]},
            }
        ]
    },
    {
        "recent_items": (STRINGS, [["i4", "", "i2", "i1"]]),
        "recent_actions": (STRINGS, [["view", "buy", "", "buy"]]),
        "item_id": (STRINGS, ["i1", "i2"]),
        "tags": (INTEGERS, [[1, 2, 3], [INT64_MISSING, 3, INT64_MISSING]]),
    },
)
SEVERAL_USERS: tuple[dict[str, Any], Tensors] = (
    {
        "requests": [
            {
                "user": {"city": "Berlin", "recent_items": ["i5"], "recent_actions": ["buy"]},
                "candidates": [{"item_id": "i1"}],
            },
            {"user": {"age": 7}, "candidates": {"item_id": ["i2", "ü", "i6"]}},
            {"user": {"city": "東京"}, "candidates": {"item_id": ["i3"]}},
        ]
    },
    {
        "city": (STRINGS, ["Berlin", "", "東京"]),
        "age": (NUMBERS, [np.nan, 7, np.nan]),
        "recent_items": (STRINGS, [["i5", ""], ["", ""], ["", ""]]),
        "recent_actions": (STRINGS, [["buy", ""], ["", ""], ["", ""]]),
        "item_id": (STRINGS, ["i1", "i2", "ü", "i6", "i3"]),
        "row_user": (INTEGERS, [0, 1, 1, 1, 2]),
    },
)
REQUESTS = {"one user": ONE_USER, "sequences": SEQUENCES, "several users": SEVERAL_USERS}


def inputs(module: Any, tensors: Tensors, **options: Any) -> list[Any]:
    made = []
    for name, (datatype, values) in tensors.items():
        array = np.array(values, dtype=DTYPES[datatype])
        made.append(module.InferInput(name, list(array.shape), datatype))
        made[-1].set_data_from_numpy(array, **options)
    return made


def outputs(module: Any, names: tuple[str, ...], **options: Any) -> list[Any]:
    return [module.InferRequestedOutput(name, **options) for name in names]


def as_numpy(result: Any) -> Scores:
    return {name: result.as_numpy(name) for name in OUTPUTS if result.as_numpy(name) is not None}


def over_http_json(http: Any, grpc: Any, tensors: Tensors) -> Scores:
    module = tritonclient.http
    values = {name: tensor for name, tensor in tensors.items() if tensor[0] != NUMBERS}
    numbers = {name: tensor for name, tensor in tensors.items() if tensor[0] == NUMBERS}  # JSON holds no NaN
    sent = inputs(module, values, binary_data=False) + inputs(module, numbers, binary_data=True)
    return as_numpy(http.infer("toy", sent, outputs=outputs(module, OUTPUTS, binary_data=False)))


def over_http_binary(http: Any, grpc: Any, tensors: Tensors) -> Scores:
    return as_numpy(http.infer("toy", inputs(tritonclient.http, tensors), model_version="1"))


def over_http_binary_into_json(http: Any, grpc: Any, tensors: Tensors) -> Scores:
    wanted = outputs(tritonclient.http, OUTPUTS, binary_data=False)
    return as_numpy(http.infer("toy", inputs(tritonclient.http, tensors), outputs=wanted))


def over_grpc(http: Any, grpc: Any, tensors: Tensors) -> Scores:
    return as_numpy(grpc.infer("toy", inputs(tritonclient.grpc, tensors)))


TRANSPORTS = (over_http_json, over_http_binary, over_http_binary_into_json, over_grpc)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_every_transport_gives_the_scores_of_v1(
    service: ServiceProcess, http: Any, grpc: Any, transport: Callable[..., Scores], request_name: str
) -> None:
    body, tensors = REQUESTS[request_name]
    results = service.client.post("/v1/predict:batch", json=body).json()["results"]
    found = transport(http, grpc, tensors)
    assert tuple(found) == OUTPUTS
    for name, values in found.items():
        expected = np.concatenate([result[name] for result in results])
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)
        assert np.ptp(values) > 1e-3  # rows differ: had they been mixed up, it would show


def test_json_alone_gives_the_scores_of_v1(service: ServiceProcess, http: Any) -> None:
    """No tensor is raw, in neither direction."""
    tensors: Tensors = {"item_id": (STRINGS, ["i1", "i2"]), "price": (NUMBERS, [1.5, 2.5]), "age": (NUMBERS, [50])}
    sent = inputs(tritonclient.http, tensors, binary_data=False)
    result = http.infer("toy", sent, outputs=outputs(tritonclient.http, ("pcvr",), binary_data=False))
    body = {"user": {"age": 50}, "candidates": {"item_id": ["i1", "i2"], "price": [1.5, 2.5]}}
    expected = service.client.post("/v1/predict", json=body).json()["pcvr"]
    np.testing.assert_allclose(result.as_numpy("pcvr"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_id_comes_back_and_only_what_is_asked_for_is_answered(http: Any, grpc: Any, transport: str) -> None:
    client, module = {"http": (http, tritonclient.http), "grpc": (grpc, tritonclient.grpc)}[transport]
    wanted = outputs(module, ("pctcvr", "pctr"))
    result = client.infer("toy", inputs(module, ONE_USER[1]), outputs=wanted, request_id="request-7")
    answered = result.get_response()
    if transport == "grpc":
        assert (answered.id, answered.model_name, answered.model_version) == ("request-7", "toy", "1")
        assert [output.name for output in answered.outputs] == ["pctcvr", "pctr"]
    else:
        assert (answered["id"], answered["model_name"], answered["model_version"]) == ("request-7", "toy", "1")
        assert [output["name"] for output in answered["outputs"]] == ["pctcvr", "pctr"]
    assert result.as_numpy("pctr").shape == (3,)
    assert result.as_numpy("pcvr") is None


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_clients_find_the_server_and_the_model_ready(http: Any, grpc: Any, transport: str) -> None:
    client = {"http": http, "grpc": grpc}[transport]
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("toy", "1")


def test_another_model_or_version_is_not_ready(http: Any, grpc: Any) -> None:
    assert not http.is_model_ready("other")
    assert not http.is_model_ready("toy", "2")
    for name, version in (("other", ""), ("toy", "2")):
        with pytest.raises(InferenceServerException) as refused:
            grpc.is_model_ready(name, version)
        assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_both_transports_tell_the_same_about_server_and_model(http: Any, grpc: Any) -> None:
    assert http.get_server_metadata() == grpc.get_server_metadata(as_json=True)
    told = http.get_model_metadata("toy")
    assert told["platform"] == "onnxruntime_onnx"
    assert {entry["name"]: (entry["datatype"], entry["shape"]) for entry in told["inputs"]} == {
        "user_id": ("BYTES", [-1]),
        "city": ("BYTES", [-1]),
        "age": ("FP32", [-1]),
        "recent_items": ("BYTES", [-1, -1]),
        "recent_actions": ("BYTES", [-1, -1]),
        "item_id": ("BYTES", [-1]),
        "category": ("INT64", [-1]),
        "price": ("FP32", [-1]),
        "tags": ("INT64", [-1, -1]),
        "row_user": ("INT64", [-1]),
    }
    assert told["outputs"] == [{"name": name, "datatype": "FP32", "shape": [-1]} for name in OUTPUTS]
    spoken = grpc.get_model_metadata("toy", "1")
    assert (spoken.name, list(spoken.versions), spoken.platform) == ("toy", ["1"], told["platform"])
    for kind in ("inputs", "outputs"):
        listed = [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in getattr(spoken, kind)]
        assert listed == told[kind]


def test_the_configuration_is_read_by_the_clients(http: Any, grpc: Any) -> None:
    told, spoken = http.get_model_config("toy"), grpc.get_model_config("toy").config
    assert (told["name"], told["platform"], told["backend"], told["max_batch_size"]) == (
        (spoken.name, spoken.platform, spoken.backend, spoken.max_batch_size)
    )
    assert {entry["name"] for entry in told["input"] if not entry["optional"]} == {"item_id"}
    kinds = {9: "TYPE_INT64", 11: "TYPE_FP32", 13: "TYPE_STRING"}
    for listed, found in ((told["input"], spoken.input), (told["output"], spoken.output)):
        assert [(e["name"], e["data_type"], e["dims"]) for e in listed] == (
            [(e.name, kinds[e.data_type], list(e.dims)) for e in found]
        )
    assert [e["optional"] for e in told["input"]] == [e.optional for e in spoken.input]


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_clients_show_what_was_wrong(http: Any, grpc: Any, transport: str) -> None:
    client, module = {"http": (http, tritonclient.http), "grpc": (grpc, tritonclient.grpc)}[transport]
    with pytest.raises(InferenceServerException, match=r"inputs\.citty: .*did you mean 'city'") as refused:
        client.infer("toy", inputs(module, {"citty": (STRINGS, ["Berlin"]), "item_id": (STRINGS, ["i1"])}))
    assert refused.value.status() in ("422", "StatusCode.INVALID_ARGUMENT")
    with pytest.raises(InferenceServerException, match="must be given, because there are 2 users"):
        client.infer("toy", inputs(module, {"age": (NUMBERS, [1, 2]), "item_id": (STRINGS, ["i1"])}))


def raw_body(binary: bool) -> tuple[bytes, dict[str, str]]:
    items = [b"i1", b"new"]
    raw = b"".join(len(item).to_bytes(4, "little") + item for item in items)
    asked: dict[str, Any] = {"id": "7", "inputs": [{"name": "item_id", "datatype": "BYTES", "shape": [2]}]}
    asked["inputs"][0]["parameters"] = {"binary_data_size": len(raw)}
    asked["parameters"] = {"binary_data_output": binary}
    asked["outputs"] = [{"name": "pctcvr"}, {"name": "pctr"}]
    head = json.dumps(asked).encode()
    return head + raw, {"inference-header-content-length": str(len(head))}


@pytest.mark.parametrize("binary", [False, True])
def test_the_short_way_answers_as_the_application_does(service: ServiceProcess, binary: bool) -> None:
    body, headers = raw_body(binary)
    path = f"/v2/models/{NAME}/infer"
    short = service.client.post(path, content=body, headers=headers)
    long = service.client.post(path, content=body, headers={**headers, "connection": "close"})
    assert short.status_code == long.status_code == 200 and short.content == long.content
    for name in ("content-type", "inference-header-content-length"):
        assert short.headers.get(name) == long.headers.get(name)
    assert ("inference-header-content-length" in short.headers) == binary


@pytest.mark.parametrize(
    ("name", "headers", "status"),
    [("other", {}, 404), (NAME, {"inference-header-content-length": "9999"}, 400), (NAME, {"accept": "text/csv"}, 200)],
)
def test_what_cannot_take_the_short_way_is_still_answered(
    service: ServiceProcess, name: str, headers: dict[str, str], status: int
) -> None:
    body, usual = raw_body(True)
    answer = service.client.post(f"/v2/models/{name}/infer", content=body, headers={**usual, **headers})
    assert answer.status_code == status and ("error" in answer.text) == (status != 200)


def test_several_at_once_share_a_run_and_each_gets_its_own(service: ServiceProcess) -> None:
    requests = [tensors for _, tensors in REQUESTS.values()] * 4
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{service.port}", concurrency=8) as client:
        alone = [client.infer(NAME, inputs(tritonclient.http, tensors)) for tensors in requests[: len(REQUESTS)]]
        begun = [client.async_infer(NAME, inputs(tritonclient.http, tensors)) for tensors in requests]
        for index, pending in enumerate(begun):
            answer, expected = pending.get_result(), alone[index % len(REQUESTS)]
            for output in OUTPUTS:
                np.testing.assert_allclose(answer.as_numpy(output), expected.as_numpy(output), atol=1e-6)
