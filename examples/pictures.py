"""Pictures in and out, with NumPy alone: which colour a picture mostly has, and a picture of a colour.

pip install numpy
lingpai serve examples/pictures.py
curl localhost:8741/v1/images/generations -H "Authorization: Bearer $LINGPAI_API_KEY" -H 'Content-Type: application/json' -d '{"model": "examples/paint", "prompt": "a red square", "size": "64x64"}'
"""

import numpy as np

import lingpai as lp

COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 80, 220), "white": (255, 255, 255)}


@lp.model("examples/paint", task="text-to-image")
def paint(prompt: str, *, width: int = 64, height: int = 64) -> lp.Image:
    """A picture of the first colour that the text names."""
    name = next((word for word in prompt.lower().split() if word in COLORS), "white")
    if not (1 <= width <= 1024 and 1 <= height <= 1024):
        raise lp.InputError("A side must be from 1 to 1024 pixels.", param="size")
    return lp.Image.from_array(np.full((height, width, 3), COLORS[name], dtype="uint8"))


@lp.model("examples/file-kind", task="image-classification")
def file_kind(image: lp.Image) -> dict[str, float]:
    """What kind of file a picture is. With Pillow installed, `image.pil()` is the picture itself."""
    return {image.media_type: 1.0}
