"""Which route the path of a request takes, without a framework.

Knows paths as bytes. Does not know what a route does.
"""

import re
from collections.abc import Collection


class Paths:
    """Which route a path takes. A route is a path, or holds one `{name}` for something that is plain.

    >>> paths = Paths(["/v1/predict", "/v2/models/{name}/infer"])
    >>> paths.route_of(b"/v1/predict"), paths.route_of(b"/v2/models/shop/infer")
    (('/v1/predict', ''), ('/v2/models/{name}/infer', 'shop'))
    >>> paths.route_of(b"/v2/models/shop/versions/1/infer"), paths.route_of(b"/v2/models/a%20b/infer")
    (None, None)
    """

    def __init__(self, routes: Collection[str]) -> None:
        self._whole = {route.encode(): (route, "") for route in routes if "{name}" not in route}
        self._named = {
            route: re.compile(re.escape(route).replace(r"\{name\}", "([A-Za-z0-9._-]+)").encode())
            for route in routes
            if "{name}" in route
        }

    def route_of(self, path: bytes) -> tuple[str, str] | None:
        """The route and the name; None where no route is taken."""
        if path in self._whole:
            return self._whole[path]
        for route, pattern in self._named.items():
            if match := pattern.fullmatch(path):
                return route, match[1].decode()
        return None
