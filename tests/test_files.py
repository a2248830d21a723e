"""The files beside the code: what they promise is held here."""

import re
import tomllib
from pathlib import Path

import pytest

from proxy import settings
from proxy.config import Config, Route, Struct
from proxy.sources import dotenv, structs
from proxy.sources.default_routes import DEFAULT_ROUTES

ROOT = Path(__file__).parents[1]
EXTRAS = ("grpc", "opentelemetry")
LOCKS = ("requirements.lock", "requirements-dev.lock", *(f"requirements-{extra}.lock" for extra in EXTRAS))
NEVER = {"net.ipv4.tcp_tw_recycle", "fs.file-max"}
STAY_ON = {"net.ipv4.tcp_sack", "net.ipv4.tcp_timestamps"}


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked(name))
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[^ ]+ ", entry)
        assert "--hash=sha256:" in entry


def test_the_locks_hold_what_pyproject_asks_for_and_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run, development, *of_extras = (locked(name) for name in LOCKS)
    build = project["build-system"]["requires"]
    extras = project["project"]["optional-dependencies"]
    for held in (run, *of_extras):
        assert held.items() <= development.items()
    for wanted, held in (
        (build + project["project"]["dependencies"], run),
        (extras["dev"], development),
        *((extras[extra], held) for extra, held in zip(EXTRAS, of_extras, strict=True)),
    ):
        for requirement in wanted:
            assert re.split(r"[^A-Za-z0-9-]", requirement)[0].lower() in held


def test_kernel_settings_have_a_reason_each_and_none_is_set_twice() -> None:
    seen: dict[str, str] = {}
    for file in sorted((ROOT / "sysctl").glob("*.conf")):
        for block in file.read_text().split("\n\n"):
            lines = block.strip().splitlines()
            settings_of_block = [line.partition(" = ") for line in lines if not line.startswith("#")]
            assert lines[0].startswith("# "), f"{file.name}: {block}"
            for key, separator, value in settings_of_block:
                assert separator, f"{file.name}: {key}"
                assert key not in seen
                seen[key] = value
    assert not NEVER & seen.keys()
    assert all(seen[key] == "1" for key in STAY_ON)
    assert int(seen["net.core.somaxconn"]) <= 65535
    low, high = map(int, seen["net.ipv4.ip_local_port_range"].split())
    assert low > 9090, "a port that a service of ours listens on could be taken"
    assert high == 65535


def test_the_example_of_a_dotenv_file_is_the_defaults(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[A-Z_]+=)", "", (ROOT / ".env.example").read_text(), flags=re.MULTILINE)
    variables = dotenv.parse(text)
    assert len(variables) > 10
    assert variables.keys() - {settings.FILE_VARIABLE} <= settings.VARIABLES.keys()
    (tmp_path / ".env").write_text(text)
    (tmp_path / "relaygate.yaml").touch()
    defaults = Config(routes={prefix: Route(target=target) for prefix, target in DEFAULT_ROUTES.items()})
    assert settings.load({}, {}, tmp_path) == defaults


def test_the_example_of_a_configuration_is_usable(tmp_path: Path) -> None:
    config = settings.load({"config": str(ROOT / "relaygate.example.yaml")}, {}, tmp_path)
    assert config.routes["/claude"] == Route(target="https://api.anthropic.com")


@pytest.mark.parametrize("struct", [Route, *structs.SECTIONS.values()])
def test_every_option_is_described(struct: type[Struct]) -> None:
    text = (ROOT / "docs" / "options.md").read_text()
    missing = [name for name in struct.__struct_fields__ if not re.search(rf"^\| `(\w+\.)?{name}` \|", text, re.M)]
    assert missing == []


def test_links_lead_to_files_and_headings_that_are_there() -> None:
    missing = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "loadtests" / "README.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, heading = target.partition("#")
            file = (page.parent / name) if name else page
            if not file.exists() or (heading and heading not in headings(file)):
                missing.append(f"{page.name}: {target}")
    assert missing == []


def headings(page: Path) -> set[str]:
    """The names by which links lead to headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
