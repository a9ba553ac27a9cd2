"""Settings from the environment and above it."""

import pytest

from contract.errors import SettingInvalid
from service.api.settings import Limits, Settings


def test_defaults_are_safe() -> None:
    settings = Settings.read()
    assert (settings.host, settings.insecure, settings.provider, settings.intra_op_threads) == (
        "127.0.0.1",
        False,
        "cpu",
        1,
    )
    limits = settings.limits
    assert limits.max_body_bytes == 2 * 2**20
    assert (limits.max_candidates, limits.max_requests, limits.max_depth) == (1024, 64, 32)
    assert (limits.max_head_bytes, limits.max_headers, limits.receive_timeout_s) == (16 * 1024, 64, 10)


def test_the_environment_sets_settings_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLFUNNEL_PORT", "9000")
    monkeypatch.setenv("FULLFUNNEL_MAX_CANDIDATES", "7")
    assert Settings.read().port == 9000
    assert Settings.read().limits.max_candidates == 7


def test_what_is_given_stands_above_the_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLFUNNEL_PORT", "9000")
    assert Settings.read(port=1234).port == 1234
    assert Settings.read(port=None).port == 9000


def test_an_impossible_setting_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingInvalid, match="FULLFUNNEL_PORT"):
        Settings.read(port=70_000)
    monkeypatch.setenv("FULLFUNNEL_MAX_HEADERS", "many")
    with pytest.raises(SettingInvalid, match="FULLFUNNEL_MAX_HEADERS"):
        Settings.read()


def test_every_limit_says_what_it_limits() -> None:
    assert all(field.description for field in Limits.model_fields.values())


def test_the_limits_reach_the_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLFUNNEL_MAX_STRING_BYTES", "5")
    scoring = Settings.read(provider="auto", intra_op_threads=2).scoring
    assert (scoring.max_string_bytes, scoring.provider, scoring.intra_op_threads) == (5, "auto", 2)
