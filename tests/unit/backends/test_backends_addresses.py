"""What callers may have fetched: every form in which an inner address hides."""

from ipaddress import ip_address

import pytest

from lingpai.backends.engines.addresses import is_public, read_url


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
     "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
     "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
     "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
     "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "64:ff9b:1::1",
     "168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110", "192.0.0.8", "192.88.99.1", "fec0::1", "3fff::1"],
)  # fmt: skip
def test_inner_addresses_are_not_public_in_any_form(address):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com/a.png", "file:///etc/passwd", "gopher://example.com/", "unix:///run/a.sock", "http:///a.png",
     "http+unix://%2Frun%2Fa.sock/", "//example.com/a.png", "http://", "https://:443/", "data:image/png;base64,AA",
     "http://user@example.com/", "http://user:secret@example.com/", "http://example.com@127.0.0.1/",
     "http://127.0.0.1\\@example.com/", "http://example.com\\.evil.example/", "http://exam ple.com/",
     "http://example.com/\r\nHost: inner", "http://example.com/\x00", "http://2130706433/", "http://0x7f000001/",
     "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://0/", "http://1.2.3.4.5/", "http://127.0.0.1./",
     "http://[::1%25eth0]/", "http://[::1/", "http://[localhost]/", "http://exämple.com/", "http://⑯⑨.254.169.254/",
     "http://example.com:22/", "http://example.com:25/a", "http://example.com:0/", "http://example.com:99999/",
     "http://exa_mple..com/", "http://.com/", "http://%31%32%37.0.0.1/", "http://example.com/" + "a" * 2000],
)  # fmt: skip
def test_urls_of_doubtful_meaning_are_refused(url):
    with pytest.raises(ValueError, match=r"\w"):
        read_url(url)


@pytest.mark.parametrize(
    ("url", "authority", "port", "target"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("http://Example.com:80/a/b.png?x=1&y=%20#part", "example.com", 80, "/a/b.png?x=1&y=%20"),
        ("https://example.com:8443/a", "example.com:8443", 8443, "/a"),
        ("https://example.com/图.png?q=图", "example.com", 443, "/%E5%9B%BE.png?q=%E5%9B%BE"),
        ("http://93.184.216.34/a", "93.184.216.34", 80, "/a"),
        ("http://[2606:4700::1111]:8080/a", "[2606:4700::1111]:8080", 8080, "/a"),
        ("https://xn--exmple-cua.com/a", "xn--exmple-cua.com", 443, "/a"),
    ],
)
def test_usual_urls_are_taken_apart(url, authority, port, target):
    place = read_url(url)

    assert (place.authority, place.port, place.target) == (authority, port, target)
