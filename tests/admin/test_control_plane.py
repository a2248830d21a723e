"""What the control plane does before it serves, and what it refuses to publish."""

import asyncio
from pathlib import Path

import pytest

from admin.control_plane import database_url, editor, opened, prepare, validate
from admin.rules import tokens
from admin.services.routes import Routes
from proxy.config import Admin, Config, ConfigError, Database, Route, Server, UpstreamTls

ROUTES = {"/a": Route(target="http://a.example")}


def test_the_file_is_applied_and_a_token_made_that_stays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = Config(data_dir=str(tmp_path / "data"), routes=ROUTES)
    digest = asyncio.run(prepare(config))
    made = capfd.readouterr().err.split()[-1]
    assert tokens.matches(made, digest)
    assert asyncio.run(prepare(config)) == digest
    assert "token" not in capfd.readouterr().err

    async def stored() -> dict[str, Route]:
        async with opened(config) as database:
            return await Routes(editor(config, database)).all()

    assert asyncio.run(stored()) == ROUTES


def test_a_token_that_is_set_takes_the_place_of_what_was_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        Config(data_dir=str(tmp_path), admin=Admin(token=token)) for token in ("the first token", "the second token")
    )
    digest = asyncio.run(prepare(first))
    assert tokens.matches("the first token", digest)
    assert asyncio.run(prepare(first)) == digest
    other = asyncio.run(prepare(second))
    assert tokens.matches("the second token", other)
    assert not tokens.matches("the first token", other)
    assert capfd.readouterr().err == ""


def test_without_a_url_the_database_lies_in_the_data_directory(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    assert database_url(Config(data_dir=str(folder))) == f"sqlite:///{folder}/relaygate.db"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert database_url(Config(database=Database(url="sqlite:///x.db"), data_dir="/nowhere")) == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (Route(target="http://127.0.0.1:1"), r"^routes\./a\.target: http://127\.0\.0\.1:1 is "),
        (Route(target="https://a.example", tls=UpstreamTls(ca="/nowhere/ca.pem")), "^routes: "),
    ],
)
def test_routes_that_no_worker_could_use_are_refused(route: Route, said: str) -> None:
    async def main() -> None:
        validate(Config(), ROUTES)
        with pytest.raises(ConfigError, match=said):
            validate(Config(), {"/a": route})
        validate(Config(server=Server(allow_private_targets=True)), {"/a": Route(target="http://127.0.0.1:1")})

    asyncio.run(main())
