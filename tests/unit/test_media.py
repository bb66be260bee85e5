"""What a model's author meets: `lp.File`, `lp.Image` and `lp.Audio`."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lingpai.authoring import InputError
from lingpai.media import Audio, File, Image
from lingpai.wire.wav import Pcm, write_wav


def test_a_file_knows_its_type_by_its_first_bytes_unless_it_is_told():
    assert File(b"\x89PNG\r\n\x1a\n").media_type == "image/png"
    assert File(b"hello").media_type == "application/octet-stream"
    assert File(b"hello", media_type="text/plain").data_url() == "data:text/plain;base64,aGVsbG8="


@pytest.mark.parametrize("media_type", ["audio/x\r\nx-evil: 1", "audio", "audio/", "a b/c", 'audio/x;"', "/"])
def test_a_media_type_cannot_carry_anything_else(media_type):
    with pytest.raises(ValueError, match="not a media type"):
        File(b"", media_type=media_type)


def test_a_file_shows_no_content():
    assert repr(Image(b"secret", media_type="image/png")) == "Image(image/png, 6 bytes)"


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((3, 2), "uint8"), np.zeros((3, 2, 4), "uint8"), np.ones((3, 2, 3)), np.ones((3, 2), bool),
     np.full((3, 2, 1), 300), np.full((3, 2), -5.0)],
)  # fmt: skip
def test_an_array_becomes_a_png(pixels):
    data = Image.from_array(pixels).bytes

    assert data[16:24] == b"\0\0\0\2\0\0\0\3"


@pytest.mark.parametrize("shape", [(3,), (3, 2, 5), (1, 3, 2, 3), (0, 2)])
def test_an_array_of_another_shape_is_no_picture(shape):
    with pytest.raises(ValueError, match=r"\d"):
        Image.from_array(np.zeros(shape, "uint8"))


@pytest.mark.parametrize("samples", [np.array([0, 0.5, -1.0, 2.0]), np.array([[0, 0.5, -1.0, 2.0]])])
def test_samples_are_read_back(samples):
    read, rate = Audio.from_samples(samples, 8000).samples()

    assert rate == 8000
    assert read == pytest.approx([0, 0.5, -1, 1], abs=1e-4)


def test_channels_stay_apart():
    read, _ = Audio.from_samples(np.zeros((5, 2), "float32"), 8000).samples()

    assert (read.shape, read.dtype) == ((5, 2), np.float32)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_samples_of_every_width_have_the_same_scale(width):
    half = (192).to_bytes() if width == 1 else (2 ** (8 * width - 2)).to_bytes(width, "little")

    read, _ = Audio(write_wav(Pcm(half * 4, 8000, width=width))).samples()

    assert read == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("data", [b"ID3", b"RIFF", write_wav(Pcm(b"123" * 4, 8000, width=3))])
def test_sound_that_cannot_be_read_is_the_callers_fault(data):
    with pytest.raises(InputError, match="Send"):
        Audio(data).samples()


@pytest.mark.parametrize("samples", [np.zeros(()), np.zeros((2, 9)), np.zeros((1, 2, 3))])
def test_samples_of_another_shape_are_no_sound(samples):
    with pytest.raises(ValueError, match="no sound"):
        Audio.from_samples(samples, 8000)


def test_a_picture_that_pillow_cannot_read_is_the_callers_fault(monkeypatch):
    def open_(file):
        raise OSError("cannot identify image file")

    pillow = SimpleNamespace(open=open_, DecompressionBombError=RuntimeError)
    monkeypatch.setitem(sys.modules, "PIL", SimpleNamespace(Image=pillow))
    monkeypatch.setitem(sys.modules, "PIL.Image", pillow)

    with pytest.raises(InputError, match="Send a PNG"):
        Image(b"x", media_type="image/png").pil()
