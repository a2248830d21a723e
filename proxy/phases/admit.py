"""Admit: on a route that is not public, who shows an access token is let in as far as that reaches, and each request is
counted before it is relayed.

What a token opens is known to the worker, what is left of it to Redis alone. A request costs one question there, which
it shares with the others of its turn of the loop; a token that has changed since costs one more.
"""

from hmac import compare_digest
from time import monotonic, time

from proxy.dialects.model_names import may_be_another
from proxy.dialects.usage import asked
from proxy.errors import (
    NO_PRICE,
    NO_TOKEN,
    NOT_FOR_MODEL,
    NOT_FOR_ROUTE,
    NOT_METERED,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    TOKEN_DISABLED,
    TOKEN_EXPIRED,
    TOO_MANY_AT_ONCE,
    WRONG_TOKEN,
    WRONG_TOKENS,
    Cause,
    RelayError,
)
from proxy.exchange import Exchange
from proxy.metering.gate import Gate
from proxy.phases.receive import receive_kept, receive_piece
from proxy.rules.access_tokens import AccessToken, Unit, digest_of
from proxy.rules.batches import Admission, Asked, Verdict
from proxy.rules.framing import NOT_COPIED
from proxy.rules.headers import Header
from proxy.rules.presented_tokens import OWN_FIELDS, SDK_FIELDS, is_for_model, opens, shown
from proxy.rules.prices import Price
from proxy.rules.reservations import Reservation
from proxy.rules.targets import as_one
from proxy.rules.usage import Usage
from proxy.shared_state.unavailable import StoreUnavailable

COST = 1
# Module names, since looking a member up on its Enum costs as much as ten of anything else.
REQUESTS, TOKENS, NANO_USD = Unit.REQUESTS, Unit.TOKENS, Unit.NANO_USD
READING = frozenset(("GET", "HEAD", "OPTIONS"))
NO_COST = Price(0, 0, 0, 0, 0)
CHANGES_MAX = 5
"""So often a token may change while one request asks for it."""
KEPT_BYTES_MAX = 1024 * 1024
"""So much of a body is kept to find its model in it."""
USED_UP_RETRY_S = 60
"""When a client of a quota that is used up may ask again. Nobody knows when there will be more."""
STORE_RETRY_S = 1

# Made once for each field: a set union for each request would cost more than all else here.
USUAL_DROPPED = {field: NOT_COPIED | {field} for field in (*OWN_FIELDS, *SDK_FIELDS)}
CAUSES: dict[int, Cause] = {
    Verdict.UNKNOWN: WRONG_TOKEN,
    Verdict.STALE: NOT_METERED,  # it changes faster than can be asked for it
    Verdict.DISABLED: TOKEN_DISABLED,
    Verdict.DELETED: WRONG_TOKEN,
    Verdict.EXPIRED: TOKEN_EXPIRED,
    Verdict.PER_MINUTE: RATE_LIMITED,
    Verdict.PER_SECOND: RATE_LIMITED,
    Verdict.CONCURRENT: TOO_MANY_AT_ONCE,
    Verdict.QUOTA: QUOTA_EXCEEDED,
}
ADMITTED, UNKNOWN, STALE = map(int, (Verdict.ADMITTED, Verdict.UNKNOWN, Verdict.STALE))


def admit(exchange: Exchange, gate: Gate) -> str:
    """Takes the token that a request shows out of what crosses; returns its digest, empty where nothing is counted.

    Raises RelayError(NO_TOKEN).
    """
    head = exchange.head
    found = shown(head.received)
    if found is None:
        raise RelayError(NO_TOKEN)
    secret, fields = found
    usual = head.dropped is NOT_COPIED and len(fields) == 1
    head.dropped = USUAL_DROPPED[fields[0]] if usual else head.dropped.union(fields)
    digest = digest_of(secret)
    return "" if gate.api_key_digest and compare_digest(digest, gate.api_key_digest) else digest


async def count(exchange: Exchange, gate: Gate, digest: str) -> None:
    """Has a request counted whose token opens what it asks for. Fills `meter` and what stands with it.

    Raises RelayError: 401, 403, 429, 503; and as `receive_piece` does, where a token is for some models only, or counts
    something else than requests.
    """
    meter = gate.meter
    token = None if meter is None else meter.known(digest)
    if token is None:
        refuse_who_guesses(exchange, gate)
    if meter is None:
        raise wrong_token(exchange, gate)
    request_id = exchange.request_id.decode("latin-1")
    changes = 0
    while True:
        cause, cost = None, COST
        if token is None:
            pass
        elif (token.routes or token.networks) and not opens(token, exchange.route.prefix, exchange.client_address):
            cause = NOT_FOR_ROUTE
        elif token.models or token.unit is TOKENS or token.unit is NANO_USD:
            await keep_body(exchange)
            cause, cost = weighed(exchange, gate, token)
        if cause is not None and changes:
            raise RelayError(cause)
        # Where the token as it is known here does not do, nothing is asked for but what it is now.
        asked = Asked(digest, token if cause is None else None, cost, request_id)
        try:
            admission = await meter.admit(asked)
        except StoreUnavailable:
            if cause is not None or token is None or not gate.outages.admits(digest, token, int(time() * 1000), cost):
                exchange.retry_after_s = STORE_RETRY_S
                raise RelayError(cause or NOT_METERED) from None
            exchange.meter, exchange.asked = meter, asked
            return
        if admission.verdict != STALE or changes == CHANGES_MAX:
            break
        token = meter.known(digest)
        changes += 1
    if admission.per_minute:
        exchange.limits = limits(admission)
    if admission.verdict == UNKNOWN:
        raise wrong_token(exchange, gate)
    if token is not None:
        gate.outages.note(digest, token, admission)
    if admission.verdict != ADMITTED or token is None:
        raise refusal(exchange, admission)
    exchange.meter, exchange.asked, exchange.admission = meter, asked, admission


def weighed(exchange: Exchange, gate: Gate, token: AccessToken) -> tuple[Cause | None, int]:
    """Returns why a token is not for what a body asks for (None: it is), and what that takes of its quota.

    Fills `reservation` where that is not a request.
    """
    if token.models and not is_for_model(token, model_of(exchange)):
        return NOT_FOR_MODEL, COST
    if token.unit is None or token.unit is REQUESTS:
        return None, COST
    reservation = exchange.reservation = reserve(exchange, gate, token.unit)
    return (NO_PRICE, COST) if reservation.cost is None else (None, reservation.cost)


def refuse_who_guesses(exchange: Exchange, gate: Gate) -> None:
    """Raises RelayError for an address that has shown too many wrong tokens, without asking for this one."""
    if wait_s := gate.attempts.wait_s(exchange.client_address, monotonic()):
        exchange.retry_after_s = int(wait_s) + 1
        raise RelayError(WRONG_TOKENS)


def wrong_token(exchange: Exchange, gate: Gate) -> RelayError:
    """Returns the error that a wrong token is, and counts it."""
    gate.attempts.failed(exchange.client_address, monotonic())
    return RelayError(WRONG_TOKEN)


def reserve(exchange: Exchange, gate: Gate, unit: Unit) -> Reservation:
    """Returns what a request may use. Of what tells no usage, such as a WebSocket, that is as estimated, and of what
    only asks for something that is there already, nothing."""
    head = exchange.head
    whole = exchange.request_bytes if exchange.body_received else head.length or None
    usage = asked(exchange.target, exchange.first_piece, whole, gate.estimates)
    price = None
    if unit is Unit.NANO_USD:
        model = model_of(exchange)
        price = gate.prices.of_untold if usage is not None and not model else gate.prices.price_of(model)
    if usage is None:
        if exchange.scope["method"] in READING and exchange.scope["type"] == "http":
            return Reservation(unit, price or NO_COST, Usage())
        usage = Usage(gate.estimates.input_tokens, gate.estimates.output_tokens)
    return Reservation(unit, price, usage)


def model_of(exchange: Exchange) -> str:
    """Returns the model that a request is for; nothing where servers may take it for different ones."""
    path, body = as_one(exchange.scope["raw_path"]), exchange.first_piece
    return "" if path is None or may_be_another(body) else exchange.route.api.model(path, body)


async def keep_body(exchange: Exchange) -> None:
    """Receives the body as far as it is kept, to look into it before it is relayed."""
    if not exchange.body_received and not exchange.request_bytes:
        exchange.first_piece = await receive_piece(exchange)
        if exchange.head.expects_continue or not exchange.body_received:
            await receive_kept(exchange, KEPT_BYTES_MAX)


def refusal(exchange: Exchange, admission: Admission) -> RelayError:
    """Returns the error that a verdict is, and notes when the client may come again."""
    cause = CAUSES[admission.verdict]
    exchange.retry_after_s = max(1, -(-admission.retry_ms // 1000))
    if cause is QUOTA_EXCEEDED:
        exchange.retry_after_s = USED_UP_RETRY_S
        # The SDKs of OpenAI and Anthropic would ask again at once, twice.
        exchange.limits = (*exchange.limits, (b"x-should-retry", b"false"))
    return RelayError(cause)


def limits(admission: Admission) -> tuple[Header, ...]:
    """Returns the fields that tell a client its rate: requests a minute, how many are left, and seconds until more are.

    They are named as most APIs name them; an upstream's own of these names stay (`forward.py`).
    """
    return (
        (b"x-ratelimit-limit", b"%d" % admission.per_minute),
        (b"x-ratelimit-remaining", b"%d" % admission.left),
        (b"x-ratelimit-reset", b"%d" % -(-admission.reset_ms // 1000)),
    )
