"""The upstreams serve what the comparison expects, and only one of them can be trusted over TLS."""

import ssl
import urllib.request

import pytest

from loadtests.upstreams import ANSWER, BIG_FILE, HOST_NAME, MIB, SAMPLE_FILE, Origin, Upstreams


def get(origin: Origin, path: str, host: str = "127.0.0.1") -> bytes:
    context = ssl.create_default_context(cafile=str(origin.authority)) if origin.scheme == "https" else None
    with urllib.request.urlopen(f"{origin.scheme}://{host}:{origin.port}{path}", context=context, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def test_any_path_is_answered_with_the_same_bytes(origins: Upstreams) -> None:
    assert get(origins.http, "/v1/chat/completions") == ANSWER


def test_files_are_served_whole(origins: Upstreams) -> None:
    assert get(origins.http, SAMPLE_FILE) == origins.sample
    assert len(get(origins.http, BIG_FILE)) == origins.big_file.stat().st_size == 8 * MIB


@pytest.mark.parametrize("host", ["127.0.0.1", HOST_NAME])
def test_the_authority_vouches_for_the_https_upstream_by_address_and_name(origins: Upstreams, host: str) -> None:
    assert get(origins.https, "/", host) == ANSWER


def test_the_authority_does_not_vouch_for_the_stranger(origins: Upstreams) -> None:
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        get(origins.stranger, "/")
