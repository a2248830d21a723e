"""Which upstream a key is tested with, how it is asked, and what its answer says."""

import pytest

from admin.rules.key_calls import Finding, call, finding, route_for, to_backends
from proxy.config import Backend, CredentialSource, Dialect, Route, Upstream, UpstreamTls

POOL = CredentialSource.POOL
OPENAI = Route(target="https://api.openai.com/v1", credential=POOL)
ANTHROPIC = Route(target="https://api.anthropic.com", credential=POOL)
GEMINI = Route(target="https://generativelanguage.googleapis.com", credential=POOL)
OTHER = Route(target="https://llm.example/base/", credential=POOL)
SECRET = "sk-canary-0123456789"


@pytest.mark.parametrize(
    ("route", "url", "fields"),
    [
        (OPENAI, "https://api.openai.com/v1/models", {"authorization": f"Bearer {SECRET}"}),
        (
            ANTHROPIC,
            "https://api.anthropic.com/v1/models",
            {"x-api-key": SECRET, "anthropic-version": "2023-06-01"},
        ),
        (GEMINI, "https://generativelanguage.googleapis.com/v1beta/models", {"x-goog-api-key": SECRET}),
        (OTHER, "https://llm.example/base/v1/models", {"authorization": f"Bearer {SECRET}"}),
        (
            Route(target="http://h.example/v2beta", credential=POOL, credential_field="x-key", dialect=Dialect.GEMINI),
            "http://h.example/v2beta/models",
            {"x-key": SECRET},
        ),
        (
            Route(target="http://h.example", credential=POOL, credential_field="?key"),
            f"http://h.example/v1/models?key={SECRET}",
            {},
        ),
    ],
)
def test_the_call_is_the_list_of_models_with_the_key_in_its_place(
    route: Route, url: str, fields: dict[str, str]
) -> None:
    made = call(route, SECRET)
    assert made.url == url
    assert dict(made.fields) == {"accept": "application/json", **fields}
    assert made.tls == (UpstreamTls() if url.startswith("https") else None)
    assert SECRET not in repr(made)


def test_a_key_in_a_query_is_quoted() -> None:
    route = Route(target="http://h.example", credential=POOL, credential_field="?key")
    assert call(route, "a&b=c+d").url == "http://h.example/v1/models?key=a%26b%3Dc%2Bd"


@pytest.mark.parametrize(
    ("group", "provider", "expected"),
    [
        ("main", "openai", OPENAI),
        ("main", "anthropic", ANTHROPIC),
        ("main", "gemini", ANTHROPIC),  # the first by prefix
        ("main", "unknown", ANTHROPIC),
    ],
)
def test_the_route_is_one_of_the_providers_or_the_first(group: str, provider: str, expected: Route) -> None:
    routes = {"/a": ANTHROPIC, "/o": OPENAI, "/own": Route(target="https://own.example")}
    assert route_for(routes, group, provider) == expected


def test_a_route_may_leave_out_a_group() -> None:
    routes = {"/a": Route(target="https://a.example", credential=POOL, pool_groups=("main",))}
    assert route_for(routes, "main", "openai") is not None
    assert route_for(routes, "spare", "openai") is None
    assert route_for({"/f": Route(target="https://a.example")}, "main", "openai") is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Finding.GOOD),
        (402, Finding.BANNED),
        (401, Finding.DISABLED),
        (400, Finding.DISABLED),
        (403, Finding.DISABLED),
        (404, Finding.NOTHING),
        (405, Finding.NOTHING),
        (302, Finding.NOTHING),
        (429, Finding.AGAIN),
        (408, Finding.AGAIN),
        (500, Finding.AGAIN),
        (529, Finding.AGAIN),
    ],
)
def test_what_a_status_says_of_the_key(status: int, expected: Finding) -> None:
    assert finding(status) is expected


def test_a_route_of_an_upstream_is_asked_at_the_backend_that_is_used_first() -> None:
    away = Backend(url="https://away.example", active=False)
    leaving = Backend(url="https://leaving.example", draining=True)
    spare = Backend(url="https://spare.example", priority=1)
    first = Backend(url="https://api.anthropic.com")
    tls = UpstreamTls(verify=False)
    upstreams = {
        "api": Upstream(backends=(away, leaving, spare, first), tls=tls),
        "none": Upstream(backends=(away, leaving)),
    }
    routes = {
        "/a": Route(upstream="api", base="/v1", credential=POOL),
        "/b": OPENAI,
        "/c": Route(upstream="none", credential=POOL),
        "/d": Route(upstream="gone", credential=POOL),
    }
    found = to_backends(routes, upstreams)
    assert found == {
        "/a": Route(target="https://api.anthropic.com/v1", credential=POOL, tls=tls),
        "/b": OPENAI,
    }
    made = call(found["/a"], SECRET)
    assert (made.url, made.tls) == ("https://api.anthropic.com/v1/models", tls)
    assert made.fields["x-api-key"] == SECRET
