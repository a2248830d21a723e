"""What reference 004's document says of settings that stand in a file: `server`, `ssl` and `grpc`. Pure.

The API shows them. It does not change them: they are read at the start, and belong to who starts the program.
"""

from collections.abc import Callable, Mapping
from typing import Any

from admin.rules.speedmimi import seconds
from admin.rules.speedmimi_documents import duration
from proxy.config import Config, ConfigError
from proxy.sources.structs import nearest, shown

SECTIONS = ("server", "ssl", "grpc")


def document(config: Config) -> dict[str, dict[str, Any]]:
    """What is in use, by the reference's names."""
    server, tls, grpc = config.server, config.tls, config.grpc
    return {
        "server": {
            "host": server.host,
            "port": server.port,
            "read_timeout": duration(server.header_timeout_s),
            "max_conn": server.max_connections,
            "real_ip_header": server.real_ip_header,
            "trusted_proxies": list(server.trusted_proxies),
        },
        "ssl": {
            "enabled": tls is not None,
            "cert_file": None if tls is None else tls.certificate,
            "key_file": None if tls is None else tls.key,
        },
        "grpc": {"enabled": grpc.enabled, "host": grpc.host, "port": grpc.port},
    }


def refuse_others(given: Mapping[str, Any], config: Config) -> None:
    """Raises ConfigError where a document has another value for one of these settings than is in use."""
    in_use = document(config)
    for section in SECTIONS:
        values = given.get(section, {})
        if not isinstance(values, Mapping):
            raise ConfigError(section, "expected an object")
        for name, value in values.items():
            where = f"{section}.{name}"
            if name not in in_use[section]:
                raise ConfigError(where, f"not a setting of this relay, {nearest(name, in_use[section])}")
            if not _same(name, value, in_use[section][name]):
                used = shown(in_use[section][name])
                problem = f"found {shown(value)}, in use is {used}, which only the settings file can change"
                raise ConfigError(where, problem)


def _duration(text: Any) -> Any:
    try:
        return seconds(text)
    except (TypeError, ValueError):
        return text


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


_SPELLINGS: dict[str, Callable[[Any], Any]] = {"read_timeout": _duration, "real_ip_header": _lower}
"""What makes of several spellings of one value the same."""


def _same(name: str, given: Any, in_use: Any) -> bool:
    spelled = _SPELLINGS.get(name, lambda value: value)
    one, other = spelled(given), spelled(in_use)
    return type(one) is type(other) and bool(one == other)
