"""Sound in and out, with NumPy alone: texts as Morse code, and Morse code as text.

pip install numpy
lingpai serve examples/sound.py
curl localhost:8741/v1/audio/speech -H "Authorization: Bearer $LINGPAI_API_KEY" -H 'Content-Type: application/json' -d '{"model": "examples/morse-voice", "input": "SOS", "voice": "high"}' -o sos.wav
curl localhost:8741/v1/audio/transcriptions -H "Authorization: Bearer $LINGPAI_API_KEY" -F model=examples/morse-ear -F file=@sos.wav
"""

from itertools import groupby

import numpy as np

import lingpai as lp

RATE = 8000
DOT = RATE // 20  # 50 ms
CODE = {
    "A": ".-", "B": "-...", "C": "-.-.", "D": "-..", "E": ".", "F": "..-.", "G": "--.", "H": "....", "I": "..",
    "J": ".---", "K": "-.-", "L": ".-..", "M": "--", "N": "-.", "O": "---", "P": ".--.", "Q": "--.-", "R": ".-.",
    "S": "...", "T": "-", "U": "..-", "V": "...-", "W": ".--", "X": "-..-", "Y": "-.--", "Z": "--..",
}  # fmt: skip
LETTERS = {code: letter for letter, code in CODE.items()}


@lp.model("examples/morse-voice", task="text-to-speech")
def speak(text: str, *, voice: str = "low", speed: float = 1.0) -> lp.Audio:
    """The text in Morse code: dots, dashes of three dots, and pauses of one, three and seven."""
    marks = " ".join(
        CODE.get(character, "/") for character in text.upper() if character in CODE or character == " "
    )
    unit = max(int(DOT / speed), 1)
    hertz = 880 if voice == "high" else 440
    lengths = {".": (1, 1), "-": (3, 1), " ": (0, 2), "/": (0, 2)}
    parts = []
    for mark in marks:
        on, off = lengths[mark]
        parts += [np.sin(2 * np.pi * hertz * np.arange(on * unit) / RATE), np.zeros(off * unit)]
    return lp.Audio.from_samples(np.concatenate([*parts, np.zeros(unit)]), RATE)


@lp.model("examples/morse-ear", task="automatic-speech-recognition")
def listen(audio: lp.Audio) -> dict:
    """The text in Morse code of normal speed, and when each word was sent."""
    samples, rate = audio.samples()
    unit = rate // 20
    loud = np.abs(samples[: len(samples) // unit * unit]).reshape(-1, unit).max(axis=1) > 0.1
    words, letters, mark, start, now = [], "", "", 0, 0
    for is_loud, run in groupby([*loud, *[False] * 7]):
        length = len(list(run))
        if is_loud:
            start = start if letters or mark else now
            mark += "." if length < 2 else "-"
        elif length >= 3:
            letters, mark = letters + LETTERS.get(mark, ""), ""
            if length >= 7 and letters:
                words.append({"text": letters, "start": start / 20, "end": now / 20})
                letters = ""
        now += length
    return {"text": " ".join(word["text"] for word in words), "segments": words}
