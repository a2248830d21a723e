"""Who may use the admin API."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from admin.answers import Refusal
from admin.auth import Authentication, SecureCookies, refuse_to_start
from admin.rules import tokens
from admin.sessions import LIFETIME_S
from proxy.config import ConfigError
from proxy.rules.attempts import PER_ADDRESS
from tests.admin.api import AUTHORIZED, TOKEN, Api, Client, serving
from tests.admin.memory import Memory

CHOSEN = "a word that somebody chose"
CHOSEN_HASH = tokens.digest(CHOSEN, b"\x07" * tokens.SALT_BYTES)


def status(client: Client, **headers: str) -> int:
    return client.get(
        "/api/versions", headers={name.replace("_", "-"): value for name, value in headers.items()}
    ).status_code


@contextmanager
def logged_in(memory: Memory, **options: Any) -> Iterator[Client]:
    with serving(memory, **options) as client:
        assert client.post("/api/admin/login", json={"token": TOKEN}).status_code == 200
        yield client


# ---- the token ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer   {TOKEN} "},
        {"x_admin_key": TOKEN},
        {"authorization": "Basic YTpi", "x_admin_key": TOKEN},
    ],
)
def test_the_token_opens_the_api_in_either_field(api: Api, headers: dict[str, str]) -> None:
    assert status(api.client, **headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": TOKEN},
        {"authorization": "Basic YTpi"},
        {"x_admin_key": ""},
        {"x_admin_key": "é"},
        {"x_admin_key": TOKEN.lower()},
        {"cookie": "relaygate="},
        {"cookie": f"relaygate={TOKEN}"},
        {"authorization": "Bearer wrong", "x_admin_key": TOKEN},
    ],
)
def test_anything_else_does_not(api: Api, headers: dict[str, str]) -> None:
    answer = api.client.get(
        "/api/versions", headers={name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    )
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json().keys() == {"success", "error", "message"}
    assert answer.json()["error"] == "unauthorized"


@pytest.mark.parametrize(
    "path", ["/api/mappings", "/api/mappings/x", "/api/versions", "/api/versions/1", "/api/actions"]
)
def test_every_endpoint_asks(api: Api, path: str) -> None:
    assert api.client.get(path).status_code == 401


def test_without_a_token_nobody_gets_in() -> None:
    with serving(Memory(), token_hash=None) as client:
        assert status(client) == status(client, **AUTHORIZED) == status(client, cookie="relaygate=x") == 503
        answer = client.post("/api/admin/login", json={"token": TOKEN})
        assert (answer.status_code, answer.json()["error"]) == (503, "not_configured")
        assert client.get("/health").status_code == 200


def test_a_chosen_token_is_looked_at_slowly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = tokens.matches

    def counted(token: str, kept: str) -> bool:
        asked.append(token)
        return real(token, kept)

    monkeypatch.setattr(tokens, "matches", counted)
    with serving(Memory(), token_hash=CHOSEN_HASH) as client:
        for _ in range(5):
            assert status(client, x_admin_key=CHOSEN) == 200
        assert asked == [CHOSEN]
        assert status(client, x_admin_key="wrong") == 401
        assert status(client, x_admin_key=CHOSEN) == 200
        assert asked == [CHOSEN, "wrong"]


def test_a_long_text_is_not_hashed() -> None:
    with serving(Memory(), token_hash=CHOSEN_HASH) as client:
        assert status(client, x_admin_key="x" * 20_000) == 401


# ---- attempts -------------------------------------------------------------------------------------------------------


def test_wrong_tokens_are_counted_wherever_they_come(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Memory(), token_hash=CHOSEN_HASH) as client:
        for _ in range(PER_ADDRESS // 2):
            assert status(client, x_admin_key="x" * 2000) == 401
            assert client.post("/api/login", json={"password": "wrong"}).status_code == 401
        answer = client.post("/api/admin/login", json={"token": CHOSEN})
        assert answer.status_code == 429
        assert answer.json()["error"] == "too_many_attempts"
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert status(client, x_admin_key=CHOSEN) == 429
    assert caplog.messages == ["a wrong admin token from testclient"] * PER_ADDRESS


def test_an_owner_whose_token_cannot_be_guessed_is_not_locked_out(api: Api) -> None:
    for _ in range(PER_ADDRESS):
        assert status(api.client, x_admin_key="wrong") == 401
    assert status(api.client, x_admin_key="wrong") == 429
    assert status(api.client, x_admin_key=TOKEN) == 200


def test_a_login_resets_the_count(api: Api) -> None:
    for _ in range(PER_ADDRESS - 1):
        assert status(api.client, x_admin_key="wrong") == 401
    assert api.client.post("/api/admin/login", json={"token": TOKEN}).status_code == 200
    api.client.cookies.clear()
    for _ in range(PER_ADDRESS - 1):
        assert status(api.client, x_admin_key="wrong") == 401


def test_attempts_made_at_once_are_counted_one_by_one() -> None:
    async def scenario() -> list[int]:
        authentication = Authentication(Memory().settings, CHOSEN_HASH, SecureCookies.AS_REQUESTED, now_s=lambda: 0.0)
        tried = (authentication.log_in("x" * 2000, "192.0.2.1") for _ in range(30))
        found = await asyncio.gather(*tried, return_exceptions=True)
        return [one.status for one in found if isinstance(one, Refusal)]

    statuses = asyncio.run(scenario())
    assert (statuses.count(401), statuses.count(429)) == (PER_ADDRESS, 20)


# ---- sessions -------------------------------------------------------------------------------------------------------


def test_a_session_opens_the_api_until_its_logout() -> None:
    memory = Memory()
    with logged_in(memory) as client:
        (cookie,) = list(client.cookies.jar)
        assert status(client) == 200
        kept = f"{cookie.name}={cookie.value}"
        answer = client.post("/api/admin/logout")
        assert answer.status_code == 200
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert status(client) == 401
        assert status(client, cookie=kept) == 401
    assert cookie.value is not None
    assert not any(cookie.value in text for text in (*memory.settings.values, *memory.settings.values.values()))


def test_the_cookie_is_for_this_host_and_out_of_reach_of_scripts() -> None:
    with serving(Memory()) as client:
        cookie = client.post("/api/login", json={"password": TOKEN}).headers["set-cookie"]
    name, *attributes = cookie.split("; ")
    assert name.startswith("relaygate=")
    assert attributes == ["Path=/", f"Max-Age={LIFETIME_S}", "HttpOnly", "SameSite=Strict"]


@pytest.mark.parametrize(
    "options",
    [{"base_url": "https://admin.test"}, {"secure_cookies": SecureCookies.ALWAYS}],
    ids=["over TLS", "behind what ends TLS"],
)
def test_where_there_is_tls_the_cookie_is_for_it_alone(options: dict[str, Any]) -> None:
    with serving(Memory(), **options) as client:
        cookie = client.post("/api/login", json={"password": TOKEN}).headers["set-cookie"]
        assert cookie.startswith("__Host-relaygate=")
        assert cookie.endswith("; Secure")
        value = cookie.partition(";")[0]
        client.cookies.clear()
        assert status(client, cookie=value) == 200
        assert status(client, cookie=value.removeprefix("__Host-")) == 401


# ---- other origins --------------------------------------------------------------------------------------------------

OTHERS = [{"origin": "https://evil.test"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}]


@pytest.mark.parametrize("headers", OTHERS, ids=str)
def test_a_page_of_another_origin_cannot_use_the_cookie(headers: dict[str, str]) -> None:
    memory = Memory()
    with logged_in(memory) as client:
        body = {"prefix": "/x", "target": "https://api.test"}
        answer = client.post("/api/mappings", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
        assert client.post("/api/admin/logout", headers=headers).status_code == 403
        assert not memory.routes.stored
        assert client.post("/api/mappings", json=body, headers={"origin": "http://127.0.0.1:8001"}).status_code == 201


@pytest.mark.parametrize("headers", OTHERS, ids=str)
def test_nor_log_somebody_in(api: Api, headers: dict[str, str]) -> None:
    assert api.client.post("/api/admin/login", json={"token": TOKEN}, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", OTHERS, ids=str)
def test_a_token_in_a_field_needs_no_origin(api: Api, headers: dict[str, str]) -> None:
    body = {"prefix": "/x", "target": "https://api.test"}
    assert api.ask("POST", "/api/mappings", body, headers).status_code == 201


def test_with_a_cookie_a_body_has_to_be_json() -> None:
    with logged_in(Memory()) as client:
        body = b'{"prefix": "/x", "target": "https://api.test"}'
        for content_type in ("text/plain", "application/x-www-form-urlencoded"):
            answer = client.post("/api/mappings", content=body, headers={"content-type": content_type})
            assert answer.status_code == 415
        answer = client.post("/api/mappings", content=body, headers={**AUTHORIZED, "content-type": "text/plain"})
        assert answer.status_code == 201


# ---- the start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_an_api_that_others_reach_needs_a_token(host: str) -> None:
    for token in (None, ""):
        with pytest.raises(ConfigError, match=f"^admin.host: {host}: not a loopback address, expected ADMIN_TOKEN"):
            refuse_to_start(host, token)
    refuse_to_start(host, "token")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_loopback_it_may_start_without(host: str) -> None:
    refuse_to_start(host, None)


# ---- behind proxies -------------------------------------------------------------------------------------------------

PROXY = "10.0.0.1"


def tried_from(api_peer: str, *forwarded_for: str, trusted: tuple[str, ...] = ("10.0.0.0/8",)) -> list[str]:
    """The addresses in the log of actions of logins, one with each value of `X-Forwarded-For`."""
    memory = Memory()
    with serving(memory, peer=api_peer, trusted_proxies=trusted) as client:
        for value in forwarded_for:
            answer = client.post("/api/admin/login", json={"token": TOKEN}, headers={"x-forwarded-for": value})
            assert answer.status_code == 200
    return [one.address for one in memory.actions.actions]


def test_behind_a_trusted_proxy_the_clients_own_address_is_recorded() -> None:
    assert tried_from(PROXY, "203.0.113.5", "127.0.0.1, 203.0.113.6") == ["203.0.113.5", "203.0.113.6"]


def test_nobody_else_is_believed() -> None:
    assert tried_from("198.51.100.7", "203.0.113.5") == ["198.51.100.7"]
    assert tried_from(PROXY, "203.0.113.5", trusted=()) == [PROXY]


def test_each_client_behind_a_trusted_proxy_has_attempts_of_its_own_and_cannot_invent_others() -> None:
    with serving(Memory(), peer=PROXY, trusted_proxies=["10.0.0.0/8"], token_hash=CHOSEN_HASH) as client:

        def log_in(token: str, forwarded_for: str) -> int:
            fields = {"x-forwarded-for": forwarded_for}
            return client.post("/api/admin/login", json={"token": token}, headers=fields).status_code

        tries = [log_in("wrong", f"192.0.2.{number}, 203.0.113.5") for number in range(PER_ADDRESS + 1)]
        assert tries == [401] * PER_ADDRESS + [429]
        assert log_in(CHOSEN, "203.0.113.5") == 429
        assert log_in(CHOSEN, "203.0.113.6") == 200
