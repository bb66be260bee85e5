"""argon2id, in a pool that is bounded in threads and in waiting."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from lingpai.errors import LingpaiError
from lingpai.identity.passwords.hashing import HashingPool
from lingpai.identity.settings import IdentitySettings

PASSWORD = b"quiet harbour lamp"


@pytest.fixture
def pool() -> Iterator[HashingPool]:
    pool = HashingPool(IdentitySettings())
    yield pool
    pool.close()


def test_asvs_appendix_c_hash_is_argon2id_with_owasp_parameters(pool: HashingPool) -> None:
    stored = pool.hash(PASSWORD).result()

    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert stored != pool.hash(PASSWORD).result(), "each has a salt of its own"


def test_only_the_right_password_matches(pool: HashingPool) -> None:
    stored = pool.hash(PASSWORD).result()

    assert pool.is_right(stored, PASSWORD).result() is True
    assert pool.is_right(stored, PASSWORD + b"\0").result() is False
    assert pool.is_right(stored, b"").result() is False


def test_damaged_hash_signs_nobody_in(pool: HashingPool) -> None:
    for damaged in ("$argon2id$", "x", "$2b$12$abcdefghijklmnopqrstuv", ""):
        assert pool.is_right(damaged, PASSWORD).result() is False


def test_hash_with_other_parameters_still_matches_and_is_outdated(pool: HashingPool) -> None:
    weaker = HashingPool(IdentitySettings(password_passes=3, password_memory_kib=12_288))
    stored = weaker.hash(PASSWORD).result()
    weaker.close()

    assert pool.is_right(stored, PASSWORD).result() is True
    assert pool.is_outdated(stored)
    assert not pool.is_outdated(pool.hash(PASSWORD).result())


def test_full_pool_refuses_at_once_and_takes_again_when_there_is_room() -> None:
    pool = HashingPool(IdentitySettings(password_threads=1, password_queue=1))
    gate = threading.Event()
    running = [pool._run(gate.wait), pool._run(gate.wait)]

    with pytest.raises(LingpaiError) as caught:
        pool.hash(PASSWORD)
    gate.set()
    for future in running:
        future.result(timeout=10)

    assert (caught.value.code, caught.value.status, caught.value.headers) == (
        "server_busy",
        503,
        {"retry-after": "2"},
    )
    assert pool.hash(PASSWORD).result(timeout=10)
    pool.close()


def test_memory_of_a_password_is_given_back_and_the_sum_is_bounded() -> None:
    """Forty passwords, two at a time, leave hardly anything behind; 38 MiB are in use while they are hashed."""
    code = (
        "from lingpai.identity.passwords.hashing import HashingPool;"
        "from lingpai.identity.settings import IdentitySettings;"
        "read = lambda name: int(open('/proc/self/status').read().partition(name + ':')[2].split()[0]);"
        "pool = HashingPool(IdentitySettings()); pool.hash(b'x').result(); before = read('VmRSS');"
        "[each.result() for each in [pool.hash(b'x') for _ in range(40)]];"
        "print(read('VmRSS') - before, read('VmHWM') - before)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    left, most = map(int, said.split())
    assert left < 10_000
    assert most < 2 * 19_456 + 10_000


def test_argon2_is_not_loaded_before_there_is_a_password() -> None:
    """It brings cffi along: memory that a server without sign-ins should not spend."""
    code = (
        "import sys; from lingpai.identity.passwords.hashing import HashingPool;"
        "from lingpai.identity.settings import IdentitySettings; pool = HashingPool(IdentitySettings());"
        "print('argon2' in sys.modules); pool.hash(b'x').result(); print('argon2' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert said.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("passes", "memory", "least"), [(1, 47_103, 47_104), (2, 19_455, 19_456), (2, 12_288, 19_456)]
)
def test_asvs_appendix_c_weaker_parameters_stop_the_start(passes: int, memory: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"needs {least} KiB"):
        IdentitySettings(password_passes=passes, password_memory_kib=memory)


def test_idle_limit_cannot_be_longer_than_the_absolute_one() -> None:
    with pytest.raises(ValueError, match="session_idle_s"):
        IdentitySettings(session_idle_s=7200.0, session_lifetime_s=3600.0)
