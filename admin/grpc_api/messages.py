"""Messages as the documents that `Management` speaks, and back. Pure.

A field that is not set in a message is not there in its document: that is how one says what is to change. The two
differ where protobuf has no name for a document's shape: a map of lists (`backends`), and options of a route or an
upstream that stand beside fields with names of their own.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from admin.grpc_api import management_pb2 as pb

M = TypeVar("M", bound=Message)
Document = dict[str, Any]
_ROUTE_FIELDS = frozenset(pb.Route.DESCRIPTOR.fields_by_name) - {"options"}


def document(message: Message) -> Document:
    """Returns what is set in a message that has the shape of its document."""
    found: Document = MessageToDict(message, preserving_proto_field_name=True)
    return found


def message(kind: type[M], given: Mapping[str, Any]) -> M:
    """Returns a document as a message. What the message has no field for is left out."""
    return ParseDict(_plain(given), kind(), ignore_unknown_fields=True)


def config_document(config: pb.Config) -> Document:
    """Returns the sections that are set in a configuration."""
    found = document(config)
    if config.HasField("backends"):
        found["backends"] = {
            name: [document(backend) for backend in upstream.backends]
            for name, upstream in config.backends.upstreams.items()
        }
    if config.HasField("routing"):
        found["routing"] = {label: _route_document(route) for label, route in config.routing.routes.items()}
    if config.upstreams:
        found["upstreams"] = {name: _whole(document(options)) for name, options in config.upstreams.items()}
    return found


def config_message(given: Mapping[str, Any]) -> pb.Config:
    """Returns a configuration whose sections are those of a document."""
    shaped: Document = dict(given)
    if "backends" in given:
        shaped["backends"] = {"upstreams": {name: {"backends": list_} for name, list_ in given["backends"].items()}}
    if "routing" in given:
        shaped["routing"] = {"routes": {label: _shaped_route(route) for label, route in given["routing"].items()}}
    return message(pb.Config, shaped)


def _route_document(route: pb.Route) -> Document:
    found = document(route)
    options: Document = _whole(found.pop("options", {}))
    return options | found


def _shaped_route(given: Mapping[str, Any]) -> Document:
    named = {name: value for name, value in given.items() if name in _ROUTE_FIELDS}
    options = {name: value for name, value in given.items() if name not in _ROUTE_FIELDS}
    return {**named, "options": options} if options else named


def _whole(value: Any) -> Any:
    """Returns the value with whole numbers as integers: a `google.protobuf.Struct` has no others than floats."""
    match value:
        case dict():
            return {name: _whole(item) for name, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _plain(value: Any) -> Any:
    """Returns a document as JSON has it: enumerations as texts, tuples as lists."""
    return msgspec.json.decode(msgspec.json.encode(value))
