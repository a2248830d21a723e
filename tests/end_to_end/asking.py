"""Paths that tell the fake upstream what to answer. Pure: parameters in, path out."""

import base64
from urllib.parse import quote, urlencode

Parameter = str | int | bytes


def answer(**parameters: Parameter | list[str]) -> str:
    """`/answer` with these parameters; a list repeats one."""
    return f"/answer?{urlencode(parameters, doseq=True, encoding='latin-1')}"


def raw(*pieces: bytes, **parameters: Parameter) -> str:
    """`/raw`: exactly these bytes, one write each."""
    encoded = "&".join(f"piece={quote(base64.urlsafe_b64encode(piece).decode())}" for piece in pieces)
    return f"/raw?{encoded}&{urlencode(parameters)}"


def sse(**parameters: Parameter) -> str:
    return f"/sse?{urlencode(parameters)}"


def response_bytes(status_line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """A response with these header lines, which need not be sensible."""
    return b"".join(line + b"\r\n" for line in (status_line, *fields)) + b"\r\n" + body
