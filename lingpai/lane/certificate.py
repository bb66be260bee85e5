"""Until when a certificate is valid: the two times in it (RFC 5280, section 4.1.2.5).

The standard library does not tell what is in our own certificate, and the package that does takes megabytes of a server's
memory. Two times at a fixed place of a structure that OpenSSL has accepted can be read without it.
"""

import ssl
from datetime import UTC, datetime
from typing import Final, NamedTuple

_SEQUENCE: Final = 0x30
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_VERSION: Final = 0xA0


class Validity(NamedTuple):
    """From when until when a certificate is valid, in seconds since 1970."""

    begins_at: float
    ends_at: float


def validity(pem: str) -> Validity:
    """When the first certificate in `pem` is valid. Raises ValueError when there is none or it cannot be read."""
    begin = pem.find(ssl.PEM_HEADER)
    end = pem.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        raise ValueError("there is no certificate in it")
    der = ssl.PEM_cert_to_DER_cert(pem[begin : end + len(ssl.PEM_FOOTER)])
    try:
        _, certificate, _ = _element(der, _SEQUENCE)
        _, fields, _ = _element(certificate, _SEQUENCE)
        tag, _, rest = _element(fields)
        if tag == _VERSION:
            _, _, rest = _element(rest)  # the serial number
        for _ in ("signature algorithm", "issuer"):
            _, _, rest = _element(rest, _SEQUENCE)
        _, times, _ = _element(rest, _SEQUENCE)
        first, begins_at, rest = _element(times)
        second, ends_at, _ = _element(rest)
        return Validity(_time(first, begins_at), _time(second, ends_at))
    except IndexError as error:
        raise ValueError("the certificate is cut off") from error


def _element(data: bytes, expected: int | None = None) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows of the first element of `data` (X.690, section 8.1)."""
    tag, length, start = data[0], data[1], 2
    if expected is not None and tag != expected:
        raise ValueError("the certificate has another structure than certificates have")
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    if start + length > len(data):
        raise ValueError("the certificate is cut off")
    return tag, data[start : start + length], data[start + length :]


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii", "replace")
    if tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text  # RFC 5280, section 4.1.2.5.1
    elif tag != _GENERALIZED_TIME:
        raise ValueError("the certificate has no time where its time should be")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
