"""Which access tokens there are: right while it is read anew, and after a reading that failed."""

import threading
from collections.abc import Iterator

import pytest

from lingpai.identity.token_ids import TokenIds
from lingpai.ids import random_base62


class Source:
    """Ids that are read when the test says so; one that cannot be read when it says that."""

    def __init__(self, *ids: str) -> None:
        self.ids = list(ids)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fails = False

    def key_ids(self) -> Iterator[str]:
        ids = list(self.ids)
        assert self.may_go_on.wait(10)
        if self.fails:
            raise OSError("cannot be read")
        yield from ids

    def count_keys(self) -> int:
        return len(self.ids)


def wait_for_readers() -> None:
    for thread in threading.enumerate():
        if thread.name == "lingpai-key-ids":
            thread.join(10)


def renewed(ids: TokenIds, source: Source) -> None:
    """Read and take over."""
    ids.renew(source)
    wait_for_readers()
    ids.renew(source)


def an_id() -> str:
    return random_base62(12)


def test_until_the_first_reading_is_done_all_are_known():
    """No token may be refused only because the server has just begun."""
    ids = TokenIds()
    source = Source()
    assert ids.is_known(b"anything")

    source.may_go_on.clear()
    ids.renew(source)
    assert ids.is_known(b"anything")

    source.may_go_on.set()
    wait_for_readers()
    assert not ids.is_known(b"anything")


def test_token_given_out_before_during_and_after_the_first_reading_is_known():
    ids, source = TokenIds(), Source(before := an_id())
    source.may_go_on.clear()
    ids.renew(source)
    ids.add(during := an_id())
    source.may_go_on.set()
    wait_for_readers()
    ids.add(after := an_id())

    assert all(ids.is_known(each.encode()) for each in (before, during, after))


def test_token_given_out_while_it_is_read_anew_is_known_before_and_after():
    """Its row may be too new for the reading, and the memory before is thrown away."""
    ids, source = TokenIds(), Source(old := an_id())
    ids.renew(source)
    wait_for_readers()
    source.may_go_on.clear()
    ids.renew(source)
    ids.add(new := an_id())
    assert ids.is_known(new.encode())

    source.may_go_on.set()
    wait_for_readers()
    ids.renew(source)
    ids.add(newer := an_id())

    assert all(ids.is_known(each.encode()) for each in (old, new, newer))


def test_ids_of_tokens_that_are_gone_are_forgotten():
    """Two readings after they went; else the memory would grow for ever."""
    ids, source = TokenIds(), Source(gone := an_id(), stays := an_id())
    ids.renew(source)
    wait_for_readers()
    source.ids.remove(gone)

    renewed(ids, source)

    assert ids.is_known(stays.encode())
    assert not ids.is_known(gone.encode())


def test_reading_that_takes_longer_than_the_pause_is_not_begun_twice():
    ids, source = TokenIds(), Source(old := an_id())
    ids.renew(source)
    wait_for_readers()
    source.may_go_on.clear()
    for _ in range(5):
        ids.renew(source)
        ids.add(new := an_id())

    assert sum(thread.name == "lingpai-key-ids" for thread in threading.enumerate()) == 1
    source.may_go_on.set()
    wait_for_readers()
    ids.renew(source)
    assert all(ids.is_known(each.encode()) for each in (old, new))


def test_first_reading_that_failed_is_made_up_for(caplog: pytest.LogCaptureFixture):
    """Until then all are known, which costs look-ups and nothing else."""
    ids, source = TokenIds(), Source(known := an_id())
    source.fails = True
    ids.renew(source)
    wait_for_readers()
    source.ids.append(new := an_id())
    ids.add(new)
    assert ids.is_known(b"anything")

    source.fails = False
    renewed(ids, source)
    wait_for_readers()

    assert not ids.is_known(b"anything")
    assert all(ids.is_known(each.encode()) for each in (known, new))
    caplog.clear()


def test_later_reading_that_failed_is_begun_again(caplog: pytest.LogCaptureFixture):
    """One locked database must not mean that the ids of tokens that are gone stay for good."""
    ids, source = TokenIds(), Source(gone := an_id(), stays := an_id())
    ids.renew(source)
    wait_for_readers()
    source.ids.remove(gone)
    source.fails = True
    ids.renew(source)
    wait_for_readers()
    ids.add(new := an_id())
    source.ids.append(new)
    source.fails = False

    for _ in range(2):
        renewed(ids, source)

    assert not ids.is_known(gone.encode())
    assert all(ids.is_known(each.encode()) for each in (stays, new))
    caplog.clear()


def test_many_given_out_during_readings_are_all_known():
    """Whenever the readings begin and end."""
    ids, source = TokenIds(), Source()
    made = []
    for number in range(3000):
        made.append(an_id())
        source.ids.append(made[-1])  # the commit
        if number % 100 == 50:
            ids.renew(source)
        ids.add(made[-1])  # after it
        if number % 300 == 250:
            wait_for_readers()
    wait_for_readers()
    ids.renew(source)

    assert all(ids.is_known(each.encode()) for each in made)
