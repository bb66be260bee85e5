"""Reranking as Jina and Cohere have it: a query and documents in, their order out."""

import uuid
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from lingpai.errors import LingpaiError
from lingpai.wire.openai import Request, whole_number

MOST_DOCUMENTS: Final = 10_000


class RerankRequest(Request):
    """`POST /v1/rerank`. A document is a text, or an object with `text`."""

    query: str | None = None
    documents: list[str | dict[str, Any]] | None = None
    top_n: int | float | None = None
    return_documents: bool | None = None

    def check(self) -> None:
        """Refuse what cannot be ranked. Raises LingpaiError `invalid_request`."""
        if self.query is None:
            raise LingpaiError("invalid_request", '`query` is missing. Send "query": "…".', "query")
        if not self.documents:
            message = '`documents` is missing or empty. Send "documents": ["…", "…"].'
            raise LingpaiError("invalid_request", message, "documents")
        if len(self.documents) > MOST_DOCUMENTS:
            message = f"`documents` has more than {MOST_DOCUMENTS} entries. Send fewer."
            raise LingpaiError("invalid_request", message, "documents")
        self.top_n = whole_number("top_n", self.top_n)
        if self.top_n is not None and self.top_n < 1:
            raise LingpaiError("invalid_request", "`top_n` must be at least 1.", "top_n")
        if self.stream:
            raise LingpaiError(
                "invalid_request", "Reranking cannot be streamed. Leave `stream` out.", "stream"
            )


RERANK: Final = msgspec.json.Decoder(RerankRequest)


def document_texts(documents: Sequence[Any]) -> list[str]:
    """The text of each document. Raises LingpaiError for one that has none."""
    texts: list[str] = []
    for index, item in enumerate(documents):
        text = item.get("text") if isinstance(item, dict) else item
        if not isinstance(text, str):
            field = f"documents[{index}]"
            raise LingpaiError("invalid_request", f'`{field}` must be a text or {{"text": …}}.', field)
        texts.append(text)
    return texts


def rerank_answer(
    ranks: Sequence[dict[str, Any]],
    texts: Sequence[str],
    *,
    model: str,
    usage: dict[str, Any],
    top_n: int | None,
    returns_documents: bool,
) -> dict[str, Any]:
    """The answer in the shape that Jina's, Cohere's and vLLM's clients read, from ``[{"index", "score"}]``."""
    results: list[dict[str, Any]] = []
    for rank in ranks[:top_n]:
        result = {"index": rank["index"], "relevance_score": rank["score"]}
        if returns_documents:
            result["document"] = {"text": texts[rank["index"]]}
        results.append(result)
    return {"id": f"rerank-{uuid.uuid4().hex}", "model": model, "results": results, "usage": usage}
