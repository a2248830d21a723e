"""Settings in layers: command line, environment, `.env`, YAML, defaults, the first that says something wins.

`load` does the reading of files; what it reads is made a `Config` by pure functions (`proxy/sources/`). Each layer is
checked whole, also where a higher one hides it, so that a mistake does not wait for the day when it shows. All that is
refused is a ConfigError.
"""

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

from proxy.config import Config, ConfigError, Grpc, ListenerTls, Route, Upstream, UpstreamTls
from proxy.rules.addresses import target_refusal
from proxy.rules.own_paths import hidden_by, own_paths
from proxy.sources import dotenv, structs, tls_files, yaml_document
from proxy.sources.default_routes import DEFAULT_ROUTES
from proxy.sources.structs import Given

DEFAULT_FILE = "relaygate.yaml"
FILE_VARIABLE = "RELAYGATE_CONFIG"
Field = tuple[str, str]
"""A section's name (empty for what stands at the top) and a field's."""

# Names that the references and hosting platforms use, weakest first; our own, RELAYGATE_..., is stronger than them all.
ALIASES: dict[Field, tuple[str, ...]] = {
    ("server", "port"): ("PORT",),
    ("server", "host"): ("HOST",),
    ("server", "workers"): ("MAX_WORKERS", "WORKERS"),
    ("server", "log_level"): ("LOG_LEVEL",),
    ("server", "statistics"): ("ENABLE_STATS",),
    ("admin", "token"): ("ADMIN_PASSWORD", "ADMIN_ACCESS_KEY", "ADMIN_TOKEN"),
    ("redis", "url"): ("API_PROXY_REDIS_URL", "REDIS_URL"),
    ("database", "url"): ("DATABASE_URL",),
    ("access", "api_key"): ("API_ACCESS_KEY",),
    ("credentials", "api_key"): ("FACTORY_API_KEY",),
    ("credentials", "refresh_token"): ("DROID_REFRESH_KEY",),
    **{
        ("key_pool", name): (f"KEY_POOL_{name.upper()}",)
        for name in (
            "algorithm",
            "retry_enabled",
            "retry_max",
            "retry_delay_ms",
            "auto_ban_enabled",
            "error_threshold",
            "ban_402",
            "ban_401",
            "concurrent_limit",
            "request_timeout_ms",
        )
    },
    **{
        ("quota_cleanup", name): (f"QUOTA_CLEANUP_{name.upper()}",)
        for name in ("enabled", "retention_days", "interval_hours")
    },
    ("key_pool", "multi_tier"): ("KEY_POOL_MULTI_TIER_ENABLED",),
    ("key_pool", "auto_fallback"): ("KEY_POOL_MULTI_TIER_AUTO_FALLBACK",),
}
# What a text cannot say.
NOT_IN_VARIABLES: frozenset[Field] = frozenset(
    {("key_pool", "groups"), ("key_pool", "balance_queries"), ("prices", "models")}
)


def own_variable(field: Field) -> str:
    """Our name of a field's variable: RELAYGATE_PORT, RELAYGATE_ADMIN_PORT."""
    section, name = field
    return "_".join(["RELAYGATE", *([section] if section not in {"", "server"} else []), name]).upper()


FIELDS: tuple[Field, ...] = (
    *(
        (section, name)
        for section, struct in structs.SECTIONS.items()
        for name in struct.__struct_fields__
        if (section, name) not in NOT_IN_VARIABLES
    ),
    ("", "data_dir"),
)
VARIABLES: dict[str, Field] = {
    variable: field for field in FIELDS for variable in (*ALIASES.get(field, ()), own_variable(field))
}
TRACING_PACKAGE = "opentelemetry.exporter.otlp.proto.http"
TRACING_EXTRA = "what requirements-opentelemetry.lock names"
GRPC_PACKAGES = ("grpc", "grpc_health", "grpc_reflection")
GRPC_EXTRA = "what requirements-grpc.lock names"
# Kubernetes sets RELAYGATE_PORT=tcp://10.0.0.1:8000 in every pod beside a service that is called relaygate.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


class _File(NamedTuple):
    """The YAML file to read, and who named it."""

    name: str
    named_by: str


def load(arguments: Mapping[str, str], environment: Mapping[str, str], directory: Path) -> Config:
    """The configuration that all layers give. `arguments` are options by name (`port`, `log_level`), as typed in.

    `directory` is the working directory: `.env` and `relaygate.yaml` are looked for there. ConfigError on anything
    wrong.
    """
    variables = _read_dotenv(directory)
    given = [
        *_from_variables({name: Given(v.value, f".env:{v.line}", name) for name, v in variables.items()}),
        *_from_variables({name: Given(value, "environment", name) for name, value in environment.items()}),
        *_from_arguments(arguments),
    ]
    in_dotenv = variables.get(FILE_VARIABLE)
    candidates = (
        (arguments.get("config"), "--config"),
        (environment.get(FILE_VARIABLE), FILE_VARIABLE),
        (in_dotenv and in_dotenv.value, f"{FILE_VARIABLE} in .env"),
    )
    file = _chosen_file(candidates, directory)
    if file is None:
        reader = structs.Reader("", yaml_document.Document(None, {}), directory)
    else:
        text = _read_text(directory / file.name, file)
        reader = structs.Reader(
            file.name, yaml_document.parse(text, file.name), (directory / file.name).parent.absolute()
        )
    config = combine(reader, given)
    _check_tls_files(config, reader)
    _check_tracing(config)
    _check_grpc(config)
    return config


def combine(reader: structs.Reader, given: list[tuple[Field, Given]]) -> Config:
    """The document that `reader` reads, with `given` (weakest first) laid over it. Does no I/O."""
    fields = reader.config()
    sections: dict[str, dict[str, Any]] = {name: fields.pop(name, {}) for name in structs.SECTIONS}
    for (section, name), value in given:
        into, struct = (sections[section], structs.SECTIONS[section]) if section else (fields, Config)
        into[name] = structs.from_text(struct, name, value)
    if "routes" not in fields:
        fields["routes"] = {prefix: Route(target=target) for prefix, target in DEFAULT_ROUTES.items()}
    for name, values in sections.items():
        fields[name] = structs.SECTIONS[name](**values)
    config = Config(**fields)
    _refuse_hidden_routes(config, reader)
    for prefix, route in config.routes.items():
        _refuse_unknown_upstream(prefix, route, config.upstreams, reader)
        _refuse_odd_tls(("routes", prefix, "tls"), route.tls, reader, secure=not route.target.startswith("http://"))
        if not config.server.allow_private_targets and route.target:
            _refuse_private_target(("routes", prefix, "target"), route.target, reader)
    for name, upstream in config.upstreams.items():
        path = ("upstreams", name)
        _refuse_odd_tls((*path, "tls"), upstream.tls, reader)
        if not config.server.allow_private_targets:
            for place, backend in enumerate(upstream.backends):
                _refuse_private_target((*path, "backends", str(place), "url"), backend.url, reader)
    _refuse_odd_grpc(config.grpc, reader)
    return config


def _from_variables(variables: Mapping[str, Given]) -> Iterator[tuple[Field, Given]]:
    """The variables that name fields, weakest first; an empty one counts as not set."""
    for name, given in variables.items():
        if name.startswith("RELAYGATE_") and name not in VARIABLES and name != FILE_VARIABLE:
            _refuse_misspelled(given)
    for name, field in VARIABLES.items():
        given = variables.get(name, Given("", "", name))
        if given.value.strip() and not (name == "RELAYGATE_PORT" and _SERVICE_LINK.match(given.value)):
            yield field, given


def _refuse_misspelled(given: Given) -> None:
    """Other programs may use the prefix, so only what is nearly one of ours is refused."""
    known = [name for name in (*VARIABLES, FILE_VARIABLE) if name.startswith("RELAYGATE_")]
    suffixes = [name.removeprefix("RELAYGATE_") for name in known]
    if close := difflib.get_close_matches(given.key.removeprefix("RELAYGATE_"), suffixes, n=1, cutoff=0.7):
        raise ConfigError(given.where, given.key, f"unknown variable, the nearest known one is RELAYGATE_{close[0]}")


def _from_arguments(arguments: Mapping[str, str]) -> Iterator[tuple[Field, Given]]:
    for name, value in arguments.items():
        if name != "config":
            yield ("server", name), Given(value, "command line", f"--{name.replace('_', '-')}")


def _chosen_file(candidates: Iterable[tuple[str | None, str]], directory: Path) -> _File | None:
    """The first of `candidates` (a name and who gives it) that names a file, else the default one if it is there."""
    for name, named_by in candidates:
        if name:
            return _File(name, named_by)
    return _File(DEFAULT_FILE, "the working directory") if (directory / DEFAULT_FILE).exists() else None


def _read_text(path: Path, file: _File) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(file.name, f"{problem} (named by {file.named_by})") from None


def _read_dotenv(directory: Path) -> dict[str, dotenv.Variable]:
    try:
        return dotenv.parse((directory / ".env").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(".env", str(error.strerror)) from None
    except UnicodeError:
        raise ConfigError(".env", "not UTF-8 text") from None
    except ValueError as error:
        raise ConfigError(f".env:{error}", "not a variable, expected NAME=value") from None


def _refuse_hidden_routes(config: Config, reader: structs.Reader) -> None:
    for reserved, own in own_paths(config.server).items():
        if reserved in config.routes:
            path = ("routes", reserved)
            raise ConfigError(reader.where(path), ".".join(path), hidden_by(own))


def _refuse_unknown_upstream(
    prefix: str, route: Route, upstreams: Mapping[str, Upstream], reader: structs.Reader
) -> None:
    if route.upstream is not None and route.upstream not in upstreams:
        path = ("routes", prefix, "upstream")
        known = structs.nearest(route.upstream, upstreams) if upstreams else "there is none"
        raise ConfigError(reader.where(path), ".".join(path), f"no upstream is called {route.upstream}, {known}")


def _refuse_odd_tls(path: yaml_document.Path, tls: UpstreamTls, reader: structs.Reader, *, secure: bool = True) -> None:
    if tls != UpstreamTls() and not secure:
        raise ConfigError(reader.where(path), ".".join(path), "the target is not an https URL, expected no tls")
    if tls.key is not None and tls.certificate is None:
        raise ConfigError(reader.where(path), ".".join(path), "a key without its certificate")


def _refuse_odd_grpc(grpc: Grpc, reader: structs.Reader) -> None:
    path = ("grpc",)
    if (grpc.certificate is None) is not (grpc.key is None):
        raise ConfigError(reader.where(path), ".".join(path), "found one of certificate and key, expected both or none")
    if grpc.enabled and grpc.certificate is None and not ip_address(grpc.host).is_loopback:
        problem = f"{grpc.host} is not a loopback address, expected a certificate and its key"
        raise ConfigError(reader.where(path), ".".join(path), problem)


def _refuse_private_target(path: yaml_document.Path, target: str, reader: structs.Reader) -> None:
    """Where DNS must be asked first, the relay refuses when it connects (`upstream/connect.py`)."""
    if word := target_refusal(target):
        raise Given(target, reader.where(path), ".".join(path)).refuse(
            f"a public host, this one is {word} (server.allow_private_targets: true or "
            "RELAYGATE_ALLOW_PRIVATE_TARGETS=true allows it)"
        )


def _check_tls_files(config: Config, reader: structs.Reader) -> None:
    if config.tls is not None:
        _check_listener(config.tls, reader.where(("tls",)))
    if config.grpc.certificate is not None:
        tls_files.check_pair(reader.where(("grpc",)), "grpc", config.grpc.certificate, config.grpc.key)
    of_routes = [(("routes", prefix, "tls"), route.tls) for prefix, route in config.routes.items()]
    of_upstreams = [(("upstreams", name, "tls"), upstream.tls) for name, upstream in config.upstreams.items()]
    for path, tls in of_routes + of_upstreams:
        tls_files.check_upstream(reader.where(path), ".".join(path), tls)


def _check_tracing(config: Config) -> None:
    if config.server.tracing is not None and not _is_installed(TRACING_PACKAGE):
        raise ConfigError("server.tracing", f"{TRACING_PACKAGE} is not installed, expected {TRACING_EXTRA}")


def _check_grpc(config: Config) -> None:
    missing = [package for package in GRPC_PACKAGES if not _is_installed(package)] if config.grpc.enabled else []
    if missing:
        raise ConfigError("grpc.enabled", f"{missing[0]} is not installed, expected {GRPC_EXTRA}")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def _check_listener(tls: ListenerTls, where: str) -> None:
    tls_files.check_pair(where, "tls", tls.certificate, tls.key)
    if tls.client_ca is not None:
        tls_files.check_ca(where, "tls.client_ca", tls.client_ca)
