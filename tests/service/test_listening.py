"""Where the service may listen."""

import socket

import pytest

from contract.errors import AddressUnavailable, SettingInvalid
from service.api.listening import check_exposure, listen, listen_together, reserve
from service.api.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_leave(host: str) -> None:
    check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.com", "localhost.example.com", ""])
def test_an_address_others_can_reach_needs_to_be_asked_for(host: str) -> None:
    with pytest.raises(SettingInvalid, match="--insecure"):
        check_exposure(Settings(host=host))
    check_exposure(Settings(host=host, insecure=True))


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            AddressUnavailable, match=rf"127\.0\.0\.1:{port}: cannot listen here \(Address already in use\)"
        ):
            listen("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_named() -> None:
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(AddressUnavailable, match=host):
            listen(host, 0)


def test_several_sockets_listen_at_one_address_that_nobody_else_may_take() -> None:
    together = listen_together("127.0.0.1", 0, 3)
    ports = {listener.getsockname()[1] for listener in together}
    assert len(ports) == 1
    (port,) = ports
    with pytest.raises(AddressUnavailable, match="Address already in use"):
        listen_together("127.0.0.1", port, 2)
    socket.create_connection(("127.0.0.1", port)).close()
    for listener in together:
        listener.close()


def test_a_port_is_kept_for_those_who_share_it_and_from_all_others() -> None:
    with reserve("127.0.0.1", 0, option="--grpc-port") as kept:
        port = kept.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with listen("127.0.0.1", port, shared=True), pytest.raises(AddressUnavailable, match="--grpc-port"):
            reserve("127.0.0.1", port, option="--grpc-port")
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
