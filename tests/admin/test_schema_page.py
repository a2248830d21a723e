"""The page of the OpenAPI document: as it is sent, and as a real browser shows it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from admin.app import SECURITY_FIELDS
from tests.admin.admin_process import Admin, running
from tests.admin.api import Api

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/schema", "text/html"), ("/schema/page.js", "text/javascript"), ("/schema/page.css", "text/css")],
)
def test_the_page_is_for_whoever_may_read_the_document(api: Api, path: str, media_type: str) -> None:
    answer = api.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
    for name, value in SECURITY_FIELDS:
        assert answer.headers.get_list(name.decode()) == [value.decode()]


def test_the_page_is_not_in_the_document(api: Api) -> None:
    document = api.client.get("/schema/openapi.json").json()
    assert not [path for path in document["paths"] if path.startswith("/schema")]


# ---- in a browser ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The text of a page, with single spaces."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def browsed(url: str, directory: Path) -> tuple[str, list[str]]:
    """The page of a URL after its scripts have run, and what the browser's console says; skips without a browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
    finished = subprocess.run(
        [browser, *options, f"--user-data-dir={directory}", "--virtual-time-budget=10000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    return finished.stdout, [line for line in finished.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(name="admin", scope="module")
def fixture_admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with running(tmp_path_factory.mktemp("admin")) as admin:
        yield admin


@pytest.mark.timeout(120)
def test_a_browser_shows_every_operation_and_has_nothing_to_complain_of(admin: Admin, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{admin.port}"
    html, console = browsed(f"{url}/schema", tmp_path)
    assert console == []
    document = httpx.get(f"{url}/schema/openapi.json").json()
    text = Page(html).text
    assert f"Relaygate admin API {document['info']['version']}" in text
    operations = [(path, method, what) for path, ways in document["paths"].items() for method, what in ways.items()]
    assert len(operations) > 10
    assert html.count('class="operation"') == len(operations)
    for path, method, operation in operations:
        described = " ".join(operation["description"].split())
        assert re.search(rf"{method.upper()} +{re.escape(path)} +{re.escape(described)}", text)
        for parameter in operation.get("parameters", []):
            assert f"{parameter['name']} " in text
        for status, answer in operation["responses"].items():
            assert re.search(rf"{status} +{re.escape(answer['description'])}", text)
    for shown in (
        "connect_timeout_s number, above 0, to 31536000 or null, without it: 10",
        '-d \'{"token":"the admin token"}\'',
        "prefix string required",
    ):
        assert shown in text
    assert "[object Object]" not in text
    assert "undefined" not in text


@pytest.mark.timeout(120)
def test_a_console_that_complains_is_heard(tmp_path: Path) -> None:
    """What the test above relies on: here the policy forbids a style."""
    page = (
        "data:text/html,<meta http-equiv=Content-Security-Policy content=\"default-src 'self'\">"
        "<body style='color:red'>shown</body>"
    )
    html, console = browsed(page, tmp_path)
    assert "shown" in html
    assert [line for line in console if "Content Security Policy" in line]
