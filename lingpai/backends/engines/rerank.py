"""`POST /v1/rerank`: documents in the order in which they fit a query."""

from lingpai.backends.engines.estimate import estimate_texts
from lingpai.backends.engines.inputs import read_item
from lingpai.backends.engines.media_values import without_fetching
from lingpai.backends.engines.output_texts import ranks
from lingpai.backends.engines.replies import Reply
from lingpai.backends.engines.requests import Request
from lingpai.backends.engines.told_usage import told_usage
from lingpai.backends.engines.values import encode
from lingpai.wire.rerank import RerankRequest, document_texts, rerank_answer

_CONTROL_FIELDS = frozenset({"model", "query", "documents", "top_n", "return_documents", "stream"})


async def rerank(request: Request, reply: Reply) -> None:
    """The documents with their scores, the best first."""
    model = request.model_for("rerank")
    asked = request.converted(RerankRequest)
    request.check_count(asked.documents, field="documents")
    texts = document_texts(asked.documents or ())
    item = read_item(
        model,
        {"query": asked.query, "documents": texts},
        request.others(_CONTROL_FIELDS),
        field="input",
        hook=without_fetching,
        drops_unknown=True,
    )
    headers = request.dropped_header(item.dropped)
    returned = await model.runner.value(item.payload, item.arguments)
    count = estimate_texts((asked.query or "", *texts))
    estimated = {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count, "estimated": True}
    answer = rerank_answer(
        ranks(returned, item.given),
        texts,
        model=request.model_name,
        usage=told_usage() or estimated,
        top_n=None if asked.top_n is None else int(asked.top_n),
        returns_documents=asked.return_documents is True,
    )
    await reply.json(encode(answer), headers=headers)
