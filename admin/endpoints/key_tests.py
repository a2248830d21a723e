"""Tests of keys: of one, answered when it has ended, and of all, which is begun, looked at and cancelled."""

import msgspec
from litestar import delete, get, post

from admin.answers import Answer, documented
from admin.context import AdminRequest, key_services_of, recorded
from admin.endpoints.keys import BASE, ONE
from admin.endpoints.pages import KeyId
from admin.key_ports import Tested, TestProgress
from admin.rules.key_records import Status


class TestView(msgspec.Struct, frozen=True):
    """`status` is that of the upstream's answer, 0 without one; `error` says in a word what failed.

    `key_status` is what the key is since then.
    """

    success: bool
    status: int
    error: str | None
    key_status: str


class TestedKey(Answer, frozen=True, kw_only=True):
    """The test has been made; whether the key has passed it is in `data`."""

    message: str
    data: TestView


class ProgressView(msgspec.Struct, frozen=True):
    """`state` is `idle`, `running`, `done`, `cancelled` or `failed`; times in milliseconds since 1970.

    `failed` counts all keys that did not pass; those that were disabled or banned for it are among them.
    """

    state: str
    total: int
    tested: int
    success: int
    failed: int
    disabled: int
    banned: int
    started_at: int | None
    ended_at: int | None


class TestedKeys(Answer, frozen=True, kw_only=True):
    message: str
    data: ProgressView


ALL = BASE + "/test-all"
_ERRORS = documented(401, 403, 429, 503)


@post(ONE + "/test", status_code=200, responses=documented(400, 404, 409) | _ERRORS)
async def test_key(request: AdminRequest, key_id: KeyId) -> TestedKey:
    """Asks an upstream with a key. 402 bans it, other 4xx disable it; 429, 5xx and silence do neither."""
    async with recorded(request, "key.test", key_id):
        tested = await key_services_of(request).tests.test(id=key_id)
    passed = tested.problem is None
    shown = TestView(passed, tested.http_status, tested.problem, tested.key_status)
    return TestedKey(message=_said(tested) if passed else "The key did not pass.", data=shown)


@post(ALL, status_code=202, responses=documented(409) | _ERRORS)
async def start_tests(request: AdminRequest) -> TestedKeys:
    """Begins to test all keys but those that are banned, `performance.concurrentLimit` of them at once."""
    async with recorded(request, "key.test-all", "all keys"):
        progress = await key_services_of(request).tests.start()
    return _told("Begun.", progress)


@get(ALL, responses=_ERRORS)
async def show_tests(request: AdminRequest) -> TestedKeys:
    """Shows how far the test of all keys is, or how the last one ended."""
    progress = key_services_of(request).tests.progress()
    return _told(f"{progress.tested} of {progress.total} tested.", progress)


@delete(ALL, status_code=200, responses=_ERRORS)
async def cancel_tests(request: AdminRequest) -> TestedKeys:
    """Ends the test of all keys; what has been tested stays tested."""
    tests = key_services_of(request).tests
    was_running = tests.progress().state == "running"
    async with recorded(request, "key.test-all.cancel", "all keys"):
        progress = await tests.cancel()
    return _told("Cancelled." if was_running else "Nothing is being tested.", progress)


def _said(tested: Tested) -> str:
    """A test does not end what somebody, or an answer, has decided of a key."""
    status = tested.key_status
    return "The key is good." if status is Status.ACTIVE else f"The key is good, and still {status}: toggle ends that."


def _told(message: str, progress: TestProgress) -> TestedKeys:
    return TestedKeys(
        message=message,
        data=ProgressView(
            progress.state,
            progress.total,
            progress.tested,
            progress.success,
            progress.failed,
            progress.disabled,
            progress.banned,
            progress.started_at,
            progress.ended_at,
        ),
    )


PRIVATE = [test_key, start_tests, show_tests, cancel_tests]
