"""The envelope of what lies under `/flow`, as reference 002 has it, and how the admin API's own refusals look in it."""

import os
import time
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Scope

from admin.answers import DESCRIPTIONS, Problem
from admin.context import AdminRequest
from proxy.rules.request_id import sane

BASE = "/flow"
REQUEST_ID_BYTES = 16
_REQUEST_ID = "request_id"


class FlowAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What every answer to a request that was done has beside its `data`. Times are in UTC: `2026-12-31 18:30:00`."""

    success: Literal[True] = True
    message: str | None = None
    timestamp: str
    request_id: str


class FlowError(msgspec.Struct, frozen=True):
    """`type` is the word that programs match on, `message` the sentence for people, `details` the field it is about."""

    type: str
    message: str
    details: str | None = None


class FlowProblem(msgspec.Struct, frozen=True, kw_only=True):
    """An error under `/flow`."""

    success: Literal[False] = False
    error: FlowError
    timestamp: str
    request_id: str


def stamp(request: AdminRequest) -> dict[str, Any]:
    """Returns what each envelope says of its request: `Answer(data=…, **stamp(request))`."""
    return {"timestamp": text_of(int(time.time() * 1000)), "request_id": request_id_of(request)}


def request_id_of(request: AdminRequest) -> str:
    """Returns what a request is called: the client's own id where that is sane, else one made here, once."""
    state = request.scope["state"]
    if _REQUEST_ID not in state:
        given = sane(request.headers.get("x-request-id", "").encode("utf-8", "replace"))
        state[_REQUEST_ID] = os.urandom(REQUEST_ID_BYTES).hex() if given is None else given.decode()
    return str(state[_REQUEST_ID])


def fields_of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Returns the fields that the answer of a request has beside the usual ones."""
    request_id = scope["state"].get(_REQUEST_ID)
    return [] if request_id is None else [(b"x-request-id", request_id.encode())]


def text_of(at_ms: int) -> str:
    """Returns a time (milliseconds since 1970) as reference 002 writes it, in UTC."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def text_or_none(at_ms: int | None) -> str | None:
    return None if at_ms is None else text_of(at_ms)


def is_flow(path: str) -> bool:
    """Whether a path's answers have the envelope."""
    return path == BASE or path.startswith(BASE + "/")


def problem(request: AdminRequest, plain: Problem, details: str | None = None) -> FlowProblem:
    """Returns a refusal in the envelope: its word becomes a type, `bad_request` `BadRequest`."""
    name = "".join(part.capitalize() for part in plain.error.split("_"))
    return FlowProblem(error=FlowError(name, plain.message, details), **stamp(request))


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """Returns the documentation of error answers under `/flow`; 500 is always among them."""
    return {
        status: ResponseSpec(FlowProblem, description=DESCRIPTIONS[status], generate_examples=False)
        for status in sorted({*statuses, 500})
    }
