"""Documents as messages, and back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict, ParseError

from admin.grpc_api import management_pb2 as pb
from admin.grpc_api.messages import config_document, config_message, document, message
from admin.management import BalancingManagement
from proxy.config import Balancer
from tests.admin.grpc_api.service import fill
from tests.admin.memory import Memory

Document = dict[str, Any]


def told(ask: Callable[[BalancingManagement], Awaitable[Any]]) -> Any:
    """What `Management` tells."""
    memory = Memory()
    fill(memory)

    async def answer() -> Any:
        return await ask(memory.management())

    return asyncio.run(answer())


def without_null(value: Any) -> Any:
    """A document as it comes back: what is null or an empty list is not set."""
    if isinstance(value, dict):
        return {name: without_null(item) for name, item in value.items() if item not in (None, [])}
    if isinstance(value, list):
        return [without_null(item) for item in value]
    return value


def test_a_configuration_comes_back_as_it_went() -> None:
    given: Document = told(BalancingManagement.config)
    del given["version"]
    back = config_document(config_message(given))
    # Of what stands in a `google.protobuf.Struct` null comes back too.
    assert without_null(back) == without_null(given)
    assert back["upstreams"]["default"]["ejection"]["failures"] is None
    assert back["routing"]["/"]["head_timeout_s"] == 12.5
    assert type(back["routing"]["/"]["body_bytes_max"]) is int, "though protobuf has floats only where JSON is free"


def test_what_is_not_set_is_not_in_the_document() -> None:
    assert config_document(pb.Config()) == {}
    assert document(pb.Backend(id="a", weight=0, active=False)) == {"id": "a", "weight": 0, "active": False}


def test_an_empty_section_is_not_an_absent_one() -> None:
    assert config_document(pb.Config(backends=pb.Backends())) == {"backends": {}}
    assert config_document(pb.Config(routing=pb.Routing())) == {"routing": {}}
    upstreams = {"a": pb.BackendList()}
    assert config_document(pb.Config(backends=pb.Backends(upstreams=upstreams))) == {"backends": {"a": []}}


def test_an_option_may_not_stand_in_for_a_field() -> None:
    route = pb.Route(path="/a")
    route.options.update({"path": "/b", "base": "/c"})
    assert config_document(pb.Config(routing=pb.Routing(routes={"a": route}))) == {
        "routing": {"a": {"path": "/a", "base": "/c"}}
    }


def test_all_that_is_told_has_a_field() -> None:
    """Else it would be left out without a word."""
    server_stats: Document = told(BalancingManagement.server_stats)
    ParseDict(server_stats, pb.GetServerStatsResponse(), ignore_unknown_fields=False)
    assert {field.name for field in pb.GetServerStatsResponse.DESCRIPTOR.fields} == server_stats.keys()
    for backend_stats in told(lambda management: management.backend_stats(None, None)):
        ParseDict(backend_stats, pb.BackendStats(), ignore_unknown_fields=False)
        assert {field.name for field in pb.BackendStats.DESCRIPTOR.fields} == backend_stats.keys()
    for backend in told(lambda management: management.backends(None))["default"]:
        ParseDict(backend, pb.Backend(), ignore_unknown_fields=False)
        assert {field.name for field in pb.Backend.DESCRIPTOR.fields} == backend.keys()
    reloaded: Document = told(lambda management: management.reload_tls("token"))
    ParseDict(reloaded, pb.ReloadSSLResponse(), ignore_unknown_fields=False)
    config: Document = told(BalancingManagement.config)
    assert {field.name for field in pb.Config.DESCRIPTOR.fields} | {"version"} == config.keys()
    for kind, section in ((pb.Server, "server"), (pb.Ssl, "ssl"), (pb.Grpc, "grpc")):
        ParseDict(config[section], kind(), ignore_unknown_fields=False)


def test_enumerations_are_texts_and_tuples_lists() -> None:
    found = message(pb.Route, {"load_balancer": Balancer.IP_HASH, "protocols": {"sse": Balancer.WEIGHT}})
    assert (found.load_balancer, found.protocols.sse) == ("ip_hash", "weight")
    assert list(message(pb.Server, {"trusted_proxies": ("10.0.0.0/8",)}).trusted_proxies) == ["10.0.0.0/8"]


def test_what_a_message_has_no_field_for_is_left_out_and_what_is_of_another_kind_is_told() -> None:
    assert message(pb.Grpc, {"port": 1, "new": 2}) == pb.Grpc(port=1)
    with pytest.raises(ParseError):
        message(pb.Grpc, {"port": "many"})


def test_counts_have_64_bits() -> None:
    given = {"requests": 2**40, "outcomes": {"2xx": 2**40}, "running": 2**40, "head": {"count": 2**40}}
    found = message(pb.BackendStats, given)
    assert {found.requests, found.outcomes["2xx"], found.running, found.head.count} == {2**40}
    assert message(pb.GetServerStatsResponse, {"requests": 2**40, "errors": 2**40}).errors == 2**40
