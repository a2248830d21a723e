"""Route: check the request head, find the route, and write down what the upstream will be asked for."""

from proxy.errors import BAD_TARGET, BODY_TOO_LARGE, NO_ROUTE, RelayError
from proxy.exchange import Exchange
from proxy.rules.forwarding import without_claims
from proxy.rules.framing import NO_BODY, request_head
from proxy.rules.request_id import sane
from proxy.rules.targets import climbs
from proxy.snapshot import Snapshot


def route(exchange: Exchange, snapshot: Snapshot) -> None:
    """Fills `head`, `route`, `hop`, `tally` and `target`. Raises RelayError: 400, 404, 405 or 413."""
    scope = exchange.scope
    head = exchange.head = request_head(scope["method"], scope["http_version"], scope["headers"])
    exchange.request_id = sane(head.request_id) or exchange.request_id
    exchange.body_received = head.body is NO_BODY
    matched = snapshot.routes.match(scope["raw_path"])
    if matched is None:
        raise RelayError(NO_ROUTE)
    found, rest = matched
    exchange.route = found
    exchange.tally = found.tally
    if found.hop is not None:
        exchange.hop = found.hop
    if found.claims is not None and not exchange.clients.trusts(scope["client"][0]):
        head.dropped = without_claims(head.dropped, found.claims, head.received)
    if climbs(rest):
        raise RelayError(BAD_TARGET)
    if found.body_bytes_max is not None and head.length > found.body_bytes_max:
        raise RelayError(BODY_TOO_LARGE)
    query = scope["query_string"]
    target = found.base + rest if rest else found.whole
    exchange.target = b"%b?%b" % (target, query) if query else target
