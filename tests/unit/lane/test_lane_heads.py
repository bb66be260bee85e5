"""The rules for the head of a request."""

import pytest

from lingpai.lane.heads import MAX_HEAD_BYTES, MAX_HEADERS, problem_with_head, without_upgrade

HOST = (b"host", b"a")


@pytest.mark.parametrize(
    ("version", "headers", "is_proper"),
    [
        ("1.1", [HOST], True),
        ("1.1", [], False),
        ("1.1", [HOST, HOST], False),
        ("1.0", [], True),
        ("1.0", [HOST, HOST], False),
    ],
)
def test_a_request_has_one_host_and_only_http_1_0_may_go_without(version, headers, is_proper):
    problem = problem_with_head(b"/", headers, version=version, received=10)

    assert (problem is None) == is_proper


def test_as_many_headers_as_may_be_are_proper_and_one_more_is_not():
    most = [HOST] + [(b"x-%d" % number, b"") for number in range(MAX_HEADERS - 1)]

    within = problem_with_head(b"/", most, version="1.1", received=10)
    over = problem_with_head(b"/", [*most, (b"y", b"")], version="1.1", received=10)

    assert within is None
    assert over == (431, f"More than {MAX_HEADERS} headers. Send fewer.")


def test_what_came_behind_the_head_in_the_same_piece_does_not_count():
    large = [HOST, (b"x", b"a" * MAX_HEAD_BYTES)]
    received = MAX_HEAD_BYTES + 1000

    small_head = problem_with_head(b"/", [HOST], version="1.1", received=received)
    large_head = problem_with_head(b"/", large, version="1.1", received=received)

    assert small_head is None
    assert large_head is not None
    assert large_head[0] == 431


def test_only_the_wish_to_upgrade_is_taken_out_of_a_head():
    headers = [HOST, (b"upgrade", b"h2c"), (b"connection", b"upgrade"), (b"content-length", b"2")]

    kept = without_upgrade(b"POST", b"/v1", headers, version="1.1", keep_alive=True)
    closing = without_upgrade(b"POST", b"/v1", headers, version="1.1", keep_alive=False)

    assert kept == b"POST /v1 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"
    assert closing == kept.replace(b"host", b"connection: close\r\nhost")
