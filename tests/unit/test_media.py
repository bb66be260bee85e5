"""What a model's author meets: `lp.File`, `lp.Image` and `lp.Audio`."""

import contextlib
import io
import random

import numpy as np
import PIL.Image
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


def picture(kind="PNG", size=(64, 48), mode="RGB"):
    target = io.BytesIO()
    PIL.Image.effect_noise(size, 50).convert(mode).save(target, format=kind)
    return target.getvalue()


def blank_gif(size):
    target = io.BytesIO()
    PIL.Image.new("1", size).save(target, format="GIF")
    return target.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_pictures_of_every_kind_are_decoded(kind):
    decoded = Image(picture(kind)).pil()

    assert (decoded.size, decoded.format) == ((64, 48), kind)
    assert decoded.convert("RGB").getpixel((63, 47)) is not None


def test_a_pillow_image_becomes_a_picture_and_is_read_back():
    original = Image(picture(mode="RGBA")).pil()

    again = Image.from_pil(original).pil()

    assert again.tobytes() == original.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_picture_that_is_broken_is_the_callers_fault(kind):
    """Cut off anywhere, or with bytes that were changed: decoders fail in many ways."""
    whole = picture(kind)
    chance = random.Random(7)
    cut = [whole[: len(whole) * part // 20] for part in range(20)]
    changed = []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(5):
            data[chance.randrange(len(data))] = chance.randrange(256)
        changed.append(bytes(data))

    for data in (b"", b"x", *cut, *changed):
        with contextlib.suppress(InputError):
            Image(data, media_type="image/png").pil()


@pytest.mark.parametrize("error", [OSError, SyntaxError, TypeError, RuntimeError, NotImplementedError])
def test_whatever_a_decoder_raises_is_the_callers_fault(monkeypatch, error):
    """Pillow's decoders for TIFF, AVIF and DDS raise the last three for some files."""

    def load(_):
        raise error("broken")

    file = Image(picture())
    monkeypatch.setattr(PIL.Image.Image, "load", load)

    with pytest.raises(InputError, match=r"cannot be read\. Send a PNG"):
        file.pil()


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    small_file = blank_gif((9000, 6000))
    monkeypatch.setattr(PIL.Image.Image, "load", lambda _: pytest.fail("it was decoded"))

    with pytest.raises(
        InputError, match=r"9000x6000 pixels, and at most 50 megapixels are read. Send a smaller"
    ):
        Image(small_file).pil()


def test_a_model_may_take_larger_pictures_or_only_smaller_ones():
    file = Image(picture(size=(64, 48)))

    assert file.pil(max_pixels=64 * 48).size == (64, 48)
    with pytest.raises(InputError, match="64x48"):
        file.pil(max_pixels=64 * 48 - 1)
