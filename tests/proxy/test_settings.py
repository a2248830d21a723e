"""Five layers, laid over each other: command line, environment, `.env`, YAML, defaults."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from proxy import settings
from proxy.config import (
    Admin,
    Config,
    ConfigError,
    Credentials,
    KeyPool,
    LogLevel,
    PoolGroup,
    QuotaCleanup,
    Retention,
    Route,
    Server,
)
from proxy.sources import structs, yaml_document
from proxy.sources.default_routes import DEFAULT_ROUTES
from proxy.sources.structs import Given

NOTHING: Mapping[str, str] = {}


def refusal(folder: Path, arguments: Mapping[str, str] = NOTHING, environment: Mapping[str, str] = NOTHING) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.load(arguments, environment, folder)
    return str(caught.value)


def read_server(
    folder: Path, arguments: Mapping[str, str] = NOTHING, environment: Mapping[str, str] = NOTHING
) -> Server:
    return settings.load(arguments, environment, folder).server


def test_nothing_at_all_gives_the_defaults_and_the_default_prefixes(tmp_path: Path) -> None:
    config = settings.load({}, {}, tmp_path)
    assert config == Config(routes={prefix: Route(target=target) for prefix, target in DEFAULT_ROUTES.items()})


def test_each_layer_hides_the_ones_below(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("server: {port: 1001, workers: 2, log_level: debug, drain_timeout_s: 5}")
    assert read_server(tmp_path) == Server(port=1001, workers=2, log_level=LogLevel.DEBUG, drain_timeout_s=5)
    (tmp_path / ".env").write_text("PORT=1002\nWORKERS=3\nLOG_LEVEL=error\n")
    assert read_server(tmp_path) == Server(port=1002, workers=3, log_level=LogLevel.ERROR, drain_timeout_s=5)
    environment = {"PORT": "1003", "WORKERS": "4"}
    assert read_server(tmp_path, {}, environment).port == 1003
    arguments = {"port": "1004"}
    assert read_server(tmp_path, arguments, environment) == Server(
        port=1004, workers=4, log_level=LogLevel.ERROR, drain_timeout_s=5
    )


def test_a_file_without_routes_keeps_the_default_prefixes_and_one_with_none_has_none(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("server: {port: 1001}")
    assert len(settings.load({}, {}, tmp_path).routes) == len(DEFAULT_ROUTES)
    (tmp_path / "relaygate.yaml").write_text("routes: {}")
    assert settings.load({}, {}, tmp_path).routes == {}


@pytest.mark.parametrize("field", Server.__struct_fields__)
def test_every_field_of_server_has_a_variable(field: str) -> None:
    assert settings.VARIABLES[f"RELAYGATE_{field.upper()}"] == ("server", field)


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("RELAYGATE_ADMIN_PORT", ("admin", "port")),
        ("ADMIN_TOKEN", ("admin", "token")),
        ("REDIS_URL", ("redis", "url")),
        ("RELAYGATE_REDIS_URL", ("redis", "url")),
        ("DATABASE_URL", ("database", "url")),
        ("RELAYGATE_DATA_DIR", ("", "data_dir")),
    ],
)
def test_fields_of_other_sections_have_variables_too(variable: str, field: tuple[str, str]) -> None:
    assert settings.VARIABLES[variable] == field


def test_every_section_is_read_from_yaml_and_laid_over_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text(
        "admin: {port: 9001}\nredis: {url: redis://a}\ndatabase: {url: postgresql://b}\ndata_dir: lib\n"
    )
    config = settings.load({}, {}, tmp_path)
    assert config.admin == Admin(port=9001)
    assert (config.redis.url, config.database.url) == ("redis://a", "postgresql://b")
    assert config.data_dir == str(tmp_path / "lib")
    environment = {"RELAYGATE_ADMIN_PORT": "9002", "REDIS_URL": "redis://c", "RELAYGATE_DATA_DIR": "/var/lib/r"}
    config = settings.load({}, environment, tmp_path)
    assert (config.admin.port, config.redis.url, config.data_dir) == (9002, "redis://c", "/var/lib/r")


def test_our_own_name_is_stronger_than_the_common_ones(tmp_path: Path) -> None:
    environment = {
        "RELAYGATE_WORKERS": "4",
        "WORKERS": "3",
        "MAX_WORKERS": "2",
        "RELAYGATE_PORT": "1001",
        "PORT": "1002",
    }
    assert read_server(tmp_path, {}, environment) == Server(workers=4, port=1001)
    assert read_server(tmp_path, {}, {"WORKERS": "3", "MAX_WORKERS": "2"}).workers == 3
    assert read_server(tmp_path, {}, {"MAX_WORKERS": "2"}).workers == 2


def test_statistics_are_on_unless_a_variable_switches_them_off(tmp_path: Path) -> None:
    assert read_server(tmp_path).statistics
    assert not read_server(tmp_path, {}, {"ENABLE_STATS": "false"}).statistics
    assert read_server(tmp_path, {}, {"ENABLE_STATS": "false", "RELAYGATE_STATISTICS": "true"}).statistics


def test_what_is_kept_is_read_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("retention: {minute_rows_hours: 6, versions: 10}")
    kept = settings.load({}, {"RELAYGATE_RETENTION_HOUR_ROWS_DAYS": "40"}, tmp_path).retention
    assert kept == Retention(minute_rows_hours=6, hour_rows_days=40, versions=10)
    said = refusal(tmp_path, {}, {"RELAYGATE_RETENTION_DAY_ROWS_DAYS": "30"})
    assert said.endswith("RELAYGATE_RETENTION_DAY_ROWS_DAYS: found '30', expected an integer from 31 to 10000")


def test_a_common_name_in_the_environment_is_stronger_than_ours_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RELAYGATE_PORT=1001")
    assert read_server(tmp_path, {}, {"PORT": "1002"}).port == 1002


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1001")
    assert read_server(tmp_path, {}, {"PORT": " ", "RELAYGATE_WORKERS": ""}) == Server(port=1001)


def test_what_kubernetes_sets_beside_a_service_called_relaygate_is_passed_over(tmp_path: Path) -> None:
    environment = {
        "RELAYGATE_PORT": "tcp://10.0.0.1:8000",
        "RELAYGATE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "RELAYGATE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "RELAYGATE_PORT_8000_TCP_PORT": "8000",
        "RELAYGATE_PORT_8000_TCP_PROTO": "tcp",
        "RELAYGATE_SERVICE_HOST": "10.0.0.1",
        "RELAYGATE_SERVICE_PORT": "8000",
        "RELAYGATE_SERVICE_PORT_HTTP": "8000",
    }
    assert read_server(tmp_path, {}, environment) == Server()


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ({"port": "x"}, {}, "command line: --port: found 'x', expected an integer from 1 to 65535"),
        ({"port": ""}, {}, "command line: --port: found '', expected an integer from 1 to 65535"),
        ({"log_level": "x"}, {}, "command line: --log-level: found 'x', expected one of debug, info, warning, error"),
        ({"port": "1"}, {"PORT": "x"}, "environment: PORT: found 'x', expected an integer from 1 to 65535"),
        ({}, {"MAX_WORKERS": "many"}, "environment: MAX_WORKERS: found 'many', expected an integer from 1 to 1024"),
        ({}, {"ENABLE_STATS": "off"}, "environment: ENABLE_STATS: found 'off', expected true or false"),
        ({}, {"RELAYGATE_ACCESS_LOG": "on"}, "environment: RELAYGATE_ACCESS_LOG: found 'on', expected true or false"),
        (
            {},
            {"RELAYGATE_PROT": "1"},
            "environment: RELAYGATE_PROT: unknown variable, the nearest known one is RELAYGATE_PORT",
        ),
    ],
)
def test_a_bad_value_is_refused_with_its_place_also_where_it_is_hidden(
    tmp_path: Path, arguments: dict[str, str], environment: dict[str, str], message: str
) -> None:
    assert refusal(tmp_path, arguments, environment) == message


def test_a_bad_value_in_dotenv_has_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# the port\nPORT=eighty\n")
    assert refusal(tmp_path) == ".env:2: PORT: found 'eighty', expected an integer from 1 to 65535"
    (tmp_path / ".env").write_text("PORT=80\nthe host\n")
    assert refusal(tmp_path) == ".env:2: not a variable, expected NAME=value"
    (tmp_path / ".env").write_bytes(b"A=\xff")
    assert refusal(tmp_path) == ".env: not UTF-8 text"


def test_dotenv_may_be_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert refusal(tmp_path) == ".env: Is a directory"


def test_the_file_is_named_by_option_or_environment_or_dotenv(tmp_path: Path) -> None:
    for number, name in enumerate(("relaygate.yaml", "d.yaml", "e.yaml", "a.yaml"), 1001):
        (tmp_path / name).write_text(f"server: {{port: {number}}}")
    assert read_server(tmp_path).port == 1001
    (tmp_path / ".env").write_text("RELAYGATE_CONFIG=d.yaml")
    assert read_server(tmp_path).port == 1002
    assert read_server(tmp_path, {}, {"RELAYGATE_CONFIG": "e.yaml"}).port == 1003
    assert read_server(tmp_path, {"config": str(tmp_path / "a.yaml")}, {"RELAYGATE_CONFIG": "e.yaml"}).port == 1004


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path, {"config": "x.yaml"}) == "x.yaml: No such file or directory (named by --config)"
    message = "x.yaml: No such file or directory (named by RELAYGATE_CONFIG)"
    assert refusal(tmp_path, {}, {"RELAYGATE_CONFIG": "x.yaml"}) == message
    (tmp_path / "relaygate.yaml").mkdir()
    assert refusal(tmp_path) == "relaygate.yaml: Is a directory (named by the working directory)"
    (tmp_path / "latin1.yaml").write_bytes(b"# \xfc\n")
    assert refusal(tmp_path, {"config": "latin1.yaml"}) == "latin1.yaml: not UTF-8 text (named by --config)"
    assert "embedded null byte" not in refusal(tmp_path, {"config": "a\0b"})


def test_a_route_that_the_health_check_would_hide(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("routes:\n  /readyz: http://a\n")
    assert refusal(tmp_path) == (
        "relaygate.yaml:2: routes./readyz: the relay answers this path itself, expected another prefix or another "
        "server.health_prefix"
    )
    assert list(settings.load({}, {"RELAYGATE_HEALTH_PREFIX": "/_relay"}, tmp_path).routes) == ["/readyz"]
    assert list(settings.load({}, {"RELAYGATE_HEALTH_PREFIX": "null"}, tmp_path).routes) == ["/readyz"]
    (tmp_path / "relaygate.yaml").write_text(
        "server: {health_prefix: /a/}\nroutes: {/a: http://a, /a/healthz/: http://a}"
    )
    assert refusal(tmp_path).startswith("relaygate.yaml:2: routes./a/healthz: the relay answers this path itself")


def test_a_route_that_the_figures_would_hide(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("server: {stats_path: /a/}\nroutes: {/a: http://a, /a/b: http://a}")
    assert refusal(tmp_path) == (
        "relaygate.yaml:2: routes./a: the relay answers this path itself, expected another prefix or another "
        "server.stats_path"
    )
    assert len(settings.load({}, {"RELAYGATE_STATS_PATH": "/stats"}, tmp_path).routes) == 2
    assert settings.load({}, {"RELAYGATE_STATS_PATH": "null"}, tmp_path).server.stats_path is None
    assert refusal(tmp_path, {}, {"RELAYGATE_STATS_PATH": "/readyz"}) == (
        "server.stats_path: /readyz tells of health, expected another path"
    )


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("{target: http://a, tls: {verify: false}}", "the target is not an https URL, expected no tls"),
        ("{target: https://a, tls: {key: k}}", "a key without its certificate"),
    ],
)
def test_tls_of_a_route_that_makes_no_sense(tmp_path: Path, route: str, message: str) -> None:
    (tmp_path / "relaygate.yaml").write_text(f"routes: {{/a: {route}}}")
    assert refusal(tmp_path) == f"relaygate.yaml:1: routes./a.tls: {message}"


LITERAL = "routes:\n  /a: https://a\n  /b:\n    via: x\n    target: http://127.0.0.1:9001/base\n"
HINT = "(server.allow_private_targets: true or RELAYGATE_ALLOW_PRIVATE_TARGETS=true allows it)"


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            LITERAL,
            "5: routes./b.target: found 'http://127.0.0.1:9001/base', expected a public host, this one is loopback",
        ),
        (
            "routes:\n  /b: https://[FD00:0::1]",
            "2: routes./b.target: found 'https://[fd00::1]', expected a public host, this one is private",
        ),
        (
            "routes:\n\n  /b: http://Metadata.Google.Internal",
            "3: routes./b.target: found 'http://metadata.google.internal', expected a public host, this one is private",
        ),
        (
            "routes: {/b: 'http://app.localhost:80'}",
            "1: routes./b.target: found 'http://app.localhost', expected a public host, this one is loopback",
        ),
    ],
)
def test_a_private_target_is_refused_unless_such_are_allowed(tmp_path: Path, yaml: str, message: str) -> None:
    file = tmp_path / "relaygate.yaml"
    file.write_text(yaml)
    assert refusal(tmp_path) == f"relaygate.yaml:{message} {HINT}"
    allowing = {"RELAYGATE_ALLOW_PRIVATE_TARGETS": "true"}
    assert "/b" in settings.load({}, allowing, tmp_path).routes
    file.write_text(f"server: {{allow_private_targets: true}}\n{yaml}")
    assert "/b" in settings.load({}, {}, tmp_path).routes
    assert "this one is" in refusal(tmp_path, {}, {"RELAYGATE_ALLOW_PRIVATE_TARGETS": "false"})


def test_a_target_of_which_only_dns_can_tell_is_for_the_connection_to_judge(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("routes: {/a: http://metadata, /b: http://localhost.example}")
    assert len(settings.load({}, {}, tmp_path).routes) == 2


def test_tracing_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = {"RELAYGATE_TRACING": "http://127.0.0.1:4318/base"}
    assert read_server(tmp_path, {}, collector).tracing == "http://127.0.0.1:4318/base"
    for package in ("no_such_package", "no_such_package.below"):
        monkeypatch.setattr(settings, "TRACING_PACKAGE", package)
        assert refusal(tmp_path, {}, collector) == (
            f"server.tracing: {package} is not installed, expected what requirements-opentelemetry.lock names"
        )
        assert read_server(tmp_path).tracing is None


def test_grpc_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = {"RELAYGATE_GRPC_ENABLED": "true"}
    assert settings.load({}, enabled, tmp_path).grpc.enabled
    monkeypatch.setattr(settings, "GRPC_PACKAGES", ("grpc", "no_such_package"))
    expected = "grpc.enabled: no_such_package is not installed, expected what requirements-grpc.lock names"
    assert refusal(tmp_path, {}, enabled) == expected
    assert not settings.load({}, {}, tmp_path).grpc.enabled


def test_tls_files_are_looked_for_beside_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    (folder / "certs").mkdir(parents=True)
    (folder / "r.yaml").write_text(
        "tls: {certificate: certs/a.crt, key: certs/a.key, client_ca: certs/ca.pem}\n"
        "routes: {/a: {target: https://a, tls: {ca: certs/ca.pem, certificate: certs/a.crt, key: certs/a.key}}}\n"
    )
    certs = folder / "certs"
    arguments = {"config": "conf/r.yaml"}
    assert refusal(tmp_path, arguments) == f"conf/r.yaml:1: tls.certificate: {certs}/a.crt: No such file or directory"
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(str(certs / "a.crt"))
    pair.private_key_pem.write_to_path(str(certs / "a.key"))
    assert refusal(tmp_path, arguments) == f"conf/r.yaml:1: tls.client_ca: {certs}/ca.pem: No such file or directory"
    authority.cert_pem.write_to_path(str(certs / "ca.pem"))
    config = settings.load(arguments, {}, tmp_path)
    assert config.tls is not None
    assert config.tls.key == str(certs / "a.key")
    authority.issue_cert("localhost").private_key_pem.write_to_path(str(certs / "a.key"))
    assert refusal(tmp_path, arguments) == f"conf/r.yaml:1: tls.key: {certs}/a.key: the key of another certificate"


PORTS = st.none() | st.integers(1, 65535)


@given(yaml=PORTS, dotenv=PORTS, environment=PORTS, option=PORTS)
def test_the_strongest_layer_that_says_something_wins(
    yaml: int | None, dotenv: int | None, environment: int | None, option: int | None
) -> None:
    document = yaml_document.parse("" if yaml is None else f"server: {{port: {yaml}}}", "f.yaml")
    places = ((dotenv, ".env:1"), (environment, "environment"), (option, "command line"))
    layers = [(("server", "port"), Given(str(port), where, "port")) for port, where in places if port is not None]
    config = settings.combine(structs.Reader("f.yaml", document, Path("/")), layers)
    assert config.server.port == next((port for port in (option, environment, dotenv, yaml) if port is not None), 8000)


def test_trusted_proxies_are_networks_in_the_file_and_with_commas_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "relaygate.yaml").write_text("admin: {trusted_proxies: [10.0.0.0/8, '::1']}")
    assert settings.load({}, {}, tmp_path).admin.trusted_proxies == ("10.0.0.0/8", "::1/128")
    environment = {"RELAYGATE_ADMIN_TRUSTED_PROXIES": "192.0.2.1, 10.0.0.0/8"}
    assert settings.load({}, environment, tmp_path).admin.trusted_proxies == ("192.0.2.1/32", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/8", ": found '10.0.0.0/8', expected a list"),
        ("[10.0.0.1/8]", ": found a list, expected networks such as 10.0.0.0/8"),
        ("[proxy.example]", ": found a list, expected networks such as 10.0.0.0/8"),
        ("[7]", "[0]: found 7, expected text"),
    ],
)
def test_what_is_no_list_of_networks_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "relaygate.yaml").write_text(f"admin: {{trusted_proxies: {text}}}")
    with pytest.raises(ConfigError) as caught:
        settings.load({}, {}, tmp_path)
    assert str(caught.value).startswith(f"relaygate.yaml:1: admin.trusted_proxies{expected}")


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("FACTORY_API_KEY", ("credentials", "api_key")),
        ("DROID_REFRESH_KEY", ("credentials", "refresh_token")),
        ("KEY_POOL_ALGORITHM", ("key_pool", "algorithm")),
        ("KEY_POOL_AUTO_BAN_ENABLED", ("key_pool", "auto_ban_enabled")),
        ("KEY_POOL_REQUEST_TIMEOUT_MS", ("key_pool", "request_timeout_ms")),
        ("KEY_POOL_MULTI_TIER_ENABLED", ("key_pool", "multi_tier")),
        ("KEY_POOL_MULTI_TIER_AUTO_FALLBACK", ("key_pool", "auto_fallback")),
        ("RELAYGATE_KEY_POOL_BAN_S", ("key_pool", "ban_s")),
    ],
)
def test_the_key_pool_has_the_reference_s_variables(variable: str, field: tuple[str, str]) -> None:
    assert settings.VARIABLES[variable] == field


def test_groups_are_of_the_file_alone(tmp_path: Path) -> None:
    assert ("key_pool", "groups") not in settings.FIELDS
    (tmp_path / "relaygate.yaml").write_text("key_pool: {ban_402: false, groups: {main: {priority: 1}}}")
    config = settings.load({}, {"KEY_POOL_BAN_402": "true", "FACTORY_API_KEY": "fk-1"}, tmp_path)
    assert config.key_pool == KeyPool(groups={"main": PoolGroup(priority=1)})
    assert config.credentials == Credentials(api_key="fk-1")


def test_the_cleaning_of_the_ledger_has_the_names_of_reference_002(tmp_path: Path) -> None:
    names = {"RETENTION_DAYS": "90", "INTERVAL_HOURS": "12", "ENABLED": "false"}
    kept = settings.load({}, {f"QUOTA_CLEANUP_{name}": value for name, value in names.items()}, tmp_path).quota_cleanup
    assert kept == QuotaCleanup(enabled=False, retention_days=90, interval_hours=12)
    assert settings.load({}, {}, tmp_path).quota_cleanup == QuotaCleanup()
    with pytest.raises(ConfigError, match="QUOTA_CLEANUP_RETENTION_DAYS"):
        settings.load({}, {"QUOTA_CLEANUP_RETENTION_DAYS": "0"}, tmp_path)
