"""The models that `lingpai serve` offers when it is given none: small, real, and without dependencies."""

from lingpai.demo.eliza import eliza
from lingpai.demo.hashing_embedding import hashing_embedding
from lingpai.demo.sentiment import sentiment

__all__ = ["eliza", "hashing_embedding", "sentiment"]
