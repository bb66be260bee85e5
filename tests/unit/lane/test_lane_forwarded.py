"""Whose word about a caller is taken, and how far: X-Forwarded-For, X-Forwarded-Proto, Forwarded."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lingpai.lane.forwarded import MAX_HOPS, Caller, Proxies, node_address

PROXY = "10.0.0.2"
CALLER = "203.0.113.7"
DECLARED = ["10.0.0.0/8", "2001:db8:aa::/48"]


def x_forwarded_for(*values, proto=None):
    headers = [(b"host", b"models.example"), *[(b"x-forwarded-for", value.encode()) for value in values]]
    return headers + ([] if proto is None else [(b"x-forwarded-proto", proto.encode())])


def forwarded(*values):
    return [(b"host", b"models.example"), *[(b"forwarded", value.encode()) for value in values]]


# -- addresses


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:1234", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:0DB8:0:0::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:1234", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:c000:207]:1", "192.0.2.7"),
        ("::1", "::1"),
    ],
)
def test_address_is_read_in_each_of_its_forms(node, address):
    assert node_address(node.encode()) == address


@pytest.mark.parametrize(
    "node",
    [
        "", "unknown", "_hidden", "_SEVKISEK:80", "localhost", "192.0.2", "192.0.2.256", "192.0.2.07", "192.0.2.7:",
        "192.0.2.7:port", "192.0.2.7:123456", "[192.0.2.7]", "[2001:db8::7", "2001:db8::7]", "[2001:db8::7]:", "fe80::1%eth0",
        "[]", ":", "::g", "1.2.3.4 5.6.7.8", "192.0.2.7\n", "http://192.0.2.7", "０.0.0.0", "192.0.2.7/32", "0x7f.0.0.1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_none(node):
    assert node_address(node.encode()) == ""


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_whatever_stands_there_is_an_address_or_nothing(node):
    found = node_address(node)

    assert found == "" or str(ipaddress.ip_address(found)) == found


@settings(deadline=None)
@given(st.ip_addresses(), st.integers(0, 65535) | st.none())
def test_every_address_is_understood(address, port):
    text = f"[{address}]" if address.version == 6 and port is not None else str(address)

    found = ipaddress.ip_address(node_address(f"{text}{'' if port is None else f':{port}'}".encode()))

    assert found in (address, getattr(address, "ipv4_mapped", None))


# -- declared proxies


@pytest.mark.parametrize(
    ("address", "is_declared"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8:aa::5", True),
        ("11.0.0.1", False),
        ("2001:db8:ab::5", False),
        ("", False),
        ("proxy.example", False),
    ],
)
def test_a_proxy_is_declared_by_network(address, is_declared):
    assert (address in Proxies(DECLARED)) == is_declared


@pytest.mark.parametrize("text", ["everybody", "10.0.0.1/8", "10.0.0.0/33", "", "*", "0.0.0.0/0", "::/0"])
def test_what_declares_nobody_or_everybody_is_refused(text):
    with pytest.raises(ValueError, match=r"no address|everybody"):
        Proxies([text])


def test_without_any_nobody_is_a_proxy():
    assert not Proxies()
    assert "127.0.0.1" not in Proxies()


# -- X-Forwarded-For


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ([CALLER], CALLER),
        ([f"{CALLER}:4711"], CALLER),
        (["2001:db8::7"], "2001:db8::7"),
        (["1.1.1.1, 203.0.113.7"], CALLER),  # the caller wrote 1.1.1.1
        (["127.0.0.1,10.0.0.9 ,203.0.113.7"], CALLER),
        (["1.1.1.1", "203.0.113.7"], CALLER),  # in two headers
        (["203.0.113.7, 10.0.0.9"], CALLER),  # two declared proxies
        (["1.1.1.1, 203.0.113.7, 10.0.0.9,10.0.0.8"], CALLER),
        (["203.0.113.7", "10.0.0.9"], CALLER),
        (["10.0.0.7, 10.0.0.9"], "10.0.0.7"),  # the caller is where the proxies are
        (["garbage, 203.0.113.7"], CALLER),  # what the caller wrote hides nobody
        ([", , 203.0.113.7"], CALLER),
        (['for="1.1.1.1, 203.0.113.7'], CALLER),
        (["203.0.113.7, garbage, 10.0.0.9"], "10.0.0.9"),  # no further than somebody vouches
        (["unknown"], PROXY),
        (["203.0.113.7, "], PROXY),
        (["203.0.113.7 1.1.1.1"], PROXY),
        ([""], PROXY),
        ([], PROXY),
    ],
)
def test_caller_is_the_right_most_that_is_no_proxy(values, address):
    assert Proxies(DECLARED).caller(PROXY, x_forwarded_for(*values)).address == address


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [("https", "https"), ("http", "http"), ("HTTPS", "https"), ("https, http", "http"), ("ftp", ""), ("", ""), (None, "")],
)  # fmt: skip
def test_scheme_is_what_the_nearest_proxy_says(proto, scheme):
    assert Proxies(DECLARED).caller(PROXY, x_forwarded_for(CALLER, proto=proto)) == Caller(CALLER, scheme)


def test_only_so_many_hops_are_read():
    chain = ", ".join([CALLER, *(f"10.0.{number // 250}.{number % 250}" for number in range(20_000))])

    found = Proxies(DECLARED).caller(PROXY, x_forwarded_for(chain)).address

    assert found == f"10.0.{(20_000 - MAX_HOPS) // 250}.{(20_000 - MAX_HOPS) % 250}"


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=6), st.ip_addresses().filter(lambda each: not each.is_private))
def test_nothing_a_caller_writes_changes_what_the_proxy_has_seen(written, address):
    """Property: left of the proxy's own entry, anything may stand."""
    values = [text.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"") for text in written]
    proxies = Proxies(DECLARED)
    if str(address) in proxies:
        return
    headers = [(b"x-forwarded-for", value) for value in values] + [
        (b"x-forwarded-for", str(address).encode())
    ]
    one_header = [(b"x-forwarded-for", b",".join([*values, str(address).encode()]))]

    assert (
        {proxies.caller(PROXY, each).address for each in (headers, one_header)}
        == {node_address(str(address).encode())}
    )  # fmt: skip


# -- Forwarded (RFC 7239)


@pytest.mark.parametrize(
    ("values", "caller"),
    [
        (["for=203.0.113.7"], Caller(CALLER, "")),
        (["For=203.0.113.7;Proto=HTTPS;by=10.0.0.2"], Caller(CALLER, "https")),
        (['for="203.0.113.7:4711"; proto=http'], Caller(CALLER, "http")),
        (['for="[2001:db8::7]"'], Caller("2001:db8::7", "")),
        (['for="[2001:db8::7]:4711";host="models.example:443";proto=https'], Caller("2001:db8::7", "https")),
        (["for=1.1.1.1, for=203.0.113.7;proto=https"], Caller(CALLER, "https")),
        (["for=203.0.113.7;proto=https, for=10.0.0.9;proto=http"], Caller(CALLER, "https")),
        (["for=1.1.1.1", "for=203.0.113.7"], Caller(CALLER, "")),
        (['for="1.1.1.1, for=203.0.113.7'], Caller(CALLER, "")),  # a quote that the caller left open
        (["for=203.0.113.7, for=unknown, for=10.0.0.9"], Caller("10.0.0.9", "")),
        (["for=_hidden"], Caller(PROXY, "")),
        (["for=203.0.113.7;for=1.1.1.1"], Caller(PROXY, "")),
        (["203.0.113.7"], Caller(PROXY, "")),
        (["proto=https"], Caller(PROXY, "")),
        (["for=203.0.113.7;"], Caller(PROXY, "")),
        (["for = 203.0.113.7"], Caller(PROXY, "")),
        ([], Caller(PROXY, "")),
    ],
)
def test_rfc7239_s4_caller_is_the_right_most_that_is_no_proxy(values, caller):
    assert Proxies(DECLARED, header="forwarded").caller(PROXY, forwarded(*values)) == caller


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_rfc7239_s8_1_nothing_a_caller_writes_changes_what_the_proxy_has_seen(written):
    values = [text.encode("utf-8", "replace") for text in written]
    header = b",".join([*values, b"for=203.0.113.7;proto=https"])

    found = Proxies(DECLARED, header="forwarded").caller(PROXY, [(b"forwarded", header)])

    assert found == Caller(CALLER, "https")


def test_only_the_header_that_the_proxies_write_is_read():
    both = [*x_forwarded_for("203.0.113.7", proto="https"), *forwarded("for=198.51.100.1;proto=http")]

    assert Proxies(DECLARED).caller(PROXY, both) == Caller(CALLER, "https")
    assert Proxies(DECLARED, header="forwarded").caller(PROXY, both) == Caller("198.51.100.1", "http")
