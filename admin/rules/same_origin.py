"""Whether a request that a browser sent with our cookie came from a page of ours. Pure.

A cookie goes along with whatever a page of another site makes the browser send; the fields read here cannot be set by a
page. Browsers say `Sec-Fetch-Site` on secure origins and loopback, and `Origin` with every unsafe method. A program
that has the cookie and sends neither is no browser, and nobody makes it send what it does not want to.
"""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def is_same_origin(*, site: str | None, origin: str | None, host: str) -> bool:
    """Judges by `Sec-Fetch-Site` and `Origin`, None where absent; `host` is the request's own `Host`.

    Schemes are not compared: behind something that ends TLS, ours is not the one that the browser sees. A page at http
    cannot have a cookie of https anyway (`__Host-`, `Secure`).
    """
    if site is not None and site.lower() not in ("same-origin", "none"):
        return False
    if origin is None:
        return True
    scheme, separator, authority = origin.lower().partition("://")
    if not separator or scheme not in _DEFAULT_PORTS:
        return False
    default = _DEFAULT_PORTS[scheme]
    return authority.removesuffix(default) == host.lower().removesuffix(default)


def is_json(content_type: str) -> bool:
    """True for `application/json` with whatever parameters; a form of another site cannot send it (Fetch standard)."""
    return content_type.partition(";")[0].strip().lower() == "application/json"
