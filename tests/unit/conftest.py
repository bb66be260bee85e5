"""What every unit test starts from."""

from collections.abc import Iterator

import pytest

from lingpai.web.origin import current_origin


@pytest.fixture(autouse=True)
def no_origin() -> Iterator[None]:
    """Commands that are run in the process of the tests say that whatever follows comes from them."""
    before = current_origin.set(None)
    yield
    current_origin.reset(before)
