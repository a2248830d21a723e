"""The upstream of WebSockets: it sends back every message as it came. `python -m loadtests.websocket_upstream PORT`."""

import sys

import uvloop
from aiohttp import WSMsgType, web

MESSAGE_BYTES_MAX = 32 << 20


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES_MAX)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


def application() -> web.Application:
    app = web.Application()
    app.router.add_get("/echo", echo)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
