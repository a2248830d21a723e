"""The prefix that the path of a request names: `/api/mappings/openai/v1` means `/openai/v1`. Pure."""

from urllib.parse import unquote_to_bytes

from proxy.sources import values


def prefix_in(raw_path: bytes, base: str) -> str | None:
    """Returns the prefix behind `base` in a path as it was sent, None where no prefix is spelled so.

    One layer of percent-encoding is taken off, so `%2Fopenai%2Fv1` and `openai/v1` are the same, `%2F` alone is the
    route for everything, and a prefix that has `%20` in it is spelled `%2520`.
    """
    encoded = raw_path.removeprefix(base.encode("ascii"))
    if encoded.strip(b"/") == b"":
        return None
    try:
        rest = unquote_to_bytes(encoded.removeprefix(b"/")).decode("utf-8")
        return values.prefix(rest if rest.startswith("/") else f"/{rest}")
    except ValueError:
        return None
