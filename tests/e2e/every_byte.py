"""Single-byte forgeries of a signed request: each byte of what the signature covers is changed, one at a time."""

import random

from tests.e2e.raw_http import exchange

COVERED_FIELDS = {
    b"host", b"content-type", b"content-digest", b"authorization", b"signature-input", b"signature"
}  # fmt: skip


def check_that_every_byte_counts(port: int, request: bytes, pick: random.Random) -> None:
    """No forgery is accepted, and after all of them the request itself still is: none uses its nonce up.

    Each byte becomes one drawn by `pick`, its neighbour (the last digit of a Base64 value has bits that count for nothing)
    and, as a letter, the same in the other case. Fields' names must be in lower case.
    """
    answers = {}
    for place in covered_places(request):
        # From many addresses: each may try so many unknown keys, and then has to wait.
        address = f"127.77.{place >> 8}.{place & 255}"
        for byte in _instead_of(request[place], pick):
            forged = bytearray(request)
            forged[place] = byte
            answers[place, byte] = exchange(port, bytes(forged), address=address).status

    accepted = [
        (request[place - 20 : place + 20], chr(byte))
        for (place, byte), status in answers.items()
        if status < 400
    ]
    assert accepted == []
    assert {status for status in answers.values() if status >= 500} == set()
    assert list(answers.values()).count(401) > 0.8 * len(answers)
    assert exchange(port, request).status < 300


def _instead_of(byte: int, pick: random.Random) -> set[int]:
    drawn = pick.choice([each for each in range(0x21, 0x7F) if each != byte])
    other_case = byte ^ 0x20 if chr(byte).isalpha() else drawn
    return {drawn, byte ^ 1, other_case} & set(range(0x21, 0x7F))


def covered_places(request: bytes) -> list[int]:
    """Where the bytes of method, target, covered fields, signature and body are."""
    places: list[int] = []
    head, _, body = request.partition(b"\r\n\r\n")
    start = 0
    for number, line in enumerate(head.split(b"\r\n")):
        if number == 0:
            places += range(line.rindex(b" "))
        name, _, value = line.partition(b": ")
        if name in COVERED_FIELDS:
            places += range(start + len(name) + 2, start + len(name) + 2 + len(value))
        start += len(line) + 2
    places += range(len(request) - len(body), len(request))
    return places
