"""Signatures: by the newest key, verified by any that is known, over every byte and for one purpose."""

import base64
import json
import subprocess
import sys

import pytest

from lingpai.audit.canonical import canonical
from lingpai.audit.keys import AuditKeyError, KeyFile, ensure_keys, read_keys
from lingpai.audit.signer import Signer
from lingpai.audit.signing import PublicKeys, key_id, public_from_text, public_keys, public_text, rotate, sign

STATEMENT = {"type": "checkpoint", "number": 7, "hash": "ab" * 32, "time": "2026-11-18T11:06:40.000Z"}
# RFC 8037, appendix A: a private key, its public half and its thumbprint.
SEED = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
PUBLIC = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "secrets" / "audit.json"
    ensure_keys(path)
    return path


def test_rfc8037_a2_a3_public_key_and_thumbprint():
    keys = public_keys(KeyFile(seeds={1: SEED}, public={}))

    assert public_text(keys[1]) == PUBLIC
    assert key_id(keys[1]) == THUMBPRINT
    assert public_from_text(PUBLIC) == keys[1]


@pytest.mark.parametrize("text", ["", "abc", PUBLIC[:-1], PUBLIC + "AAAA", "!" * 43])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        public_from_text(text)


def test_a_signed_statement_is_vouched_for(path):
    keys = read_keys(path)

    signed = json.loads(sign(keys, STATEMENT))

    assert PublicKeys(public_keys(keys).values()).vouch_for(signed)
    assert {name: signed[name] for name in STATEMENT} == STATEMENT


@pytest.mark.parametrize("field", ["type", "number", "hash", "time", "key", "signature"])
def test_any_other_field_is_not_vouched_for(path, field):
    keys = read_keys(path)
    signed = json.loads(sign(keys, STATEMENT))
    public = PublicKeys(public_keys(keys).values())

    for other in ("x", None, 8, ["x"], {}):
        assert not public.vouch_for({**signed, field: other})
    assert not public.vouch_for({name: value for name, value in signed.items() if name != field})
    assert not public.vouch_for({**signed, "more": 1})


def test_a_signature_without_the_context_is_none(path):
    """Whatever else the key might sign elsewhere is no statement here."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    keys = KeyFile(seeds={1: SEED}, public={})
    unsigned = {**STATEMENT, "key": THUMBPRINT}
    signature = Ed25519PrivateKey.from_private_bytes(SEED).sign(canonical(unsigned).encode())
    text = base64.urlsafe_b64encode(signature).decode().rstrip("=")

    assert not PublicKeys(public_keys(keys).values()).vouch_for({**unsigned, "signature": text})


def test_what_was_signed_before_a_rotation_is_still_vouched_for_and_the_old_private_key_is_gone(path):
    old = read_keys(path)
    signed = json.loads(sign(old, STATEMENT))

    before, after = rotate(path, b"n" * 32)

    keys = read_keys(path)
    public = PublicKeys(public_keys(keys).values())
    assert public.vouch_for(signed)
    assert before == signed["key"]
    assert json.loads(sign(keys, STATEMENT))["key"] == after != before
    assert old.newest.hex() not in path.read_text()
    assert list(public_keys(keys)) == [1, 2]


def test_the_signer_signs_in_a_process_of_its_own(path):
    signed = json.loads(Signer(path).sign(STATEMENT))

    assert PublicKeys(public_keys(read_keys(path)).values()).vouch_for(signed)


def test_a_signer_without_keys_says_why(path):
    path.chmod(0o644)

    with pytest.raises(AuditKeyError, match="chmod 600"):
        Signer(path).sign(STATEMENT)


def test_the_server_loads_no_library_for_cryptography():
    """It would take 7 MB, and hold the key."""
    code = "import sys, lingpai.app; sys.exit('cryptography' in sys.modules or 'lingpai.audit.signing' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
