"""The page that shows the OpenAPI document: files of our own, since the content security policy allows no others.

It shows what `/schema/openapi.json` says and calls nothing else, so it is for whoever may read that: anybody.
"""

from pathlib import Path
from typing import Any

from litestar import Request, Response, Router, get
from litestar.openapi.plugins import OpenAPIRenderPlugin

_FOLDER = Path(__file__).parent
PAGE, SCRIPT, STYLE = ((_FOLDER / name).read_bytes() for name in ("page.html", "page.js", "page.css"))


class SchemaPage(OpenAPIRenderPlugin):
    """Serves the page, its script and its style."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002 - Litestar gives them
        return PAGE

    def receive_router(self, router: Router) -> None:
        router.register(script)
        router.register(style)


@get("/page.js", sync_to_thread=False)
def script() -> Response[bytes]:
    return Response(SCRIPT, media_type="text/javascript")


@get("/page.css", sync_to_thread=False)
def style() -> Response[bytes]:
    return Response(STYLE, media_type="text/css")
