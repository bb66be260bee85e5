import sys
import textwrap

import pytest

from lingpai.backends.engines.targets import load_target, parse_target
from lingpai.backends.engines.user_errors import TargetError

TWO_MODELS = """
import lingpai.authoring as lp

@lp.model("acme/one")
def one(x): return x

@lp.model("acme/two", aliases=["second"])
class Two:
    def __call__(self, x): return x
"""


@pytest.fixture(autouse=True)
def _clean_imports(tmp_path, monkeypatch):
    """Each test's files are imported afresh, and leave nothing behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def app(tmp_path):
    def write(text, name="app.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def ids(target):
    return [definition.id for definition in load_target(target)]


def failure(target):
    with pytest.raises(TargetError) as caught:
        load_target(target)
    return caught.value


@pytest.mark.parametrize("text", ["", "app.py:", "app.py:a b", ":x", "a b", "9lives"])
def test_what_is_no_target_is_refused_with_the_four_forms(text):
    with pytest.raises(TargetError, match=r"package\.module:name"):
        parse_target(text)


def test_a_file_gives_all_its_models(app):
    assert ids(app(TWO_MODELS)) == ["acme/one", "acme/two"]


def test_a_name_gives_that_model_only(app):
    assert ids(app(TWO_MODELS) + ":Two") == ["acme/two"]


def test_a_module_is_found_in_the_current_directory(app):
    app(TWO_MODELS, "pack/__init__.py")

    assert ids("pack") == ["acme/one", "acme/two"]
    assert ids("pack:one") == ["acme/one"]


def test_the_files_directory_comes_first_on_the_import_path(app):
    app("WORD = 'beside'", "beside_app.py")
    target = app("from beside_app import WORD\ndef predict(x): return WORD")

    assert load_target(target)[0].served(1) == "beside"


def test_the_only_function_of_one_argument_is_served_as_generic(app):
    (definition,) = load_target(
        app("def my_predict(x, *, scale=2): 'Doubles.'\ndef helper(a, b): ...\ndef _private(x): ...")
    )

    assert (definition.id, definition.task, definition.description) == (
        "local/my_predict",
        "generic",
        "Doubles.",
    )


def test_several_candidates_are_named(app):
    error = failure(app("def first(x): ...\ndef second(x): ..."))

    assert "app.py:first" in error.message
    assert "app.py:second" in error.message


def test_nothing_to_serve_is_said(app):
    assert "nothing to serve" in failure(app("x = 1")).message


def test_a_file_called_like_a_loaded_module_does_not_replace_it(app):
    load_target(app("def predict(x): ...", "json.py"))

    import json

    assert json.loads("1") == 1


def test_a_missing_file_names_the_nearest(app):
    app("", "predict.py")

    assert failure("predcit.py").message == "No such file: predcit.py. Did you mean `predict.py`?"


def test_a_missing_directory_is_said():
    assert "directory nowhere does not exist" in failure("nowhere/app.py").message


def test_a_missing_name_names_the_nearest(app):
    assert "Did you mean `one`?" in failure(app(TWO_MODELS) + ":onee").message


def test_a_missing_module_names_the_nearest(app):
    app("", "sentences.py")

    assert "Did you mean `sentences`?" in failure("sentence").message


def test_a_missing_dependency_is_not_taken_for_a_missing_target(app):
    error = failure(app("import surely_not_installed"))

    assert "needs the module `surely_not_installed`" in error.message


def test_a_syntax_error_shows_the_authors_file_only(app):
    error = failure(app("def broken(:\n    pass"))

    assert "cannot be read" in error.message
    assert "app.py" in error.details
    assert "importlib" not in error.details


def test_an_error_on_import_shows_the_authors_frames_only(app):
    error = failure(app("def f():\n    raise KeyError('x')\nf()"))

    assert error.message.endswith("could not be imported: KeyError: 'x'.")
    assert error.details.count("File ") == 2
    assert "engines" not in error.details


def test_a_file_that_ends_itself_is_explained(app):
    assert "__main__" in failure(app("import sys; sys.exit(0)")).message


def test_a_mistake_in_the_decorator_shows_on_import(app):
    error = failure(
        app("import lingpai.authoring as lp\n@lp.model('acme/x', task='embeding')\ndef f(x): ...")
    )

    assert "app.py`: Unknown task 'embeding'. Did you mean `embedding`" in error.message
    assert "authoring.py" not in error.details
    assert "@lp.model('acme/x', task='embeding')" in error.details


def test_a_value_error_of_the_authors_own_is_named_as_one(app):
    error = failure(app("raise ValueError('first line\\nsecond line')"))

    assert error.message.endswith("could not be imported: ValueError: first line.")


def test_an_exception_without_a_message_is_named_alone(app):
    assert failure(app("raise KeyError")).message.endswith("could not be imported: KeyError.")


def test_a_long_message_is_cut(app):
    message = failure(app("raise OSError('x' * 5000)")).message

    assert message.endswith("x …")
    assert len(message) < 500


def test_one_name_for_two_models_is_refused(app):
    assert "`acme/one` to two models" in failure(app(TWO_MODELS.replace("acme/two", "acme/one"))).message


def test_an_alias_that_is_anothers_id_is_refused(app):
    assert (
        "`second` to two models"
        in failure(app(TWO_MODELS + "\n@lp.model('a/b', aliases=['second'])\ndef f(x): ...")).message
    )
