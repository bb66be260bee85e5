"""The file with the signing keys: made once, closed to others, rotated without losing what was signed."""

import json
import stat

import pytest

from lingpai.audit.keys import AuditKeyError, KeyFile, ensure_keys, read_keys, write_keys


@pytest.fixture
def path(tmp_path):
    return tmp_path / "secrets" / "audit.json"


def test_keys_are_made_once_and_only_their_owner_may_read_them(path):
    ensure_keys(path)
    first = path.read_bytes()

    ensure_keys(path)

    assert path.read_bytes() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]
    found = json.loads(first)
    assert list(found) == ["keys"]
    assert read_keys(path).newest == bytes.fromhex(found["keys"]["1"])


def test_the_newest_version_signs(path):
    ensure_keys(path)

    write_keys(path, KeyFile(seeds={9: b"9" * 32, 10: b"x" * 32}, public={1: b"1" * 32}))

    keys = read_keys(path)
    assert keys.newest == b"x" * 32
    assert keys.public == {1: b"1" * 32}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_shows_a_key(path):
    ensure_keys(path)

    assert "seeds" not in repr(read_keys(path))


def test_a_file_that_others_may_read_is_refused(path):
    ensure_keys(path)
    path.chmod(0o640)

    with pytest.raises(AuditKeyError, match="chmod 600"):
        read_keys(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"keys": {}}',
        '{"keys": {"1": "ab"}}',
        '{"keys": {"x": ""}}',
        '{"keys": {"1": "zz"}}',
        '{"keys": ["SECRET"]}',
    ],
)
def test_a_damaged_file_is_refused_without_showing_it(path, content):
    ensure_keys(path)
    path.write_text(content)

    with pytest.raises(AuditKeyError, match="is damaged") as refused:
        read_keys(path)

    assert refused.value.__cause__ is None
    assert "SECRET" not in str(refused.value)


def test_a_missing_file_is_told(path):
    with pytest.raises(AuditKeyError, match="There is no"):
        read_keys(path)
