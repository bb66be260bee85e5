"""The catalog in memory: models by id and alias. Read by every call, written when a backend comes or goes."""

from collections.abc import Iterable, Sequence

from lingpai.catalog.interfaces import Backend, Model
from lingpai.errors import did_you_mean


class Catalog:
    """All models. `version` changes with every change, so that others may keep what they derived from it."""

    def __init__(self, *, default_model: str | None = None) -> None:
        self.version = 0
        self.default_model = default_model
        self._offers: dict[int, tuple[Backend, tuple[Model, ...]]] = {}
        self._models: dict[str, Model] = {}
        self._names: dict[str, Model] = {}
        self._order: dict[int, int] = {}

    def find(self, name: str) -> Model | None:
        """The model with this id or alias."""
        return self._names.get(name)

    def models(self) -> list[Model]:
        """All models, in the order they were added."""
        return list(self._models.values())

    def default_for(self, tasks: frozenset[str] | None) -> Model | None:
        """The model that answers where none is named: the configured one, else the first of a fitting task.

        `tasks` None means that any task fits.
        """
        if self.default_model is not None:
            return self._names.get(self.default_model)
        for model in self._models.values():
            if tasks is None or model.task in tasks:
                return model
        return None

    def replace(
        self, backend: Backend, models: Iterable[Model], *, order: Sequence[Backend] = ()
    ) -> list[Model]:
        """Make `models` all that `backend` offers. Returns all models that stay out, their ids being taken.

        `order` is the order of the backends: it decides who has an id that two of them offer, and in which order
        models are listed, so that it does not matter which was ready first.
        """
        self._offers[id(backend)] = (backend, tuple(models))
        if order:
            self._order = {id(ranked): rank for rank, ranked in enumerate(order)}
        ranks = self._order
        kept: dict[str, Model] = {}
        left_out: list[Model] = []
        for _, offered in sorted(
            self._offers.values(), key=lambda offer: ranks.get(id(offer[0]), len(ranks))
        ):
            left_out += [model for model in offered if kept.setdefault(model.id, model) is not model]
        self._set(kept)
        return left_out

    def remove(self, backend: Backend) -> None:
        """Forget a backend and its models."""
        self.replace(backend, ())
        del self._offers[id(backend)]

    def nearest(self, name: str, *, among: Iterable[str] | None = None) -> str:
        """A sentence with the nearest ids for an error message, or nothing."""
        return did_you_mean(name, self._models if among is None else among)

    def _set(self, models: dict[str, Model]) -> None:
        names: dict[str, Model] = {}
        for model in models.values():
            for alias in model.aliases:
                names.setdefault(alias, model)
        names.update(models)  # an id always wins over somebody's alias
        self._models, self._names = models, names
        self.version += 1
