"""The bodies that endpoints take: read within bounds, checked strictly, and described in the OpenAPI document.

Litestar would read them by itself, but leniently (`"true"` for true), and its refusals do not name the nearest field.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from litestar.exceptions import InternalServerException
from litestar.openapi.spec import OpenAPIMediaType, RequestBody
from litestar.openapi.spec import Operation as LitestarOperation

from admin import answers
from admin.auth import TOKEN
from admin.context import AdminRequest
from admin.rules import bodies, same_origin

AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)
AnyValue = TypeVar("AnyValue")

JSON = "application/json"

BYTES_MAX = 1024 * 1024
KEYS_BYTES_MAX = 64 * 1024 * 1024
"""Of bodies with many keys: 100,000 of them with notes are about 20 MB."""
TIMEOUT_S = 30.0


async def body_of(request: AdminRequest, struct: type[AnyStruct]) -> AnyStruct:
    """Returns a request's body as a struct. Raises Refusal: 400, 408 or 415 (413 is Litestar's)."""
    data = await _read(request)
    try:
        return bodies.read(struct, data)
    except bodies.BodyError as error:
        raise answers.bad_request(str(error)) from None


async def fields_of(request: AdminRequest, struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns those fields of a struct that a request's body gives. Raises Refusal as `body_of` does."""
    data = await _read(request)
    try:
        return bodies.fields(struct, data)
    except bodies.BodyError as error:
        raise answers.bad_request(str(error)) from None


async def optional_body_of(request: AdminRequest, struct: type[AnyStruct]) -> AnyStruct | None:
    """Returns a request's body as a struct, None where it has none. Raises Refusal as `body_of` does."""
    if not await _bytes(request):
        return None
    return await body_of(request, struct)


async def value_of(request: AdminRequest, read: Callable[[Any], AnyValue]) -> AnyValue:
    """Returns what `read` makes of a request's body in plain values. Raises Refusal as `body_of` does."""
    data = await _read(request)
    try:
        return read(bodies.decoded(data))
    except bodies.BodyError as error:
        raise answers.bad_request(str(error)) from None


async def text_of(request: AdminRequest) -> str:
    """Returns a request's body of whatever type. Raises Refusal as `body_of` does.

    No form of another site can send it as `text/csv`; other text has to come with the token.
    """
    csv = request.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/csv"
    data = await (_bytes(request) if csv else _read(request))
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise answers.bad_request("the body is not UTF-8 text") from None


async def _read(request: AdminRequest) -> bytes:
    """The body; one that a browser may have sent for another site (no token in a field) has to be declared as JSON."""
    caller = request.scope.get("user")
    by_token = caller is not None and caller.actor == TOKEN
    if not by_token and not same_origin.is_json(request.headers.get("content-type", "")):
        raise answers.of_status(415)
    return await _bytes(request)


async def _bytes(request: AdminRequest) -> bytes:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await request.body()
    except TimeoutError:
        raise answers.of_status(408) from None
    except InternalServerException:  # the client left, or broke the framing
        raise answers.of_status(400) from None


@dataclass
class Operation(LitestarOperation):
    """The description of an endpoint, which subclasses complete."""

    def __post_init__(self) -> None:
        pass


def takes(struct: type[msgspec.Struct], example: Mapping[str, Any]) -> type[Operation]:
    """Returns what describes an endpoint whose body is the struct."""
    return _operation({JSON: (schema_of(struct), example)}, Operation)


def may_take(struct: type[msgspec.Struct], example: Mapping[str, Any]) -> type[Operation]:
    """Returns what describes an endpoint whose body is the struct, or absent."""
    return _operation({JSON: (schema_of(struct), example)}, Operation, required=False)


def takes_some_of(
    struct: type[msgspec.Struct], example: Mapping[str, Any], kind: type[Operation] = Operation
) -> type[Operation]:
    """Returns what describes an endpoint of a kind, whose body is at least one field of the struct."""
    schema = schema_of(struct)
    schema.pop("required", None)
    return _operation({JSON: (schema | {"minProperties": 1}, example)}, kind)


def takes_one_of(types: Mapping[str, tuple[dict[str, Any], Any]]) -> type[Operation]:
    """Returns what describes an endpoint whose body is of one of some media types: of each, schema and example."""
    return _operation(types, Operation)


def _operation(
    types: Mapping[str, tuple[dict[str, Any], Any]], kind: type[Operation], *, required: bool = True
) -> type[Operation]:
    content = {
        name: OpenAPIMediaType(schema=schema, example=example)  # type: ignore[arg-type]  # a plain dict is written as it is
        for name, (schema, example) in types.items()
    }

    @dataclass
    class Described(kind):  # type: ignore[valid-type, misc]
        def __post_init__(self) -> None:
            super().__post_init__()
            self.request_body = RequestBody(content=content, required=required)

    return Described


def schema_of(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """A struct's JSON schema without references, since only Litestar's own structs are among the components."""
    schema = msgspec.json.schema(struct)
    definitions = schema["$defs"]

    def whole(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return whole(definitions[part["$ref"].rpartition("/")[2]])
            return {name: whole(item) for name, item in part.items()}
        return [whole(item) for item in part] if isinstance(part, list) else part

    resolved: dict[str, Any] = whole({"$ref": schema["$ref"]})
    return resolved
