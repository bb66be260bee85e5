"""Models of every task, annotated in every way, and files to send them."""

import numpy as np

from lingpai.media import Audio, Image
from lingpai.wire.media import data_url

MODELS = """
import io
from dataclasses import dataclass
from typing import TypedDict

import msgspec
import numpy as np
import PIL.Image
from numpy.typing import NDArray

import lingpai as lp


@lp.model("in/image", task="image-classification")
def image(picture: lp.Image) -> dict:
    return {picture.media_type: 0.5, f"{len(picture.bytes)} bytes": 0.25, picture.name or "no name": 0.25}

@lp.model("in/unannotated", task="image-classification")
def unannotated(picture):
    return {type(picture).__name__: 1.0}

@lp.model("in/bytes", task="generic")
def raw(data: bytes):
    return len(data)

@lp.model("in/file", task="generic")
def file(file: lp.File):
    return [file.media_type, file.name, file.bytes.decode("latin-1")]

@lp.model("in/samples", task="automatic-speech-recognition")
def samples(samples: np.ndarray):
    return f"{samples.shape} {samples.dtype} {float(samples.max()):.2f}"

@lp.model("in/pixels", task="image-to-text")
def pixels(picture: np.ndarray):
    return f"{picture.shape} {picture.dtype}"

@lp.model("in/sound-bytes", task="automatic-speech-recognition")
def sound_bytes(sound: bytes):
    return f"{len(sound)} bytes"

@lp.model("in/sound-file", task="automatic-speech-recognition")
def sound_file(sound: lp.File):
    return f"{sound.media_type}, {len(sound.bytes)} bytes"

@lp.model("in/pillow", task="image-to-text")
def pillow(picture: PIL.Image.Image, *, mask: PIL.Image.Image | None = None):
    return f"{picture.mode} {picture.size} {picture.format}" + (f" {mask.size}" if mask else "")

@lp.model("in/numbers", task="generic")
def numbers(rows: NDArray[np.float32]):
    return {"sum": rows.sum(axis=0), "dtype": str(rows.dtype)}

@dataclass
class Pair:
    left: lp.Image
    right: lp.Image
    note: str = ""

@lp.model("in/dataclass", task="generic")
def dataclass_(pair: Pair):
    return [pair.left.bytes == pair.right.bytes, pair.note]

class Words(msgspec.Struct):
    words: list[str]

@lp.model("in/struct", task="generic")
def struct_(words: Words):
    return len(words.words)

@lp.model("in/dict", task="generic")
def dict_(value: dict):
    return sorted(value)

@lp.model("in/dict-and-input", task="generic")
def dict_and_input(value: dict, *, input: int = 0):
    return [value, input]

@lp.model("in/mask", task="image-to-image")
def masked(image: lp.Image, *, prompt: str = "", mask: lp.Image | None = None, strength: float = 0.5):
    return [image] if mask is None else [image, mask]


@lp.model("in/batched", task="image-classification", batch=lp.Batch(max_size=2, max_wait_ms=5))
def batched(images: list[lp.Image]):
    return [{f"{type(each).__name__} of {len(images)}": 1.0} for each in images]

@lp.model("in/batched-unannotated", task="automatic-speech-recognition", batch=lp.Batch(max_size=2))
def batched_unannotated(sounds):
    return [type(each).__name__ for each in sounds]

@lp.model("in/batched-texts", task="embedding", batch=lp.Batch(max_size=2))
def batched_texts(texts: list[str]):
    return np.array([[len(each), len(texts)] for each in texts])

@lp.model("text/classify", task="text-classification")
def classify(text: str, *, top_k: int = 2):
    return [{"label": "bad", "score": np.float32(0.25)}, {"label": "good", "score": 0.75}][:top_k]

@lp.model("text/zero", task="zero-shot-classification")
def zero(text: str, *, candidate_labels: list[str], multi_label: bool = False):
    return {"sequence": text, "labels": candidate_labels, "scores": [len(each) / 10 for each in candidate_labels]}

@lp.model("text/zero-dict", task="zero-shot-classification")
def zero_dict(given: dict):
    return {label: 0.5 for label in given["candidate_labels"]}

@lp.model("text/entities", task="token-classification")
def entities(text: str):
    return [{"entity_group": "PLACE", "score": np.float32(0.5), "start": 8, "end": 13}, (0, 3, "PERSON")]

@lp.model("text/answer", task="question-answering")
def answer(question: str, *, context: str):
    return {"answer": context.split()[-1], "score": np.float64(0.5), "start": 4, "end": 8}

@lp.model("text/answers", task="question-answering")
def answers(given):
    return [given["context"], {"answer": given["question"], "score": 0.9}]

@lp.model("text/by-context", task="question-answering")
def by_context(context: str, *, question: str):
    return f"{context}|{question}"

@lp.model("text/fill", task="fill-mask")
def fill(text: str):
    return [{"token_str": "a", "token": 5, "score": 0.1, "sequence": "a cat"}, {"token_str": "the", "score": 0.6}]

@lp.model("text/summary", task="summarization")
def summary(text: str):
    return [{"summary_text": text[:3]}]

@lp.model("text/translate", task="translation")
def translate(text: str, *, target: str):
    return {"translation_text": f"{target}: {text}"}

@lp.model("text/rank", task="rerank")
def rank(query: str, *, documents: list[str]):
    return np.array([float(document.count(query)) for document in documents])

@lp.model("text/pairs", task="rerank")
def pairs(pairs: list[tuple[str, str]]):
    return [{"index": index, "relevance_score": len(document)} for index, (_, document) in enumerate(pairs)]

@lp.model("text/rows", task="tabular")
def rows(rows: list[list[float]]):
    return np.array(rows).sum(axis=1)

@lp.model("text/frame", task="tabular")
def frame(rows):
    return [{"doubled": row["x"] * 2} for row in rows]


@lp.model("image/boxes", task="object-detection")
def boxes(image: lp.Image):
    return [
        {"label": "cat", "score": 0.5, "box": np.array([1, 2, 3, 4])},
        {"label": "dog", "score": 0.75, "box": {"x": 1, "y": 1, "width": 2, "height": 3}},
    ]

@lp.model("image/masks", task="image-segmentation")
def masks(image: lp.Image):
    return [{"label": "sky", "score": None, "mask": np.eye(4, dtype=bool)}]

@lp.model("image/caption", task="image-to-text")
def caption(image: lp.Image):
    return [{"generated_text": f"a picture of {len(image.bytes)} bytes"}]

@lp.model("image/ask", task="visual-question-answering")
def ask(image: lp.Image, *, question: str):
    return f"{question} {image.media_type}"

class Question(TypedDict):
    image: lp.Image
    question: str

@lp.model("image/ask-dict", task="visual-question-answering")
def ask_dict(given: Question):
    return {"answer": f"{given['question']} {given['image'].media_type}"}

@lp.model("image/paint", task="text-to-image")
def paint(prompt: str, *, width: int = 2, height: int = 2):
    return np.full((height, width, 3), 0.5, dtype="float32")


@lp.model("sound/hear", task="automatic-speech-recognition")
def hear(audio: lp.Audio, *, language: str = "en", temperature: float = 0.0):
    samples, rate = audio.samples()
    chunks = [{"text": " hel", "timestamp": (0.0, 0.25)}, {"text": "lo", "timestamp": (0.25, 0.5)}]
    return {"text": f"hello {language} {len(samples)} {rate} {temperature}", "chunks": chunks}

@lp.model("sound/say", task="text-to-speech")
def say(text: str, *, voice: str = "one", speed: float = 1.0):
    return {"audio": np.zeros((1, 80), dtype="float32"), "sampling_rate": 8000}

@lp.model("sound/film", task="text-to-video")
def film(prompt: str):
    return lp.File(b"film", media_type="video/mp4")


@lp.model("wrong/any", task="generic")
def wrong_any(value):
    return object()

WRONG = {
    "image-classification": "cat", "text-classification": 5, "zero-shot-classification": {"labels": ["a"]},
    "token-classification": [{"start": 1}], "question-answering": 5, "fill-mask": [{"token": "a"}],
    "rerank": [0.5], "object-detection": [{"label": "a", "box": [1, 2]}], "image-segmentation": [{"label": "a"}],
    "image-to-text": 5, "visual-question-answering": None, "text-to-image": "cat", "image-to-image": b"no image",
    "automatic-speech-recognition": {"words": []}, "text-to-speech": [0.1, 0.2], "text-to-video": 5, "tabular": [1, 2],
}
for task, value in WRONG.items():
    def wrong(given, *, _value=None, value=value):
        return value
    wrong.__name__ = f"wrong_{task}".replace("-", "_")
    globals()[wrong.__name__] = lp.model(f"wrong/{task}", task=task)(wrong)
"""


def png(width=2, height=2):
    return Image.from_array(pixels(width, height)).bytes


def pixels(width, height):
    return np.arange(width * height * 3, dtype="uint8").reshape(height, width, 3)


def wav(seconds=0.5, rate=8000):
    return Audio.from_samples(np.sin(np.linspace(0, 100, int(seconds * rate))), rate).bytes


PNG, WAV = png(), wav()
PNG_URL, WAV_URL = data_url(PNG, "image/png"), data_url(WAV, "audio/wav")
