"""Data URLs, base64 and the few file formats that are known or written without a library."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lingpai.wire.media import data_url, decode_base64, encode_base64, is_data_url, read_data_url, sniff
from lingpai.wire.png import encode_png
from lingpai.wire.wav import Pcm, read_wav, seconds_of, write_wav


@given(st.binary(max_size=100))
def test_base64_comes_in_both_alphabets_padded_or_not(data):
    assert decode_base64(encode_base64(data)) == data
    assert decode_base64(base64.urlsafe_b64encode(data).decode().rstrip("=")) == data
    assert read_data_url(data_url(data, "image/png")) == (data, "image/png")


@pytest.mark.parametrize("text", ["*", "a", "aGk=\x00", "aG=k!", "é"])
def test_what_is_no_base64_is_refused(text):
    with pytest.raises(ValueError, match="expected base64"):
        decode_base64(text)


@pytest.mark.parametrize(
    ("url", "media_type"),
    [("data:;base64,aGk=", None), ("data:audio/wav;codecs=1;base64,aGk=", "audio/wav"),
     ("data:image/svg+xml;base64,aGk", "image/svg+xml")],
)  # fmt: skip
def test_data_urls_tell_their_type(url, media_type):
    assert is_data_url(url)
    assert read_data_url(url) == (b"hi", media_type)


@pytest.mark.parametrize("url", ["data:image/png,raw", "data:base64", "data:", "data:image/png;base64"])
def test_data_urls_without_base64_are_refused(url):
    with pytest.raises(ValueError, match="expected"):
        read_data_url(url)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [(b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF\0\0\0\0WEBPVP8", "image/webp"),
     (b"RIFF\0\0\0\0WAVEfmt", "audio/wav"), (b"OggS", "audio/ogg"), (b"\0\0\0\x20ftypM4A ", "audio/mp4"),
     (b"\0\0\0\x20ftypisom", "video/mp4"), (b"RIFF\0\0\0\0XXXX", None), (b"hello", None), (b"", None)],
)  # fmt: skip
def test_the_first_bytes_tell_the_type(data, media_type):
    assert sniff(data) == media_type


@pytest.mark.parametrize(("width", "height", "channels"), [(0, 1, 3), (1, 1, 5), (2, 2, 3)])
def test_pixels_that_are_no_picture_are_refused(width, height, channels):
    with pytest.raises(ValueError, match=r"\d"):
        encode_png(b"123", width=width, height=height, channels=channels)


def test_sound_is_read_back():
    sound = Pcm(b"\1\0\2\0" * 400, 8000, channels=2)

    assert read_wav(write_wav(sound)) == sound
    assert seconds_of(write_wav(sound)) == 0.05


@pytest.mark.parametrize("data", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"ID3", write_wav(Pcm(b"", 8000))[:30]])
def test_what_is_no_sound_is_refused(data):
    with pytest.raises(ValueError, match="not a WAV file"):
        read_wav(data)
    assert seconds_of(data) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_sound_or_a_refusal(data):
    seconds_of(b"RIFF\x40\0\0\0WAVEfmt " + data)
