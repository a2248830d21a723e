"""URLs as operators write them, and one line for those that cannot be used, without what may be a password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.database_url import Kind, parse, place
from proxy.config import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "url"),
    [
        ("sqlite:///data/relaygate.db", Kind.SQLITE, "sqlite+aiosqlite:///data/relaygate.db"),
        ("sqlite:////var/r.db", Kind.SQLITE, "sqlite+aiosqlite:////var/r.db"),
        ("sqlite+aiosqlite:///r.db", Kind.SQLITE, "sqlite+aiosqlite:///r.db"),
        ("sqlite+aiosqlite:r.db", Kind.SQLITE, "sqlite+aiosqlite:///r.db"),
        ("postgresql://u:p@h/db", Kind.POSTGRESQL, "postgresql+asyncpg://u:p@h/db"),
        ("postgres://u@[::1]:5433/db", Kind.POSTGRESQL, "postgresql+asyncpg://u@[::1]:5433/db"),
        ("postgresql://u:1/2@h/db", Kind.POSTGRESQL, "postgresql+asyncpg://u:1%2F2@h/db"),
        ("postgresql+asyncpg://h/db", Kind.POSTGRESQL, "postgresql+asyncpg://h/db"),
        ("postgres://h/db?sslmode=require", Kind.POSTGRESQL, "postgresql+asyncpg://h/db?ssl=require"),
        ("postgres:///db?host=/run/pg", Kind.POSTGRESQL, "postgresql+asyncpg:///db?host=%2Frun%2Fpg"),
        ("mysql://root:a%40b@h/db", Kind.MYSQL, "mysql+asyncmy://root:a%40b@h/db?charset=utf8mb4"),
        ("mariadb://h:3307/db", Kind.MYSQL, "mysql+asyncmy://h:3307/db?charset=utf8mb4"),
        ("mysql+asyncmy://h/db?charset=latin1", Kind.MYSQL, "mysql+asyncmy://h/db?charset=utf8mb4"),
    ],
)
def test_what_is_taken(text: str, kind: Kind, url: str) -> None:
    found, parsed = parse(text)
    assert (found, parsed.render_as_string(hide_password=False)) == (kind, url)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a URL that starts with"),
        ("relaygate.db", "expected a URL that starts with"),
        ("oracle://h/db", "expected a URL that starts with"),
        ("sqlite://", "expected the path of a file"),
        ("sqlite:///", "expected the path of a file"),
        ("sqlite:///:memory:", "expected the path of a file"),
        ("sqlite://host/r.db", "sqlite has no host"),
        ("sqlite:///r.db?mode=ro", "unknown option mode, expected none"),
        ("postgresql:///db", "the host is missing"),
        ("mysql://user:secret@/db", "the host is missing"),
        ("postgresql://h", "expected one name of a database"),
        ("postgresql://h/db/secret", "expected one name of a database"),
        ("postgresql://u:se@cret@h/db", "an @ in the user name or the password must be written as %40"),
        ("postgresql://h:port/db", "not a URL of the form postgresql://"),
        ("postgresql://h/db?sslmod=require", "unknown option sslmod, the nearest known one is sslmode"),
        ("postgresql://h/db?sslmode=secret", "sslmode: expected one of disable,"),
        ("postgresql://h/db?ssl=require&ssl=allow", "the option ssl is there twice"),
        ("mysql://h/db?ssl=true", "unknown option ssl, the nearest known one is ssl_ca"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"database.url: {message}")
    assert "secret" not in str(caught.value)


@given(st.text(), st.sampled_from(["", "sqlite:///", "postgresql://h/", "mysql://"]))
def test_any_text_is_taken_or_refused_in_one_line(rest: str, start: str) -> None:
    try:
        kind, url = parse(start + rest)
    except ConfigError as error:
        assert str(error).isprintable()  # noqa: PT017 - most texts are refused, some are not
    else:
        assert place(kind, url)


def test_a_place_names_no_user_and_no_password() -> None:
    assert place(*parse("postgresql://user:secret@h/db")) == "postgresql at h:5432"
    assert place(*parse("mysql://user:secret@[::1]:1/db")) == "mysql at ::1:1"
    assert place(*parse("mysql:///db?unix_socket=/run/m.sock")) == "mysql at /run/m.sock"
    assert place(*parse("sqlite:///a/b.db")) == "sqlite a/b.db"
