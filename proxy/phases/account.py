"""Account: what is written down when a request has ended."""

from time import perf_counter

from proxy.access_log import AccessLog
from proxy.exchange import Exchange, http_version
from proxy.rules.redaction import redacted


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
