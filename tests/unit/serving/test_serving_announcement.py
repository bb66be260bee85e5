"""The first lines that a server prints."""

from types import SimpleNamespace

import pytest

from lingpai.catalog.interfaces import Model
from lingpai.serving.announcement import _try_it

PICTURE = {"type": "string", "contentMediaType": "image/*"}
ROWS = {"type": "array", "items": {"type": "number"}}
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("inputs", "shown"),
    [
        ([ROWS, TEXT], """one/1/inference -H "Authorization: Bearer $LINGPAI_API_KEY" \\\n    -H 'Content-Type: application/json' -d '{"input": "Hello"}'"""),
        ([ROWS, PICTURE], "-F file=@FILE"), ([ROWS], "lingpai models show one/0"), ([ROWS, {}], '{"input": "Hello"}'), ([], "/v1/models"),
    ],
)  # fmt: skip
def test_the_first_lines_show_a_call_that_works(inputs, shown):
    """Of a model that can be called with a word, else with a file; else where to read what it takes."""
    models = [
        Model(id=f"one/{number}", task="generic", backend=SimpleNamespace(), upstream_name="", input=schema)
        for number, schema in enumerate(inputs)
    ]

    assert shown in _try_it("http://127.0.0.1:8741", models)
