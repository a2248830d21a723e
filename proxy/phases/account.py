"""Account: what is counted and written down when a request has ended, whichever way it ended."""

from time import perf_counter

from proxy.access_log import AccessLog
from proxy.exchange import Exchange, http_version
from proxy.rules.redaction import redacted
from proxy.statistics import CLIENT_LEFT, STATUS_CLASSES, Counts, Tally


def count(exchange: Exchange, tally: Tally) -> None:
    """Counts the request. An open WebSocket's duration is its client's choice, and so no latency."""
    ended_s = perf_counter()
    route = tally.counts
    if route is None:
        route = tally.begin()
    truncated = exchange.truncated
    cause = exchange.cause
    if cause is not None:
        outcome = cause.word
    elif truncated:
        outcome = CLIENT_LEFT
    else:
        outcome = STATUS_CLASSES[exchange.status]
    counts = route.outcomes.get(outcome)
    if counts is None:
        counts = route.outcomes[outcome] = Counts()
    counts.requests += 1
    counts.request_bytes += exchange.request_bytes
    counts.response_bytes += exchange.response_bytes
    if exchange.attempts > 1:
        counts.retries += exchange.attempts - 1
    if truncated and exchange.response_started:
        counts.truncated += 1
    started_s = exchange.started_s
    if exchange.status != 101:
        tally.durations_s.append(ended_s - started_s)
    head_s = exchange.head_s
    if head_s:
        tally.heads_s.append(head_s - started_s)


def account(exchange: Exchange, log: AccessLog) -> None:
    """Writes the request's line to the access log. Secrets in the target are masked; headers are not logged."""
    scope = exchange.scope
    route = getattr(exchange, "route", None)
    log.write(
        {
            "request_id": exchange.request_id.decode(),
            "client": scope["client"][0],
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
    )
