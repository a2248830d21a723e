"""The document against the application: whatever it allows is answered as it says, and what it does not allow too."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from admin.app import create_app
from admin.rules.access_tokens import RANDOM_BYTES, QuotaType, text_of
from admin.tls_reload import Reloaded
from proxy.config import (
    Backend,
    BalancePreset,
    BalanceQuery,
    Config,
    KeyPool,
    ListenerTls,
    PoolGroup,
    Route,
    Upstream,
)
from proxy.rules.access_tokens import Unit
from proxy.rules.attempts import Attempts
from tests.admin.api import AUTHORIZED, TOKEN, TOKEN_HASH, there
from tests.admin.counted import delta, row, worker
from tests.admin.memory import Memory, Stored, Worker

MEMORY = Memory()
MEMORY.about_balancing.config = Config(tls=ListenerTls(certificate="/c.pem", key="/k.pem"))
SCHEMA = schemathesis.openapi.from_asgi(
    "/schema/openapi.json", create_app(MEMORY.services, token_hash=TOKEN_HASH, probes={"database": there})
)
FOUND: Iterable[Any] = SCHEMA.get_all_operations()
# In one order, since processes that share the tests must find the same ones: that of a handler's paths changes.
OPERATIONS = {found.ok().label: found.ok() for found in sorted(FOUND, key=lambda found: str(found.ok().label))}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
SETTINGS = settings(max_examples=20, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
SECRETS = {"token": TOKEN, "password": TOKEN}
KEYS = ["key_1", "key_2"]
GROUPS = ["main", "freebies"]
TOKENS = {f"tok_{number}": text_of(bytes([number]) * RANDOM_BYTES) for number in (1, 2)}
PREFIXES = ["/p1", "/p2/x", "/", "/batch-delete"]

TOKEN_BODIES = [
    {"ws_id": "w", "email": "e@x.test", "operation": "add", "days": 3, "quota_type": "hybrid", "unit": "tokens"},
    {"operation": "unlimited", "quota_type": "count", "quota_operation": "set", "quota_amount": 5, "unit": "requests"},
]
UPSTREAMS = ["default", "other"]
BACKENDS = [
    {"id": "backend1", "weight": 7, "host": "b1.example"},
    {"id": "new", "host": "new.example", "port": 81, "health_check": {"interval": "5s"}},
]
CONFIGS = [
    {"backends": {"default": BACKENDS}},
    {"routing": {"x": {"path": "/x", "upstream": "default", "protocols": {"sse": "ip_hash"}}}},
    {"upstreams": {"default": {"retry_max": 1}}, "server": {"port": 8000}},
]
PERFORMANCE = {"cpu_usage": 45.2, "memory_usage": 67.8, "load_avg_1": 2.1}
OF_LISTS = {"routes": ["/p1"], "models": ["gpt-4o*"], "networks": ["10.0.0.0/8"]}

Case = Any


@pytest.fixture(autouse=True, scope="module")
def no_bound_on_attempts() -> Iterator[None]:
    """The examples of the logins would lock each other out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Attempts, "failed", lambda *_: None)
        yield


@pytest.fixture(autouse=True)
def something_there() -> None:
    """Mappings, versions and keys that an example can hit."""
    MEMORY.routes.stored.clear()
    MEMORY.versions.versions.clear()
    MEMORY.statistics.deltas = [delta(row(s2xx=3, s4xx=1), row("", "", no_route=1), at_s=MEMORY.statistics.now_s)]
    MEMORY.workers.workers = [Worker(worker(), alive=True)]
    MEMORY.about_keys.clear()
    MEMORY.about_keys.pool.settings = KeyPool(
        groups={group: PoolGroup() for group in GROUPS},
        balance_queries={"factory": BalanceQuery(preset=BalancePreset.FACTORY)},
    )
    MEMORY.about_keys.explanations.known["known"] = {"route": "/p1"}
    for number, key in enumerate(KEYS):
        MEMORY.about_keys.keys.add(f"sk-{number:030}", id=key, group="main", requests=3, successes=2, last_used_at=5)
    MEMORY.about_tokens.clear()
    for name, text in TOKENS.items():
        MEMORY.about_tokens.tokens.put(name, text, 10, quota_type=QuotaType.COUNT, unit=Unit.REQUESTS)
    MEMORY.about_balancing.reloaded = Reloaded(1, 1)
    MEMORY.about_balancing.upstreams = {
        name: Upstream(backends=(Backend(url="http://b1.example", id="backend1"),)) for name in UPSTREAMS
    }
    for prefix in PREFIXES:
        MEMORY.routes.stored[prefix] = Stored(prefix, Route(target="https://x.test"), 0, 0)
        MEMORY.versions.record("token", "a test")


@st.composite
def hits(draw: st.DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    """Cases of which about half name something that is there, and say what can be done."""
    case = draw(cases)
    if draw(st.booleans()):
        return case
    parameters = case.path_parameters
    if parameters and "number" in parameters:
        parameters["number"] = draw(st.integers(1, len(PREFIXES)))
    if parameters and "prefix" in parameters:
        parameters["prefix"] = draw(st.sampled_from([prefix for prefix in PREFIXES if prefix != "/"]))
    known_names = {"key_id": KEYS, "group_id": GROUPS, "request_id": ["known"], "token": [*TOKENS, *TOKENS.values()]}
    for name, known_ones in known_names.items():
        if parameters and name in parameters:
            parameters[name] = draw(st.sampled_from(known_ones))
    in_queries = {
        "against": st.integers(1, len(PREFIXES)),
        "upstream": st.sampled_from(UPSTREAMS),
        "backend_id": st.just("backend1"),
    }
    for name, wanted in in_queries.items():
        if case.query and name in case.query:
            case.query[name] = draw(wanted)
    if isinstance(case.body, dict):
        known = {
            "prefix": f"/{draw(st.integers())}",
            "target": "https://y.test",
            "prefixes": draw(st.lists(st.sampled_from(PREFIXES), min_size=1)),
            "key": f"fk-{draw(st.integers(0))}",
            "poolGroup": draw(st.sampled_from(GROUPS)),
            "ids": draw(st.lists(st.sampled_from(KEYS), min_size=1)),
            "id": f"g{draw(st.integers(0))}",
            "upstream": draw(st.sampled_from(UPSTREAMS)),
            "backend": draw(st.sampled_from(BACKENDS)),
            "backend_id": "backend1",
            "performance": PERFORMANCE,
            "config": draw(st.sampled_from(CONFIGS)),
            **draw(st.sampled_from(TOKEN_BODIES)),
            **SECRETS,
            **OF_LISTS,
        }
        case.body.update({name: known[name] for name in case.body.keys() & known.keys()})
        for name in case.body.keys() - names_in(case.operation):
            del case.body[name]
    return case


def names_in(operation: Any) -> set[str]:
    """What the fields of an operation's JSON body may be called."""
    schema: dict[str, Any] = operation.definition.raw["requestBody"]["content"]["application/json"]["schema"]
    return set(schema["properties"])


@pytest.mark.parametrize("label", OPERATIONS)
def test_the_api_keeps_to_its_document(label: str) -> None:
    operation = OPERATIONS[label]
    seen: set[int] = set()

    @SETTINGS
    @given(hits(operation.as_strategy()))
    def run(case: Case) -> None:
        seen.add(case.call_and_validate(checks=CHECKS, headers=AUTHORIZED).status_code)

    run()
    assert seen & {200, 201, 202}, f"no example of {label} was good for anything: {seen}"
    if operation.path_parameters or operation.body:
        assert seen & {400, 401, 404}, f"no example of {label} was refused: {seen}"


@pytest.mark.parametrize("label", OPERATIONS)
def test_it_does_without_the_token_too(label: str) -> None:
    operation = OPERATIONS[label]
    refused = {400, 401} if "login" in label else {401}

    @settings(SETTINGS, max_examples=3)
    @given(operation.as_strategy())
    def run(case: Case) -> None:
        response = case.call_and_validate(checks=CHECKS, headers={"authorization": "none"})
        assert label in ("GET /health", "GET /readyz") or response.status_code in refused

    run()
