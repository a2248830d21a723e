"""Plain values become structs, or one line says where, which key, what was found and what was expected."""

from pathlib import Path
from typing import Any

import pytest

from proxy.config import (
    Admin,
    Algorithm,
    BalanceMethod,
    BalancePreset,
    BalanceQuery,
    ClientCertificates,
    ConfigError,
    Credentials,
    CredentialSource,
    Forwarded,
    HttpVersions,
    KeyPool,
    ListenerTls,
    ModelPrice,
    PoolGroup,
    Route,
    Server,
    Struct,
    TlsVersion,
    UpstreamTls,
)
from proxy.sources import structs, yaml_document


def read(text: str) -> dict[str, Any]:
    return structs.Reader("f.yaml", yaml_document.parse(text, "f.yaml"), Path("/etc/relay")).config()


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def test_nothing_is_nothing() -> None:
    assert read("") == read("# only this\n") == {}


def test_the_short_form_of_a_route_is_its_target() -> None:
    assert read("routes: {/a/: HTTPS://Example.com}") == {"routes": {"/a": Route(target="https://example.com")}}


def test_the_long_form_of_a_route() -> None:
    text = """
    routes:
      /local:
        target: http://127.0.0.1:9001/base
        connect_timeout_s: 5
        idle_timeout_s: null
        preserve_host: false
        forwarded: off
        tls: {server_name: Bücher.example, ca: ca.pem, verify: true}
    """
    route = read(text)["routes"]["/local"]
    tls = UpstreamTls(server_name="xn--bcher-kva.example", ca="/etc/relay/ca.pem")
    assert route == Route(target="http://127.0.0.1:9001/base", connect_timeout_s=5.0, forwarded=Forwarded.OFF, tls=tls)
    assert type(route.connect_timeout_s) is float


def test_server_fields_are_only_those_given() -> None:
    fields = read("server: {host: localhost, http: 2, health_prefix: /x/}")["server"]
    assert fields == {"host": "127.0.0.1", "http": HttpVersions.HTTP2, "health_prefix": "/x"}


@pytest.mark.parametrize("text", ["1.3", "'1.3'", "1.30"])
def test_a_version_of_tls_is_text_with_quotes_or_without(text: str) -> None:
    tls = read(f"tls: {{certificate: a, key: b, client_certificates: optional, min_version: {text}}}")["tls"]
    assert (tls.min_version, tls.client_certificates) == (TlsVersion.TLS_1_3, ClientCertificates.OPTIONAL)


def test_files_are_relative_to_the_document() -> None:
    tls = read("tls: {certificate: certs/a.crt, key: /keys/a.key}")["tls"]
    assert tls == ListenerTls(certificate="/etc/relay/certs/a.crt", key="/keys/a.key")


def test_an_anchor_serves_several_routes() -> None:
    routes = read("routes: {/a: &slow {target: http://a, head_timeout_s: 5}, /b: {<<: *slow, target: http://b}}")[
        "routes"
    ]
    assert routes["/b"] == Route(target="http://b", head_timeout_s=5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sever: {}", "f.yaml:1: sever: unknown key, the nearest known one is server"),
        ("xyz: 1", "f.yaml:1: xyz: unknown key, expected one of server, admin, tls, redis, "),
        ("[1]", "f.yaml: found a list, expected a mapping of keys to values"),
        ("text", "f.yaml: found 'text', expected a mapping of keys to values"),
        ("server:", "f.yaml:1: server: found null, expected a mapping of keys to values"),
        ("server:\n  prot: 1", "f.yaml:2: server.prot: unknown key, the nearest known one is port"),
        ("server: {port: 0}", "f.yaml:1: server.port: found 0, expected an integer from 1 to 65535"),
        ("server: {port: '1'}", "f.yaml:1: server.port: found '1', expected an integer from 1 to 65535"),
        ("server: {port: true}", "f.yaml:1: server.port: found true, expected an integer from 1 to 65535"),
        ("server: {port: 1.5}", "f.yaml:1: server.port: found 1.5, expected an integer from 1 to 65535"),
        (
            "key_pool: {retry_statuses: [429, 200]}",
            "f.yaml:1: key_pool.retry_statuses[1]: found 200, expected an integer from 400 to 599",
        ),
        ("server: {port: [1]}", "f.yaml:1: server.port: found a list, expected an integer from 1 to 65535"),
        ("server: {http: 3}", "f.yaml:1: server.http: found 3, expected one of auto, both, 1, 2"),
        ("server: {access_log: yes}", "f.yaml:1: server.access_log: found 'yes', expected true or false"),
        ("server: {host: example.com}", "f.yaml:1: server.host: found 'example.com', expected an IP address"),
        ("server: {stats_path: x}", "f.yaml:1: server.stats_path: found 'x', expected a path that starts with /"),
        ("server: {health_prefix: x}", "f.yaml:1: server.health_prefix: found 'x', expected a path that starts with /"),
        (
            "server: {tracing: yes}",
            "f.yaml:1: server.tracing: found 'yes', expected a URL that starts with http:// or https://",
        ),
        ("server: {log_level: loud}", "expected one of debug, info, warning, error"),
        ("server: {drain_timeout_s: -1}", "found -1, expected a number from 0 to 31536000"),
        ("server: {header_timeout_s: .nan}", "found nan, expected a number above 0 and up to 31536000"),
        ("server: {body_timeout_s: .inf}", "found inf, expected a number above 0 and up to 31536000 or null"),
        ("server: {body_bytes_max: x}", "expected an integer from 0 to 9007199254740992 or null"),
        ("tls: {certificate: a}", "f.yaml:1: tls.key: missing"),
        ("tls: {certificate: a, key: ''}", "f.yaml:1: tls.key: found '', expected the name of a file"),
        ("tls: yes", "f.yaml:1: tls: found 'yes', expected a mapping of keys to values"),
        ("routes: [/a]", "f.yaml:1: routes: found a list, expected a mapping of keys to values"),
        ("routes:\n  /a:", "f.yaml:2: routes./a: found null, expected a URL or a mapping"),
        ("routes:\n  /a: {}", "f.yaml:2: routes./a.target: missing"),
        ("routes:\n  /a:\n    targt: x", "f.yaml:3: routes./a.targt: unknown key, the nearest known one is target"),
        (
            "routes:\n  /a: ftp://x",
            "f.yaml:2: routes./a.target: found 'ftp://x', expected a URL that starts with http://",
        ),
        ("routes: {/a: {target: 1}}", "f.yaml:1: routes./a.target: found 1, expected text"),
        ("routes: {/a: {target: http://a, via: a b}}", "routes./a.via: found 'a b', expected a name for this relay"),
        ("routes: {/a: {target: http://a, tls: {verify: 1}}}", "routes./a.tls.verify: found 1, expected true or false"),
        ("routes: {/a: {target: http://a, tls: {sni: b}}}", "routes./a.tls.sni: unknown key, expected one of ca,"),
        (
            "routes: {/a: {target: http://a, connect_timeout_s: 0}}",
            "routes./a.connect_timeout_s: found 0, expected a number",
        ),
        ("routes: {a: http://a}", "f.yaml:1: routes.a: not a prefix, expected a path that starts with /"),
        ("routes: {/a b: http://a}", "f.yaml:1: routes./a b: not a prefix, expected a path of plain segments"),
        ("routes:\n  /a: http://a\n  /a/: http://b", "f.yaml:3: routes./a/: the same prefix as /a"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    assert refusal(text).startswith(message) or (not message.startswith("f.yaml") and message in refusal(text))


def test_a_password_in_a_target_is_not_printed() -> None:
    message = refusal("routes: {/a: 'https://user:p@ss@host'}")
    assert message.startswith(
        "f.yaml:1: routes./a.target: found 'https://***@host', expected a URL without a user name"
    )


def test_a_long_value_is_cut() -> None:
    assert len(refusal(f"routes: {{/a: '{'x' * 10_000}'}}")) < 200


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("port", " 8080 ", 8080),
        ("drain_timeout_s", "1.5", 1.5),
        ("drain_timeout_s", "2", 2.0),
        ("body_timeout_s", "null", None),
        ("body_timeout_s", "3", 3.0),
        ("body_bytes_max", "4", 4),
        ("health_prefix", "null", None),
        ("health_prefix", "/x/", "/x"),
        ("stats_path", "/stats/", "/stats"),
        ("stats_path", "null", None),
        ("access_log", "true", True),
        ("access_log", "0", False),
        ("log_level", "WARNING", "warning"),
        ("http", "1", HttpVersions.HTTP1),
        ("host", "::1", "::1"),
    ],
)
def test_from_text(field: str, text: str, value: object) -> None:
    assert structs.from_text(Server, field, structs.Given(text, "environment", "X")) == value


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("port", "http", "an integer from 1 to 65535"),
        ("port", "null", "an integer from 1 to 65535"),
        ("port", "8_000", "an integer from 1 to 65535"),
        ("drain_timeout_s", "nan", "a number from 0 to 31536000"),
        ("body_timeout_s", "0", "a number above 0 and up to 31536000 or null"),
        ("access_log", "on", "true or false"),
        ("log_level", "loud", "one of debug, info, warning, error"),
        ("host", "example.com", "an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost"),
    ],
)
def test_from_text_refused(field: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        structs.from_text(Server, field, structs.Given(text, ".env:3", "PORT"))
    assert str(caught.value) == f".env:3: PORT: found '{text}', expected {expected}"


def test_the_key_pool_and_its_groups() -> None:
    text = """
    key_pool:
      algorithm: least-used
      retry_statuses: [429, 503]
      groups: {main: {name: Main, priority: 1}, spare.2: {}}
    """
    groups = {"main": PoolGroup(name="Main", priority=1), "spare.2": PoolGroup()}
    assert read(text)["key_pool"] == {
        "algorithm": Algorithm.LEAST_USED,
        "retry_statuses": (429, 503),
        "groups": groups,
    }


def test_prices_and_estimates() -> None:
    text = """
    prices:
      version: 2026-11
      models:
        gpt-4o*: {input: 2.5, output: 10, cache_read: 1.25}
        "*": {input: 0.01875, output: 0, cache_read: null}
    estimates: {output_tokens: 8192}
    """
    fields = read(text)
    models = {"gpt-4o*": ModelPrice(input=2.5, output=10, cache_read=1.25), "*": ModelPrice(input=0.01875, output=0)}
    assert fields == {"prices": {"version": "2026-11", "models": models}, "estimates": {"output_tokens": 8192}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{gpt*4: {input: 1, output: 1}}", "gpt*4: not a model, expected the name of a model, such as gpt-4o"),
        ("{gpt: {input: 1}}", "gpt.output: missing"),
        ("{gpt: 1}", "gpt: found 1, expected a mapping of keys to values"),
        ("{gpt: {input: -1, output: 1}}", "gpt.input: found -1, expected a number from 0 to 100000"),
        ("{gpt: {input: .nan, output: 1}}", "gpt.input: found nan, expected a number from 0 to 100000"),
        ("{gpt: {input: 1, output: 100001}}", "gpt.output: found 100001, expected a number from 0 to 100000"),
        ("{gpt: {input: '1', output: 1}}", "gpt.input: found '1', expected a number from 0 to 100000"),
        (
            "{gpt: {input: 1, output: 1, cache_read: 0.12345678901}}",
            "gpt.cache_read: found 0.12345678901, expected a number of 9 decimals at most",
        ),
        ("{gpt: {input: 1, output: 1, cached: 1}}", "gpt.cached: unknown key, the nearest known one is cache_read"),
    ],
)
def test_a_price_that_is_not_exact_or_not_whole_is_refused(text: str, message: str) -> None:
    assert refusal(f"prices: {{models: {text}}}").startswith(f"f.yaml:1: prices.models.{message}")


def test_credentials_and_their_file() -> None:
    fields = read("credentials: {api_key: sk-1, auth_file: auth.json}")["credentials"]
    assert fields == {"api_key": "sk-1", "auth_file": "/etc/relay/auth.json"}


@pytest.mark.parametrize(
    ("field", "normalised"), [("X-Api-Key", "x-api-key"), ("?key", "?key"), ("authorization", "authorization")]
)
def test_a_route_says_where_its_credential_comes_from_and_goes(field: str, normalised: str) -> None:
    text = f"routes: {{/a: {{target: http://a, credential: pool, credential_field: '{field}', pool_groups: [main]}}}}"
    route = read(text)["routes"]["/a"]
    assert (route.credential, route.credential_field) == (CredentialSource.POOL, normalised)
    assert route.pool_groups == ("main",)


BESIDE = "not with credential: client, expected "


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("pool_groups: [main]", f"f.yaml:1: routes./a.pool_groups: {BESIDE}credential: pool or auto"),
        (
            "credential: fixed, pool_groups: [main]",
            "f.yaml:1: routes./a.pool_groups: not with credential: fixed, expected credential: pool or auto",
        ),
        (
            "credential_field: x-key",
            f"f.yaml:1: routes./a.credential_field: {BESIDE}a credential other than the client's own",
        ),
        (
            "credential: pool, credential_field: 'x key'",
            "f.yaml:1: routes./a.credential_field: found 'x key', expected the name of a header field",
        ),
        (
            "credential: pool, credential_field: Content-Length",
            "f.yaml:1: routes./a.credential_field: found 'Content-Length', expected the name of a header field",
        ),
        (
            "credential: pool, credential_field: '?k=1'",
            "f.yaml:1: routes./a.credential_field: found '?k=1', expected ? and the name of a query parameter",
        ),
        (
            "credential: pool, pool_groups: [a b]",
            "f.yaml:1: routes./a.pool_groups: found a list, expected 1 to 64 letters",
        ),
        ("credential: all", "f.yaml:1: routes./a.credential: found 'all', expected one of client, fixed, pool"),
    ],
)
def test_what_a_route_cannot_say_of_credentials(route: str, message: str) -> None:
    assert refusal(f"routes: {{/a: {{target: http://a, {route}}}}}").startswith(message)


@pytest.mark.parametrize(
    ("key_pool", "message"),
    [
        ("{groups: {a b: {}}}", "f.yaml:1: key_pool.groups.a b: not a group, expected 1 to 64 letters"),
        ("{groups: {a: {prio: 1}}}", "f.yaml:1: key_pool.groups.a.prio: unknown key, the nearest known one is prior"),
        ("{groups: {a: 1}}", "f.yaml:1: key_pool.groups.a: found 1, expected a mapping"),
        ("{groups: [a]}", "f.yaml:1: key_pool.groups: found a list, expected a mapping"),
        (
            "{retry_statuses: [200]}",
            "f.yaml:1: key_pool.retry_statuses[0]: found 200, expected an integer from 400 to 599",
        ),
    ],
)
def test_what_a_key_pool_cannot_be(key_pool: str, message: str) -> None:
    assert refusal(f"key_pool: {key_pool}").startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "credentials: {api_key: canary 1}",
        "credentials: {api_key: [canary]}",
        "credentials: {refresh_token: {canary: 1}}",
        "credentials: {refresh_token: canaryä}",
        "admin: {token: {canary: 1}}",
    ],
)
def test_a_secret_that_is_refused_is_not_shown(text: str) -> None:
    message = refusal(text)
    assert "found a secret that is not shown, expected " in message
    assert "canary" not in message


def test_a_number_is_no_secret_and_is_not_shown() -> None:
    assert refusal("credentials: {api_key: 4711}") == (
        "f.yaml:1: credentials.api_key: found a secret that is not shown, expected text or null"
    )


@pytest.mark.parametrize(
    ("struct", "field", "text", "value"),
    [
        (KeyPool, "algorithm", "Least-Used", Algorithm.LEAST_USED),
        (KeyPool, "retry_statuses", "429, 503", (429, 503)),
        (KeyPool, "ban_401", "true", True),
        (Credentials, "api_key", " sk-1 ", "sk-1"),
    ],
)
def test_from_text_of_the_key_pool(struct: type[Struct], field: str, text: str, value: object) -> None:
    assert structs.from_text(struct, field, structs.Given(text, "environment", "X")) == value


@pytest.mark.parametrize(("struct", "field"), [(Credentials, "api_key"), (Credentials, "refresh_token")])
def test_a_secret_in_a_variable_that_is_refused_is_not_shown(struct: type[Struct], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        structs.from_text(struct, field, structs.Given("canary 1", "environment", "X"))
    assert str(caught.value).startswith("environment: X: found a secret that is not shown, expected ASCII text")
    assert structs.from_text(Admin, "token", structs.Given("a b", "environment", "X")) == "a b"


def test_a_balance_query() -> None:
    text = """
    key_pool:
      balance_interval_s: null
      balance_queries:
        factory: {preset: factory, pool_groups: [main]}
        own:
          url: https://x.test/{key}/usage?key={key}
          method: POST
          headers: {X-Key: "{key}"}
          body: {key: "{key}", cached: true}
          used: /data/0/used
          remaining: ""
          scale: 1000
    """
    pool = KeyPool(**read(text)["key_pool"])
    assert pool.balance_interval_s is None
    assert pool.balance_queries["factory"] == BalanceQuery(preset=BalancePreset.FACTORY, pool_groups=("main",))
    assert pool.balance_queries["own"] == BalanceQuery(
        url="https://x.test/{key}/usage?key={key}",
        method=BalanceMethod.POST,
        headers={"x-key": "{key}"},
        body={"key": "{key}", "cached": True},
        used="/data/0/used",
        remaining="",
        scale=1000.0,
    )


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("{}", "found neither preset nor url, expected one of them"),
        ("{url: 'http://x.test', total: /t}", "found neither used nor remaining, expected one of them"),
        ("{preset: factory, used: /u}", "a preset says what is asked, expected only providers and pool_groups beside"),
        ("{preset: nobody}", "found 'nobody', expected one of factory"),
        ("{url: 'http://x.test', used: u}", "found 'u', expected a JSON pointer, such as /data/used"),
        ("{url: 'http://x.test', used: /a~2}", "found '/a~2', expected a JSON pointer"),
        ("{url: 'ftp://x.test', used: /u}", "found 'ftp://x.test', expected a URL that starts with http"),
        ("{url: 'http://{key}.test', used: /u}", "found 'http://{key}.test', expected a host name"),
        ("{url: 'http://a:b@x.test', used: /u}", "found 'http://***@x.test', expected a URL without a user name"),
        ("{url: 'http://x.test/?k={k}', used: /u}", "found 'http://x.test/?k={k}', expected a URL without braces"),
        ("{url: 'http://x.test/#a', used: /u}", "found 'http://x.test/#a', expected a URL in ASCII without spaces"),
        ("{url: 'http://x.test', used: /u, headers: {host: a}}", "found a mapping, expected names of header fields"),
        ('{url: "http://x.test", used: /u, headers: {a: "canary\\n"}}', "found a mapping, expected values in ASCII"),
        ("{url: 'http://x.test', used: /u, headers: {a: 5}}", "found a mapping, expected a mapping from text to text"),
        ("{url: 'http://x.test', used: /u, body: 5}", "found 5, expected a mapping or null"),
        ("{url: 'http://x.test', used: /u, scale: 0}", "found 0, expected a number above 0"),
        ("{url: 'http://x.test', used: /u, method: PUT}", "found 'PUT', expected one of GET, POST"),
    ],
)
def test_a_balance_query_that_cannot_be_used(query: str, says: str) -> None:
    told = refusal(f"key_pool: {{balance_queries: {{own: {query}}}}}")
    assert told.startswith("f.yaml:1: key_pool.balance_queries.own")
    assert says in told
    assert "canary" not in told


def test_the_name_of_a_balance_query() -> None:
    assert refusal("key_pool: {balance_queries: {a b: {preset: factory}}}").startswith(
        "f.yaml:1: key_pool.balance_queries.a b: not a name, expected 1 to 64 letters"
    )


def test_an_upstream_may_keep_its_tls_when_its_last_backend_goes() -> None:
    assert read("upstreams: {api: {tls: {verify: false}}}")["upstreams"]["api"].tls == UpstreamTls(verify=False)
    text = "upstreams: {api: {backends: [http://a.example], tls: {verify: false}}}"
    assert refusal(text) == "f.yaml:1: upstreams.api.tls: no backend is an https URL, expected no tls"
