"""The fake upstream's behaviours by path: each reads its request as told and answers as told, however wrong that is.

`fake_upstream.py` lists the paths and their parameters.
"""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Iterator

from loadtests import fake_answers
from loadtests.fake_requests import Ending, Framing, Query
from loadtests.fake_wire import READ_WINDOW_BYTES, Exchange, chunk, response_head

# A prime length, so that a shift by any power of two shows.
PATTERN_BYTES = 65521
PATTERN = bytes((number * 131 + (number >> 8)) & 0xFF for number in range(PATTERN_BYTES))


def pattern_slice(start: int, size: int) -> bytes:
    """`size` bytes from position `start` of the endless pattern that `body_bytes=` answers consist of."""
    offset = start % PATTERN_BYTES
    copies = (offset + size) // PATTERN_BYTES + 1
    return (PATTERN * copies)[offset : offset + size]


Behaviour = Callable[[Exchange], Awaitable[None]]


async def echo(exchange: Exchange) -> None:
    await exchange.read_as_told()
    await exchange.send_document(exchange.recorded.document())


async def answer(exchange: Exchange) -> None:
    query = exchange.query
    await exchange.read_as_told()
    await asyncio.sleep(query.seconds("head_delay_ms"))
    for status in filter(None, query.text("interim", "").split(",")):
        await exchange.send(response_head(int(status), [("link", "</early>; rel=preload")], "Interim"))
    await exchange.send(_answer_head(query))
    if exchange.recorded.method != "HEAD" and not await _send_body(exchange):
        return
    exchange.connection.idle_limit_s = query.seconds("idle_ms") or None
    closes = query.text("framing", Framing.LENGTH) == Framing.CLOSE
    await exchange.connection.end(Ending(query.text("end", Ending.FIN if closes else Ending.KEEP)))


def _answer_head(query: Query) -> bytes:
    headers = [_name_and_value(line) for line in query.texts("header")]
    headers += [(f"x-many-{number}", "v") for number in range(query.integer("headers_count", 0))]
    if filler := query.integer("header_bytes", 0):
        headers.append(("x-filler", "f" * filler))
    framing = Framing(query.text("framing", Framing.LENGTH))
    if framing is Framing.CHUNKED:
        headers.append(("transfer-encoding", "chunked"))
    elif framing is Framing.LENGTH:
        headers.append(("content-length", str(query.integer("declared_bytes", _body_bytes(query)))))
    return response_head(
        query.integer("status", 200), headers, query.text("reason", "Fake"), query.text("version", "1.1")
    )


def _name_and_value(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value


def _given_body(query: Query) -> bytes | None:
    if query.texts("body64"):
        return base64.urlsafe_b64decode(query.text("body64", ""))
    return query.text("body", "").encode("latin-1") if query.texts("body") else None


def _body_bytes(query: Query) -> int:
    given = _given_body(query)
    return query.integer("body_bytes", 0) if given is None else len(given)


def _body_pieces(query: Query) -> Iterator[bytes]:
    given, total = _given_body(query), _body_bytes(query)
    piece_bytes = query.integer("piece_bytes", READ_WINDOW_BYTES)
    total = min(total, query.integer("cut_after_bytes", total))
    for start in range(0, total, piece_bytes):
        size = min(piece_bytes, total - start)
        yield pattern_slice(start, size) if given is None else given[start : start + size]


async def _send_body(exchange: Exchange) -> bool:
    """Send the body; false where the answer was cut and the connection is done with."""
    query = exchange.query
    chunked = query.text("framing", Framing.LENGTH) == Framing.CHUNKED
    interval_s = query.seconds("interval_ms")
    for number, piece in enumerate(_body_pieces(query)):
        if number and interval_s:
            await asyncio.sleep(interval_s)
        await exchange.send(chunk(piece) if chunked else piece)
    if query.optional_integer("cut_after_bytes") is not None:
        await exchange.connection.end(query.ending())
        return False
    if chunked:
        trailers = "".join(f"{name}: {value}\r\n" for name, value in map(_name_and_value, query.texts("trailer")))
        await exchange.send(f"0\r\n{trailers}\r\n".encode("latin-1"))
    return True


async def raw(exchange: Exchange) -> None:
    query = exchange.query
    await exchange.read_as_told()
    pieces, again = query.texts("piece"), query.integer("again", 0)
    pieces[again : again + 1] = pieces[again : again + 1] * query.integer("repeat", 1)
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(query.seconds("pause_ms"))
        await exchange.send(base64.urlsafe_b64decode(piece))
    await exchange.connection.end(query.ending())


async def sse(exchange: Exchange) -> None:
    await exchange.read_as_told()
    await exchange.send_events(_timed_events(exchange.query))


def _timed_events(query: Query) -> Iterator[bytes]:
    """Events that say when they were sent, so that the receiver can tell how long each was on its way."""
    filler = "f" * query.integer("event_bytes", 0)
    for number in range(query.integer("events", 10)):
        data = json.dumps({"n": number, "sent_s": time.monotonic(), "filler": filler})
        yield f"id: {number}\ndata: {data}\n\n".encode()


async def hold(exchange: Exchange) -> None:
    await exchange.read_as_told()
    await exchange.connection.end(Ending.HOLD)


async def die(exchange: Exchange) -> None:
    query = exchange.query
    await exchange.read_as_told()
    reused = exchange.recorded.number_on_connection > 1
    if query.text("on", "any") in {"any", "reused" if reused else "fresh"}:
        await exchange.connection.end(Ending(query.text("how", Ending.FIN)))
    else:
        await exchange.send_document(exchange.recorded.document())


# Providers


def _wanted_error(exchange: Exchange) -> int | None:
    model = str(exchange.json_body().get("model", ""))
    in_model = int(model.removeprefix("error-")) if model.startswith("error-") else None
    return exchange.query.optional_integer("error") or in_model


async def _send_error(exchange: Exchange, error: fake_answers.ProviderError) -> None:
    await exchange.send_document(error.document, error.status, error.headers)


async def chat_completions(exchange: Exchange) -> None:
    await exchange.read_as_told()
    if status := _wanted_error(exchange):
        await _send_error(exchange, fake_answers.openai_error(status))
        return
    asked, words = exchange.json_body(), exchange.query.integer("words", 8)
    model = str(asked.get("model", "gpt-fake"))
    if asked.get("stream"):
        wants_usage = (asked.get("stream_options") or {}).get("include_usage")
        usage = fake_answers.StreamUsage.LAST_CHUNK if wants_usage else fake_answers.StreamUsage.ABSENT
        await exchange.send_events(fake_answers.chat_completion_events(model, words, usage))
    else:
        await exchange.send_document(fake_answers.chat_completion(model, words), headers=[("x-request-id", "req_fake")])


async def responses(exchange: Exchange) -> None:
    await exchange.read_as_told()
    if status := _wanted_error(exchange):
        await _send_error(exchange, fake_answers.openai_error(status))
        return
    asked, words = exchange.json_body(), exchange.query.integer("words", 8)
    model = str(asked.get("model", "gpt-fake"))
    if asked.get("stream"):
        await exchange.send_events(fake_answers.response_events(model, words))
    else:
        await exchange.send_document(fake_answers.response(model, words))


async def models(exchange: Exchange) -> None:
    await exchange.read_as_told()
    if status := _wanted_error(exchange):
        await _send_error(exchange, fake_answers.openai_error(status))
    else:
        await exchange.send_document(fake_answers.models())


async def messages(exchange: Exchange) -> None:
    await exchange.read_as_told()
    if status := _wanted_error(exchange):
        await _send_error(exchange, fake_answers.anthropic_error(status))
        return
    asked, words = exchange.json_body(), exchange.query.integer("words", 8)
    model = str(asked.get("model", "claude-fake"))
    if asked.get("stream"):
        await exchange.send_events(fake_answers.message_events(model, words))
    else:
        await exchange.send_document(fake_answers.message(model, words), headers=[("request-id", "req_fake")])


async def gemini(exchange: Exchange) -> None:
    await exchange.read_as_told()
    if status := _wanted_error(exchange):
        await _send_error(exchange, fake_answers.gemini_error(status))
        return
    model, _, action = exchange.path().rpartition("/")[2].partition(":")
    words = exchange.query.integer("words", 8)
    if action != "streamGenerateContent":
        await exchange.send_document(fake_answers.generate_content(model, words))
    elif exchange.query.text("alt", "json") == "sse":
        await exchange.send_events(fake_answers.generate_content_events(model, words))
    else:
        events = fake_answers.generate_content_events(model, words)
        await exchange.send_document([json.loads(event.removeprefix(b"data: ")) for event in events])


async def not_found(exchange: Exchange) -> None:
    await exchange.read_as_told()
    await exchange.send_document({"error": "the fake upstream has no such behaviour"}, 404)


BEHAVIOURS: dict[str, Behaviour] = {
    "/echo": echo,
    "/answer": answer,
    "/raw": raw,
    "/sse": sse,
    "/hold": hold,
    "/die": die,
    "/v1/chat/completions": chat_completions,
    "/v1/responses": responses,
    "/v1/models": models,
    "/v1/messages": messages,
}


def behaviour_of(path: str) -> Behaviour:
    """By exact path; `…/-/x` means `/x`; all paths below /echo are echoed, all of Gemini's models are one."""
    _, prefixed, name = path.rpartition("/-/")
    if prefixed:
        path = "/" + name
    if path.startswith("/echo/"):
        return echo
    if path.startswith("/v1beta/models/"):
        return gemini
    return BEHAVIOURS.get(path, not_found)
