"""`POST /v1/images/generations`: pictures from a text."""

import re
from typing import Any

from lingpai.backends.engines.inputs import Item, read_item
from lingpai.backends.engines.media_reading import reading
from lingpai.backends.engines.media_values import Hook
from lingpai.backends.engines.models import LoadedModel
from lingpai.backends.engines.output_media import list_pictures
from lingpai.backends.engines.replies import Reply
from lingpai.backends.engines.requests import Request
from lingpai.backends.engines.told_usage import told_usage
from lingpai.backends.engines.values import ResultError, encode
from lingpai.errors import LingpaiError
from lingpai.media import Image
from lingpai.wire.images import ImagesRequest, images_answer
from lingpai.wire.media import encode_base64

_CONTROL_FIELDS = frozenset({"model", "prompt", "n", "response_format", "stream"})
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)


async def generations(request: Request, reply: Reply) -> None:
    """`n` pictures. A function that knows `n` is called once; any other, once for each picture."""
    model = request.model_for("text-to-image")
    asked = request.converted(ImagesRequest)
    count = int(asked.n or 1)
    parameters = _parameters(model, request, count)

    def read(hook: Hook) -> Item:
        return read_item(model, asked.prompt, parameters, field="prompt", hook=hook, drops_unknown=True)

    item = await reading(request.fetcher, read, field="prompt")
    headers = request.dropped_header(item.dropped)
    pictures = await _pictures(model, item, count)
    if asked.response_format == "url":
        data = [{"url": picture.data_url()} for picture in pictures]
    else:
        data = [{"b64_json": encode_base64(picture.bytes)} for picture in pictures]
    await reply.json(encode(images_answer(data, usage=told_usage())), headers=headers)


async def _pictures(model: LoadedModel, item: Item, count: int) -> list[Image]:
    if "n" in item.arguments:
        found = list_pictures(await model.runner.value(item.payload, item.arguments))
        if len(found) != count:
            raise ResultError(f"returned {len(found)} pictures where {count} were asked for.")
        return found
    returned = await model.runner.values([item.payload] * count, item.arguments)
    return [picture for each in returned for picture in list_pictures(each)][:count]


def _parameters(model: LoadedModel, request: Request, count: int) -> dict[str, Any]:
    """The fields for the function; `size` also as `width` and `height`, where it knows those instead."""
    parameters = request.others(_CONTROL_FIELDS)
    known = model.signature.parameters
    if "n" in known:
        parameters["n"] = count
    size = parameters.get("size")
    if "size" in known or not isinstance(size, str) or not {"width", "height"} <= set(known):
        return parameters
    del parameters["size"]
    if size == "auto":
        return parameters
    match = _SIZE.fullmatch(size)
    if match is None:
        raise LingpaiError("invalid_request", "`size` must be WIDTHxHEIGHT, such as 512x512.", "size")
    return {"width": int(match[1]), "height": int(match[2]), **parameters}
