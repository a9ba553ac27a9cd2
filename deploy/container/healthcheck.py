"""Whether the service in this container is ready: exit status 0 or 1. The images' HEALTHCHECK.

Knows /readyz. Does not know where a request would come from: it asks the container's own address.
"""

import http.client
import os
import sys

TIMEOUT_S = 3


def main() -> int:
    """Ask, once."""
    host = os.environ.get("FULLFUNNEL_HOST", "127.0.0.1")
    port = int(os.environ.get("FULLFUNNEL_PORT", "8000"))
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except OSError as error:
        sys.stderr.write(f"nobody answers at {address}:{port}: {error}\n")
        return 1
    finally:
        connection.close()
    sys.stdout.write(f"/readyz answers {status}\n")
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
