"""Documents as messages, and back."""

import asyncio
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from admin.grpc_api import management_pb2 as pb
from admin.grpc_api.messages import config_document, config_message, document, message
from proxy.config import Balancer
from tests.admin.management_memory import SERVER_STATS, ManagementMemory, backend_stats


def config() -> dict[str, Any]:
    return dict(asyncio.run(ManagementMemory().config()))


def without_null(value: Any) -> Any:
    """A document as it comes back: what is null is not set."""
    if isinstance(value, dict):
        return {name: without_null(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value]
    return value


def test_a_configuration_comes_back_as_it_went() -> None:
    given = config()
    del given["version"]
    back = config_document(config_message(given))
    options = back["upstreams"]["default"].pop("ejection"), back["routing"]["/"].pop("head_timeout_s")
    expected = without_null(given)
    assert options == (given["upstreams"]["default"]["ejection"], 12.5)
    del expected["upstreams"]["default"]["ejection"], expected["routing"]["/"]["head_timeout_s"]
    assert back == expected
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


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (pb.GetServerStatsResponse, SERVER_STATS),
        (pb.BackendStats, backend_stats("default", ManagementMemory().upstreams["default"][0])),
    ],
)
def test_figures_come_whole(kind: type[Message], given: dict[str, Any]) -> None:
    assert message(kind, given) == ParseDict(given, kind(), ignore_unknown_fields=False)
    assert {field.name for field in kind.DESCRIPTOR.fields} == given.keys()


def test_enumerations_are_texts_and_tuples_lists() -> None:
    found = message(pb.Route, {"load_balancer": Balancer.IP_HASH, "protocols": {"sse": Balancer.WEIGHT}})
    assert (found.load_balancer, found.protocols.sse) == ("ip_hash", "weight")
    assert list(message(pb.Server, {"trusted_proxies": ("10.0.0.0/8",)}).trusted_proxies) == ["10.0.0.0/8"]


def test_what_a_message_has_no_field_for_is_left_out_and_what_is_of_another_kind_is_told() -> None:
    assert message(pb.Grpc, {"port": 1, "new": 2}) == pb.Grpc(port=1)
    with pytest.raises(ParseError):
        message(pb.Grpc, {"port": "many"})
