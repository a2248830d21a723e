"""Account: what is counted and written down when a request has ended, whichever way it ended."""

from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from proxy.access_log import AccessLog, encoded
from proxy.errors import Source
from proxy.exchange import Exchange, http_version
from proxy.metering.meter import SUCCESS, Ending, Meter
from proxy.rules.records import RECORD, RECORD_BYTES
from proxy.rules.redaction import redacted
from proxy.rules.trace_context import parent_of
from proxy.shared_state.live_log import LiveLog
from proxy.statistics import CLIENT_LEFT, STATUS_CLASSES
from proxy.tallies import Kind, Tally

if TYPE_CHECKING:
    from proxy.tracing import Tracing

TRACED_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))
"""Methods that a span is named by. Others are any client's choice."""

write_record = RECORD.pack_into


def count(exchange: Exchange, tally: Tally) -> None:
    """Writes down the request for the statistics: one record, its last field last."""
    ended_s = perf_counter()
    started_s = exchange.started_s
    head_s = exchange.head_s
    sent_s = exchange.sent_s
    kind: Kind = exchange.status
    if exchange.cause is not None or exchange.truncated or exchange.attempts > 1:
        kind = (kind, exchange.cause, exchange.truncated, exchange.response_started, exchange.attempts)
    key = tally.keys.get(kind)
    if key is None:
        key = new_key(exchange, tally, kind)
    journal = tally.journal
    position = journal.position
    write_record(
        journal.area,
        position,
        exchange.request_bytes,
        exchange.response_bytes,
        ended_s - started_s,
        head_s and head_s - started_s,
        sent_s and sent_s - started_s,
        sent_s and ended_s - sent_s,
        key,
        journal.generation,
    )
    journal.position = position = position + RECORD_BYTES
    if position > journal.limit:
        tally.make_room()


def new_key(exchange: Exchange, tally: Tally, kind: Kind) -> int:
    """Returns where the key lies that a request has with all others of its route and kind."""
    if exchange.cause is not None:
        outcome = exchange.cause.word
    elif exchange.truncated:
        outcome = CLIENT_LEFT
    else:
        outcome = STATUS_CLASSES[exchange.status]
    return tally.key(
        kind,
        outcome,
        max(0, exchange.attempts - 1),
        truncated=exchange.truncated and exchange.response_started,
        opened=exchange.status == 101,
    )


def settle(exchange: Exchange, meter: Meter) -> None:
    """Tells how a request ended that was counted, and gives back what was taken for one that no upstream was sent."""
    admission, asked = exchange.admission, exchange.asked
    is_used = exchange.was_sent or not asked.refunds
    used, usage = None, ""
    if exchange.reservation is not None and is_used:
        reservation, reader = exchange.reservation, exchange.reader
        used, usage = reservation.settled(exchange.status, None if reader is None else reader.result(reservation.usage))
    cause = exchange.cause
    if cause is not None:
        ending = Ending(False, cause.word, cause.message)
    elif exchange.truncated:
        ending = Ending(False, CLIENT_LEFT)
    elif exchange.status >= 400:
        ending = Ending(False, f"http_{exchange.status}")
    else:
        ending = SUCCESS
    if usage:
        ending = ending._replace(usage=usage)
    if admission is None:
        taken = int(is_used) if used is None else used
        meter.replay(replace(asked, cost=taken), ending)
    elif is_used:
        meter.settle(admission, ending, used)
    else:
        meter.refund(admission, ending)


def account(exchange: Exchange, log: AccessLog | None, live_log: LiveLog | None) -> None:
    """Writes the request's line to the access log, and to who listens just now."""
    fields = line(exchange)
    if log is not None:
        log.write(fields)
    if live_log is not None:
        live_log.add(encoded(fields))


def line(exchange: Exchange) -> dict[str, Any]:
    """Returns what is written of a request. Secrets in the target are masked; headers are not written."""
    scope = exchange.scope
    route = getattr(exchange, "route", None)
    fields: dict[str, Any] = {
        "request_id": exchange.request_id.decode(),
        "client": exchange.client_address,
        "method": scope.get("method", "GET"),
        "target": redacted(scope["raw_path"], scope["query_string"]),
        "protocol": http_version(scope),
        "route": None if route is None else route.prefix,
        "status": exchange.status,
        "error": None if exchange.cause is None else exchange.cause.word,
        "truncated": exchange.truncated,
        "attempts": exchange.attempts,
        "request_bytes": exchange.request_bytes,
        "response_bytes": exchange.response_bytes,
        "duration_ms": round((perf_counter() - exchange.started_s) * 1000, 3),
    }
    hop = getattr(exchange, "hop", None)
    if hop is not None and hop.backend:
        fields["backend"] = hop.backend
    if exchange.meter is not None:
        fields["access_token"] = exchange.asked.token_id
    if exchange.credential_id and exchange.route.credentials is not None:
        fields["credential"] = exchange.credential_id
        fields["model"] = exchange.route.credentials.api.model(scope["raw_path"], exchange.first_piece)
    return fields


def upstream_of(exchange: Exchange) -> str:
    """Returns the authority that a request went to; the name of the upstream where it came to no backend."""
    hop = getattr(exchange, "hop", None)
    return exchange.route.settings.upstream or "" if hop is None else hop.authority.decode()


def trace(exchange: Exchange, tracing: "Tracing") -> None:
    """Makes the request a span, by OpenTelemetry's semantic conventions for HTTP servers.

    Health is no request of a client's. Path and query are left out, since they may hold secrets.
    """
    scope = exchange.scope
    route = getattr(exchange, "route", None)
    cause = exchange.cause
    if route is None and cause is None:
        return
    method = scope.get("method", "GET")
    known = method in TRACED_METHODS
    attributes: dict[str, str | int] = {
        "http.request.method": method if known else "_OTHER",
        "http.request.body.size": exchange.request_bytes,
        "http.response.body.size": exchange.response_bytes,
        "network.protocol.version": http_version(scope),
        "url.scheme": scope["scheme"],
        "relaygate.request_id": exchange.request_id.decode(),
        "relaygate.attempts": exchange.attempts,
    }
    name = method if known else "HTTP"
    if route is not None:
        name = f"{name} {route.prefix}"
        attributes["http.route"] = route.prefix
        attributes["relaygate.upstream"] = upstream_of(exchange)
    if exchange.status:
        attributes["http.response.status_code"] = exchange.status
    failed = exchange.status >= 500
    if failed:
        attributes["error.type"] = str(exchange.status)
    if cause is not None:
        attributes["error.type"] = cause.word
        failed = cause.source is not Source.CLIENT
    elif exchange.truncated:
        attributes["error.type"] = CLIENT_LEFT
    tracing.add(name, parent_of(scope["headers"]), perf_counter() - exchange.started_s, attributes, failed=failed)
