"""`Forwarded` and its forerunners, as each policy wants them (C15)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import Forwarded
from proxy.rules.forwarding import claims_dropped, forwarding_headers, joined, node, quoted, without_claims
from proxy.rules.framing import NOT_COPIED
from proxy.rules.headers import FORWARDING, Header

CLIENTS_OWN = [
    (b"forwarded", b"for=10.0.0.1"),
    (b"x-forwarded-for", b"10.0.0.1"),
    (b"a", b"1"),
    (b"x-forwarded-for", b"10.0.0.2"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"first.example"),
    (b"a", b"1"),
]


def crossing(
    policy: Forwarded, fields: list[Header], address: bytes = b"192.0.2.7", host: bytes = b"h:1"
) -> list[Header]:
    return forwarding_headers(policy, fields, address, b"http", host)


def test_off_leaves_the_clients_own_untouched_and_adds_nothing() -> None:
    assert crossing(Forwarded.OFF, CLIENTS_OWN) == CLIENTS_OWN
    assert crossing(Forwarded.OFF, []) == []


def test_replace_forgets_what_came_before() -> None:
    assert crossing(Forwarded.REPLACE, CLIENTS_OWN) == [
        (b"a", b"1"),
        (b"a", b"1"),
        (b"forwarded", b'for=192.0.2.7;proto=http;host="h:1"'),
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", b"h:1"),
    ]


def test_append_adds_this_hop_and_keeps_what_tells_of_the_first() -> None:
    assert crossing(Forwarded.APPEND, CLIENTS_OWN) == [
        (b"a", b"1"),
        (b"a", b"1"),
        (b"forwarded", b'for=10.0.0.1, for=192.0.2.7;proto=http;host="h:1"'),
        (b"x-forwarded-for", b"10.0.0.1, 10.0.0.2, 192.0.2.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"first.example"),
    ]


def test_append_to_nothing_is_as_replace() -> None:
    assert crossing(Forwarded.APPEND, []) == crossing(Forwarded.REPLACE, [])


def test_without_a_host_none_is_told() -> None:
    assert crossing(Forwarded.REPLACE, CLIENTS_OWN, host=b"")[2:] == [
        (b"forwarded", b"for=192.0.2.7;proto=http"),
        (b"x-forwarded-for", b"192.0.2.7"),
        (b"x-forwarded-proto", b"http"),
    ]
    assert crossing(Forwarded.APPEND, CLIENTS_OWN, host=b"")[-1] == (b"x-forwarded-host", b"first.example")


def test_an_ipv6_client_is_in_brackets_and_quotes_where_rfc_7239_wants_them() -> None:
    fields = dict(crossing(Forwarded.REPLACE, [], b"2001:db8::7", b"[::1]:8000"))
    assert fields[b"forwarded"] == b'for="[2001:db8::7]";proto=http;host="[::1]:8000"'
    assert fields[b"x-forwarded-for"] == b"2001:db8::7"


@pytest.mark.parametrize(("address", "name"), [(b"192.0.2.7", b"192.0.2.7"), (b"::1", b'"[::1]"'), (b"", b"unknown")])
def test_an_address_becomes_a_node_name(address: bytes, name: bytes) -> None:
    assert node(address) == name


@given(st.binary(max_size=20))
def test_a_quoted_value_can_be_read_back(value: bytes) -> None:
    written = quoted(value)
    if written != value:
        assert written[:1] == written[-1:] == b'"'
        inside = written[1:-1]
        assert inside.replace(b'\\"', b"\0Q").replace(b"\\\\", b"").count(b'"') == 0
        assert inside.replace(b"\\\\", b"\0B").replace(b'\\"', b'"').replace(b"\0B", b"\\") == value or b"\0" in value
    else:
        assert value
        assert not set(value) & set(b' ",;:=\\()<>@[]{}/?')


@pytest.mark.parametrize(("before", "result"), [(None, b"x"), (b"", b"x"), (b"a", b"a, x"), (b"a, b", b"a, b, x")])
def test_a_list_grows_by_one_member(before: bytes | None, result: bytes) -> None:
    assert joined(before, b"x") == result


names = st.sampled_from([b"a", b"b", b"via", *sorted(FORWARDING)])


@given(st.sampled_from(Forwarded), st.lists(st.tuples(names, st.binary(max_size=5)), max_size=10))
def test_no_policy_touches_any_other_field(policy: Forwarded, fields: list[Header]) -> None:
    def others(pairs: list[Header]) -> list[Header]:
        return [pair for pair in pairs if pair[0] not in FORWARDING]

    result = crossing(policy, fields)
    assert others(result) == others(fields)
    if policy is not Forwarded.OFF:
        assert sorted(name for name, _ in result if name in FORWARDING) == sorted(FORWARDING)
        assert result[: len(others(fields))] == others(fields)


# ---- who is not trusted ---------------------------------------------------------------------------------------------


CLAIMS = {
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-client-cert",
    b"x-real-ip",
    b"cf-connecting-ip",
}
INNOCENT = {b"a", b"x-forward", b"x-forwarded", b"not-x-forwarded-for", b"x-real-ip-2", b"authorization"}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(Forwarded.OFF, set()), (Forwarded.APPEND, set(FORWARDING)), (Forwarded.REPLACE, set(FORWARDING))],
)
def test_where_a_stranger_says_he_comes_from_does_not_cross(policy: Forwarded, kept: set[bytes]) -> None:
    """But for what the policy itself replaces, or adds this hop to."""
    received = [(name, b"1") for name in sorted(CLAIMS | INNOCENT)]
    claims = claims_dropped(policy, "cf-connecting-ip")
    dropped = without_claims(NOT_COPIED, claims, received)
    assert {name for name, _ in received if name not in dropped} == INNOCENT | kept
    assert dropped >= NOT_COPIED
    assert without_claims(NOT_COPIED | {b"a"}, claims, received) == dropped | {b"a"}


def test_a_request_that_claims_nothing_shares_what_is_dropped() -> None:
    claims = claims_dropped(Forwarded.OFF, None)
    assert without_claims(NOT_COPIED, claims, [(b"a", b"x-forwarded-for")]) is claims


def test_the_field_that_proxies_use_may_be_one_that_the_policy_writes() -> None:
    for policy in Forwarded:
        dropped = claims_dropped(policy, "x-forwarded-for")
        assert (b"x-forwarded-for" in dropped) is (policy is Forwarded.OFF)
