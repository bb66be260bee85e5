"""A fake server on a port, and nothing about Lingpai in the environment."""

from collections.abc import Iterator

import pytest

from tests.fakes.management_api import FakeApi, serve


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LINGPAI_SERVER", "LINGPAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serve(FakeApi(local_administrator=False)) as fake:
        yield fake
