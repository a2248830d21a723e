"""What reference 004's document says of settings that stand in a file."""

from typing import Any

import pytest

from admin.rules.speedmimi_settings import document, refuse_others
from proxy.config import Config, ConfigError, Grpc, ListenerTls, Server

CONFIG = Config(
    server=Server(port=8080, real_ip_header="x-real-ip", trusted_proxies=("10.0.0.0/8",)),
    tls=ListenerTls(certificate="/certs/server.crt", key="/certs/server.key"),
    grpc=Grpc(enabled=True),
)


def test_what_is_in_use_has_the_references_names() -> None:
    assert document(CONFIG) == {
        "server": {
            "host": "127.0.0.1",
            "port": 8080,
            "read_timeout": "30s",
            "max_conn": 10000,
            "real_ip_header": "x-real-ip",
            "trusted_proxies": ["10.0.0.0/8"],
        },
        "ssl": {"enabled": True, "cert_file": "/certs/server.crt", "key_file": "/certs/server.key"},
        "grpc": {"enabled": True, "host": "127.0.0.1", "port": 9090},
    }
    assert document(Config())["ssl"] == {"enabled": False, "cert_file": None, "key_file": None}


@pytest.mark.parametrize(
    "given",
    [
        {},
        document(CONFIG),
        {"server": {"port": 8080}, "grpc": {}},
        {"server": {"read_timeout": "0.5m", "real_ip_header": "X-Real-IP"}},
    ],
)
def test_what_is_in_use_may_be_said(given: dict[str, Any]) -> None:
    refuse_others(given, CONFIG)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"server": {"port": 9000}},
            "server.port: found 9000, in use is 8080, which only the settings file can change",
        ),
        ({"server": {"port": 8080.0}}, "server.port: found 8080.0, in use is 8080"),
        ({"server": {"max_conn": True}}, "server.max_conn: found true"),
        ({"server": {"read_timeout": "31s"}}, "server.read_timeout: found '31s', in use is '30s'"),
        ({"server": {"read_timeout": None}}, "server.read_timeout: found null"),
        ({"server": {"real_ip_header": None}}, "server.real_ip_header: found null, in use is 'x-real-ip'"),
        ({"server": {"trusted_proxies": []}}, "server.trusted_proxies: found a list"),
        ({"server": {"write_timeout": "30s"}}, "server.write_timeout: not a setting of this relay, the nearest known"),
        ({"ssl": {"enabled": False}}, "ssl.enabled: found false, in use is true"),
        ({"grpc": {"port": 1}}, "grpc.port: found 1, in use is 9090"),
        ({"grpc": None}, "grpc: expected an object"),
        ({"server": [1]}, "server: expected an object"),
    ],
)
def test_anything_else_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_others(given, CONFIG)
    assert str(caught.value).startswith(says)
