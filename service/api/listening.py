"""Where to listen, and whether that is safe.

Knows addresses and sockets. Does not know what is said on them.
"""

import ipaddress
import socket

from contract.errors import AddressUnavailable, SettingInvalid
from service.api.settings import Settings


def check_exposure(settings: Settings) -> None:
    """Raises: SettingInvalid where other machines could ask without a key, unless that is what was asked for."""
    hosts = {"host": settings.host} | ({} if settings.admin_port is None else {"admin_host": settings.admin_host})
    for name, host in hosts.items():
        if settings.insecure or settings.keys is not None or _is_loopback(host):
            continue
        raise SettingInvalid(
            "other machines can reach this address, and the service asks nobody for a key",
            place=f"{name} {host}",
            remedy="give it --keys, or listen on 127.0.0.1 behind a proxy that asks, or say --insecure",
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int, *, shared: bool = False, option: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes any free one. With `shared`, other sockets may listen there too.

    Raises: AddressUnavailable.
    """
    return _bound(host, port, shared, option, backlog=2048)


def reserve(host: str, port: int, option: str) -> socket.socket:
    """A socket that keeps a port for listeners of this program; it takes no connections itself.

    Raises: AddressUnavailable.
    """
    with _bound(host, port, False, option) as first:  # which no other program may share
        port = first.getsockname()[1]
    return _bound(host, port, True, option)


def _bound(host: str, port: int, shared: bool, option: str, backlog: int | None = None) -> socket.socket:
    place = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        try:
            listener.bind(address)
            if backlog is not None:
                listener.listen(backlog)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise AddressUnavailable(
            f"cannot listen here ({error.strerror})", place=place, remedy=f"stop what does, or choose another {option}"
        ) from None
    return listener


def listen_together(host: str, port: int, count: int) -> list[socket.socket]:
    """So many sockets that listen at one address, each with a queue of its own (SO_REUSEPORT).

    Raises: AddressUnavailable.
    """
    with listen(host, port) as first:  # which no other program may share
        port = first.getsockname()[1]
    return [listen(host, port, shared=True) for _ in range(count)]
