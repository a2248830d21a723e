"""The admin token, of which only a digest is kept. Pure: randomness is an argument.

A token that `made` made has 256 random bits, so nobody finds it by trying, however fast he tries: SHA-256 is enough.
Any other token may be a word that somebody chose, so its digest is a slow one (scrypt, RFC 7914). How long a text is
says nothing of how random it is; only the shape that `made` gives, prefix and length, is taken for random.
"""

import base64
import hashlib
import hmac
import re

RANDOM_BYTES = 32
SALT_BYTES = 16
# OWASP's smallest setting in memory: 2^14 blocks of 1 KiB (r = 8), five times over; 16 MiB and about 0.2 s a check.
COST, BLOCK, PARALLEL = 2**14, 8, 5
MEMORY_BYTES_MAX = 64 * 1024 * 1024

_MADE = re.compile(r"rga_[A-Za-z0-9_-]{43}")
_FAST, _SLOW = "sha256", "scrypt"


def made(random: bytes) -> str:
    """Returns a token of `random`, which has to be RANDOM_BYTES from the system's generator."""
    return "rga_" + base64.urlsafe_b64encode(random).rstrip(b"=").decode("ascii")


def digest(token: str, salt: bytes) -> str:
    """Returns what is kept of a token; it names its own method. `salt` is random, SALT_BYTES long, one an install."""
    if _MADE.fullmatch(token):
        return f"{_FAST}${_fast(token)}"
    return f"{_SLOW}${salt.hex()}${_slow(token, salt)}"


def is_slow(kept: str) -> bool:
    """True where `matches` takes long, and where the token may be guessed."""
    return kept.startswith(_SLOW)


def matches(token: str, kept: str) -> bool:
    """Says whether `kept` is the digest of `token`, in a time that does not depend on where they differ."""
    method, *rest = kept.split("$")
    if method == _SLOW:
        salt, expected = rest
        return hmac.compare_digest(_slow(token, bytes.fromhex(salt)), expected)
    return hmac.compare_digest(_fast(token), rest[0])


def _fast(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _slow(token: str, salt: bytes) -> str:
    return hashlib.scrypt(
        token.encode(), salt=salt, n=COST, r=BLOCK, p=PARALLEL, maxmem=MEMORY_BYTES_MAX, dklen=32
    ).hex()
