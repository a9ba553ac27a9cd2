"""Paths as the shortcut finds them: whole ones, and those with a plain name in them."""

import pytest

from service.api.paths import Paths

INFER = "/v2/models/{name}/infer"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (b"/v1/predict", ("/v1/predict", "")),
        (b"/v2/models/shop-1.a_B/infer", (INFER, "shop-1.a_B")),
        (b"/v1/predict/", None),
        (b"/v1/predict?x=1", None),
        (b"/V1/predict", None),
        (b"/v1%2Fpredict", None),
        (b"/v2/models//infer", None),
        (b"/v2/models/a/b/infer", None),
        (b"/v2/models/a%20b/infer", None),
        (b"/v2/models/{name}/infer", None),
        (b"/v2/models/\xc3\xbc/infer", None),
        (b"/v2/models/a/infer\n", None),
        (b"", None),
    ],
)
def test_a_path_takes_the_route_that_it_is_and_no_other(path: bytes, route: tuple[str, str] | None) -> None:
    assert Paths(["/v1/predict", INFER]).route_of(path) == route


def test_what_stands_beside_the_name_is_taken_as_it_is() -> None:
    assert Paths(["/a.b/{name}"]).route_of(b"/aXb/c") is None
    assert Paths(["/a.b/{name}"]).route_of(b"/a.b/c") == ("/a.b/{name}", "c")
