from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest

from lingpai.authoring import Message
from lingpai.backends.engines.binding import (
    bind_known_parameters,
    bind_parameters,
    convert_payload,
    parameters_schema,
    read_signature,
)
from lingpai.backends.engines.user_errors import TargetError
from lingpai.errors import LingpaiError


def signature(function):
    return read_signature(function, "acme/x")


def refusal(call, *arguments, **keywords):
    with pytest.raises(LingpaiError) as caught:
        call(*arguments, **keywords)
    assert caught.value.status == 400
    return caught.value


@dataclass
class Point:
    x: float
    y: float = 0.0


@pytest.mark.parametrize(
    ("annotation", "value", "bound"),
    [
        (str, "a", "a"),
        (list[str], ["a", "b"], ["a", "b"]),
        (dict, {"a": 1}, {"a": 1}),
        (Point, {"x": 1}, Point(1.0)),
        (list[Message], [{"role": "user", "content": "hi"}], [Message(role="user", content="hi")]),
        (Any, {"any": [1]}, {"any": [1]}),
        (object, 3, 3),
    ],
)
def test_the_payload_follows_its_annotation(annotation, value, bound):
    def function(payload): ...

    function.__annotations__["payload"] = annotation

    assert convert_payload(signature(function), value, field="input") == bound


def test_a_payload_that_does_not_fit_names_the_place():
    def function(points: list[Point]): ...

    error = refusal(convert_payload, signature(function), [{"x": 1}, {"x": "wide"}], field="input")

    assert (error.message, error.param) == ("`input[1].x`: expected `float`, got `str`.", "input[1].x")


def test_parameters_are_converted_and_the_rest_is_dropped():
    def function(text, *, times: int = 1, loud: bool = False): ...

    bound = bind_parameters(signature(function), {"times": "3", "loud": True, "seed": 1, "user": None})

    assert bound.arguments == {"times": 3, "loud": True}
    assert bound.dropped == ("seed",)


def test_null_means_the_default():
    def function(text, *, times: int = 1): ...

    assert bind_parameters(signature(function), {"times": None}).arguments == {}


def test_a_parameter_that_does_not_fit_is_named_with_its_type():
    def function(text, *, times: int = 1): ...

    error = refusal(bind_parameters, signature(function), {"times": "many"})

    assert (error.message, error.param) == (
        '`times`: expected `int`, got `str`. Its schema: {"type":"integer","default":1}',
        "times",
    )


def test_a_required_parameter_is_asked_for():
    def function(text, *, language: str): ...

    assert refusal(bind_parameters, signature(function), {}).param == "language"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_new_tokens", "max_length"])
def test_max_tokens_is_filled_by_every_name_clients_use(name):
    def function(text, *, max_tokens: int = 256): ...

    bound = bind_parameters(signature(function), {name: 5})

    assert bound.arguments == {"max_tokens": 5}
    assert bound.dropped == ()


def test_a_function_with_kwargs_gets_everything():
    def function(text, *, times: int = 1, **rest): ...

    assert bind_parameters(signature(function), {"times": 2, "seed": 7}).arguments == {"times": 2, "seed": 7}


def test_unknown_names_are_refused_with_the_nearest_where_names_must_be_known():
    def function(text, *, times: int = 1): ...

    error = refusal(bind_known_parameters, signature(function), {"tmies": 2}, "acme/shout")

    assert error.message == "`acme/shout` has no parameter `tmies`. Did you mean `times`? It takes: `times`."
    assert error.param == "parameters.tmies"


def test_the_schema_has_types_bounds_and_defaults():
    def function(text, *, size: Annotated[int, msgspec.Meta(ge=1)] = 4, style: str): ...

    assert parameters_schema(signature(function)) == {
        "type": "object",
        "properties": {"size": {"type": "integer", "minimum": 1, "default": 4}, "style": {"type": "string"}},
        "required": ["style"],
        "additionalProperties": False,
    }


def test_a_method_is_read_without_self():
    class Model:
        def __call__(self, text: str, *, times: int = 1): ...

    assert list(signature(Model().__call__).parameters) == ["times"]


class Unknown: ...


def test_a_function_without_a_payload_is_refused():
    with pytest.raises(TargetError, match="takes no payload"):
        signature(lambda *, text: text)


def test_a_second_payload_is_refused_with_advice():
    with pytest.raises(TargetError, match="keyword-only"):
        signature(lambda one, two: one)


def test_an_annotation_json_cannot_fill_is_refused_with_advice():
    def function(image: Unknown): ...

    with pytest.raises(TargetError, match=r"payload `image`.*JSON cannot be turned into this annotation"):
        signature(function)
