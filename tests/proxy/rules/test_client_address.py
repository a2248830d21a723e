"""The client's own address: what proxies that are trusted say, and nothing that others say."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.rules.client_address import REMEMBERED_BYTES_MAX, ClientAddresses, client_address, forwarded_nodes
from proxy.rules.headers import Header

NETWORKS = ("10.0.0.0/8", "2001:db8::/32", "127.0.0.1/32")
TRUSTED = [ip_network(network) for network in NETWORKS]
PROXY, CLIENT = "10.0.0.1", "203.0.113.5"


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        # a proxy that is trusted says who it was reached from
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("2001:db8::1", ["2001:4860::1"], "2001:4860::1"),
        ("::ffff:10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["::ffff:203.0.113.5"], "203.0.113.5"),
        # several of them in a row
        ("10.0.0.1", ["203.0.113.5, 10.0.0.3,10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5", "10.0.0.3", "10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # what the client itself has written stands further left
        ("10.0.0.1", ["127.0.0.1, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["127.0.0.1, 10.9.9.9, 203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["127.0.0.1", "203.0.113.5"], "203.0.113.5"),
        # nobody else is believed
        ("203.0.113.5", ["127.0.0.1"], "203.0.113.5"),
        ("203.0.113.5", ["10.0.0.1, 10.0.0.2"], "203.0.113.5"),
        ("local", ["127.0.0.1"], "local"),
        ("", ["127.0.0.1"], ""),
        # with ports, as some proxies write
        ("10.0.0.1", ["203.0.113.5:4711"], "203.0.113.5"),
        ("10.0.0.1", ["[2001:4860::1]:4711"], "2001:4860::1"),
        ("10.0.0.1", ["[2001:4860::1]"], "2001:4860::1"),
        # what is no address ends the reading
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.5, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.5,"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5:"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5:http"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:4860::1]x"], "10.0.0.1"),
        ("10.0.0.1", ["[203.0.113.5"], "10.0.0.1"),
        ("10.0.0.1", ["٢٠٣.0.113.5"], "10.0.0.1"),
        # nor is one that only its own machine knows, or what would look like one
        ("10.0.0.1", ["fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", ['fe80::1%"} {"client": "::1'], "10.0.0.1"),
        ("fe80::1%eth0", ["203.0.113.5"], "fe80::1%eth0"),
    ],
)
def test_the_list_is_read_from_the_right_as_far_as_it_is_trusted(peer: str, fields: list[str], client: str) -> None:
    assert client_address(peer, fields, TRUSTED) == client


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client_address("10.0.0.1", ["203.0.113.5"], []) == "10.0.0.1"
    assert client_address("::ffff:10.0.0.1", ["203.0.113.5"], []) == "::ffff:10.0.0.1"


@given(st.text(), st.lists(st.text(alphabet="0123456789.:,[]a ")))
def test_nothing_that_a_client_writes_before_a_proxy_changes_what_that_says(peer: str, written: list[str]) -> None:
    assert client_address("10.0.0.1", [*written, "203.0.113.5"], TRUSTED) == "203.0.113.5"
    assert client_address("203.0.113.5", written, TRUSTED) == "203.0.113.5"
    client_address(peer, written, TRUSTED)


# ---- a listener's clients -------------------------------------------------------------------------------------------


XFF, FORWARDED, REAL = b"x-forwarded-for", b"forwarded", b"x-real-ip"


@pytest.mark.parametrize(
    ("header", "fields", "client"),
    [
        # Without a field of its own it is X-Forwarded-For,
        (None, [(XFF, b"203.0.113.5")], CLIENT),
        (None, [(XFF, b"127.0.0.1, 203.0.113.5, 10.0.0.3"), (XFF, b"10.0.0.2")], CLIENT),
        (None, [(XFF, b"::ffff:203.0.113.5")], CLIENT),
        (None, [], PROXY),
        (None, [(REAL, b"203.0.113.5")], PROXY),
        # and where there is none, Forwarded.
        (None, [(FORWARDED, b"for=203.0.113.5")], CLIENT),
        (None, [(XFF, b""), (FORWARDED, b"for=203.0.113.5")], CLIENT),
        # A proxy that writes the one may pass a client's own other one, which must not count.
        (None, [(FORWARDED, b"for=127.0.0.1"), (XFF, b"203.0.113.5")], CLIENT),
        (None, [(XFF, b"203.0.113.5"), (FORWARDED, b"for=127.0.0.1")], CLIENT),
        (None, [(XFF, b"unknown"), (FORWARDED, b"for=203.0.113.5")], PROXY),
        ("x-forwarded-for", [(FORWARDED, b"for=203.0.113.5")], PROXY),
        ("x-forwarded-for", [(XFF, b"127.0.0.1, 203.0.113.5, 10.0.0.3"), (XFF, b"10.0.0.2")], CLIENT),
        ("forwarded", [(XFF, b"127.0.0.1"), (FORWARDED, b"for=203.0.113.5")], CLIENT),
        ("forwarded", [(XFF, b"203.0.113.5")], PROXY),
        # Any other field has the address itself, of several the last.
        ("x-real-ip", [(REAL, b"203.0.113.5")], CLIENT),
        ("x-real-ip", [(REAL, b" 203.0.113.5\t")], CLIENT),
        ("x-real-ip", [(REAL, b"10.0.0.9")], "10.0.0.9"),
        ("x-real-ip", [(REAL, b"[2001:4860::1]:80")], "2001:4860::1"),
        ("x-real-ip", [(REAL, b"127.0.0.1"), (REAL, b"203.0.113.5")], CLIENT),
        ("x-real-ip", [(REAL, b"127.0.0.1, 203.0.113.5")], CLIENT),
        ("x-real-ip", [(REAL, b"127.0.0.1, 10.0.0.2")], "10.0.0.2"),
        ("x-real-ip", [(REAL, b"203.0.113.5,")], PROXY),
        ("x-real-ip", [(REAL, b"203.0.113.5"), (REAL, b"garbage")], PROXY),
        ("x-real-ip", [(XFF, b"203.0.113.5"), (FORWARDED, b"for=203.0.113.5")], PROXY),
        ("cf-connecting-ip", [(REAL, b"127.0.0.1"), (b"cf-connecting-ip", b"203.0.113.5")], CLIENT),
    ],
)
def test_a_proxy_is_believed_in_its_own_field_alone(header: str | None, fields: list[Header], client: str) -> None:
    for clients in (ClientAddresses(NETWORKS, header), ClientAddresses([*NETWORKS, "192.0.2.0/24"], header)):
        assert [clients.of(PROXY, fields) for _ in range(2)] == [client] * 2


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (b"for=203.0.113.5", CLIENT),
        (b"FOR=203.0.113.5", CLIENT),
        (b"proto=https;for=203.0.113.5;by=_proxy;host=a.example", CLIENT),
        (b' ;proto=https ; for="203.0.113.5" ;', CLIENT),
        (b'for="203.0.113.5:4711"', CLIENT),
        (b'for="203.0.113.5:_port"', CLIENT),
        (b'for="[2001:4860::1]"', "2001:4860::1"),
        (b'for="[2001:4860::1]:4711"', "2001:4860::1"),
        (b'for="[::ffff:203.0.113.5]"', CLIENT),
        (b'for="2\\03.0.113.5"', CLIENT),
        (b'for=127.0.0.1, for=203.0.113.5;host="a, b; for=127.0.0.1", for="[2001:db8::7]"', CLIENT),
        # as some proxies write, though it is not allowed
        (b"for=203.0.113.5:4711", CLIENT),
        (b"for=[2001:4860::1]", "2001:4860::1"),
        # who hides, or writes what is none, ends the reading
        (b"for=unknown", PROXY),
        (b"for=_hidden", PROXY),
        (b"for=203.0.113.5, for=_hidden, for=10.0.0.2", "10.0.0.2"),
        (b"for=203.0.113.5, proto=http", PROXY),
        (b"for=203.0.113.5,", PROXY),
        (b"for=203.0.113.5;for=127.0.0.1", PROXY),
        (b"for=203.0.113.5;;proto", PROXY),
        (b"for = 203.0.113.5", PROXY),
        (b'for="203.0.113.5', PROXY),
        (b'for=203.0.113.5"', PROXY),
        (b'for="203.0.113.5"x', PROXY),
        (b'for="[fe80::1%25eth0]"', PROXY),
        (b"203.0.113.5", PROXY),
        # a client's open quote does not swallow what the proxy says
        (b'for="127.0.0.1, for=203.0.113.5', CLIENT),
        (b'for=127.0.0.1;a="x, for=203.0.113.5;host="b"', CLIENT),
        (b'for=127.0.0.1;a="\\, for=203.0.113.5;host="b\\"c\\\\"', CLIENT),
    ],
)
def test_forwarded_is_read_as_rfc_7239_writes_it(value: bytes, client: str) -> None:
    assert ClientAddresses(NETWORKS).of(PROXY, [(FORWARDED, value)]) == client


def test_forwarded_in_several_lines_is_one_list() -> None:
    lines = [(FORWARDED, b'for="127.0.0.1'), (FORWARDED, b"for=203.0.113.5"), (FORWARDED, b'for="[2001:db8::7]"')]
    assert ClientAddresses(NETWORKS).of(PROXY, lines) == CLIENT


def test_a_value_that_is_too_long_to_be_remembered_is_read_alike() -> None:
    value = b"127.0.0.1, " * REMEMBERED_BYTES_MAX + b"203.0.113.5, 10.0.0.2"
    assert ClientAddresses(NETWORKS).of(PROXY, [(XFF, value)]) == CLIENT


fields = st.lists(st.tuples(st.sampled_from((XFF, FORWARDED, REAL, b"a")), st.binary(max_size=30)))
headers = st.none() | st.sampled_from(("x-forwarded-for", "forwarded", "x-real-ip"))
strangers = st.sampled_from(("203.0.113.5", "2001:4860::1", "::ffff:203.0.113.5", "", "local", "10.0.0.1%x"))
written = st.text(alphabet='0127.:,;=for_ab"\\[] \t%', max_size=40).map(str.encode) | st.sampled_from(
    (b'for="', b"for=127.0.0.1", b"127.0.0.1", b'for="[2001:db8::1]', b'a="\\', b'"')
)


@given(strangers, headers, fields)
def test_who_is_not_trusted_can_say_what_he_likes(peer: str, header: str | None, said: list[Header]) -> None:
    assert not ClientAddresses(NETWORKS, header).trusts(peer)
    assert ClientAddresses(NETWORKS, header).of(peer, said) == peer
    assert ClientAddresses((), header).of(peer, said) == peer
    assert ClientAddresses((), header).of(PROXY, said) == PROXY


@given(headers, st.lists(written, max_size=4), st.sampled_from((b", ", b",")), fields, st.integers(0, 2))
def test_what_a_client_has_written_before_the_first_proxy_never_counts(
    header: str | None, before: list[bytes], comma: bytes, others: list[Header], proxies: int
) -> None:
    """Within the proxy's line or in lines of its own, in its field or, where the setting names one, in any other."""
    field = (header or "x-forwarded-for").encode()
    hops = [b"203.0.113.5", *[b"10.0.0.%d" % number for number in range(proxies)]]
    if field == FORWARDED:
        hops = [b'for="%b:80";host="a, \\"b;for=127.0.0.1"' % hop for hop in hops]
    elif field == REAL:
        hops = hops[:1]
    clients = ClientAddresses(NETWORKS, header)
    others = [pair for pair in others if pair[0] != field]
    in_its_line = [*others, (field, comma.join([*before, *hops]))]
    in_lines_before = [*others, *((field, line) for line in before), (field, comma.join(hops))]
    assert clients.of(PROXY, in_its_line) == clients.of(PROXY, in_lines_before) == CLIENT


values = st.text(alphabet='ab,;="\\ ', max_size=8)
nodes = st.sampled_from(("192.0.2.1", "[2001:db8::1]:80", "unknown", "_hidden"))


@given(st.lists(st.tuples(nodes, values), min_size=1, max_size=5))
def test_forwarded_that_is_well_formed_is_read_whole(elements: list[tuple[str, str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(f"by={quoted(value)};for={quoted(node)};host={quoted(value)}" for node, value in elements)
    assert list(forwarded_nodes(text)) == [node for node, _ in reversed(elements)]
