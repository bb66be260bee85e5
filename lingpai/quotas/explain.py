"""What applies to a call: which limits, set where, how much is left of each, and which would refuse first."""

from collections.abc import Sequence
from typing import Final, TypeAlias

from typing_extensions import TypedDict

from lingpai.quotas.amounts import MONEY, amount_text, amount_words
from lingpai.quotas.book import BookEntry, LimitBook
from lingpai.quotas.interfaces import SubjectKind
from lingpai.quotas.meter import Meter
from lingpai.quotas.refusal import about
from lingpai.quotas.rows import LimitRow, row_of
from lingpai.quotas.subjects import CallSubjects, KnownModel, LimitedSubject

Loaded: TypeAlias = tuple[LimitedSubject, Sequence[Meter]]
"""A subject and its meters."""

_COUNTS: Final[dict[SubjectKind, str]] = {
    "key": "it counts the calls with this key",
    "client": "all tokens of the client share it",
    "user": "all keys and tokens of the user share it",
    "project": "all keys and clients of the project share it",
    "model": "all callers of the model share it",
    "user_model": "it counts this user's calls to the model, with whichever key or token",
}


class Named(TypedDict):
    """Something by id and name."""

    id: str
    name: str


class ExplainedLimit(LimitRow):
    """A limit, whether it counts calls to the model asked about, and where it comes from."""

    applies: bool
    why: str


class Unlimited(TypedDict):
    """One who has no limit."""

    subject: SubjectKind
    id: str
    name: str
    why: str


class Tightest(TypedDict):
    """The limit that a refusal would be about; `refuses` when it would turn a call away now."""

    subject: SubjectKind
    id: str
    name: str
    limit: str
    refuses: bool


class Explanation(TypedDict):
    """What applies to a call: `data` in the order key, client, user, project, model, user on the model.

    `key` is null for a call with an access token; `client` is the client whose token it is.
    """

    key: Named | None
    user: Named
    project: Named | None
    client: Named | None
    model: str | None
    data: list[ExplainedLimit]
    unlimited: list[Unlimited]
    tightest: Tightest | None
    summary: str


def subjects_of_call(call: CallSubjects, model: KnownModel | None, book: LimitBook) -> list[LimitedSubject]:
    """Everybody whose limits the call counts against, in order; those of the model only when one is named."""
    subjects = list(call.in_order)
    if model is not None:
        subjects.append(_limited(book.find(("model", model.id)), model.id))
        subjects.append(_limited(book.for_user(call.user.id, model.id), f"{call.user.name} on {model.id}"))
    return subjects


def explain(
    call: CallSubjects, model: KnownModel | None, loaded: Sequence[Loaded], now: float
) -> Explanation:
    """What applies to `call` at `now` (Unix seconds). `loaded` are the subjects of the call with their meters.

    Runs on the event loop, as all that touches meters does.
    """
    lines = [(subject, meter) for subject, meters in loaded for meter in meters]
    applying = [(subject, meter) for subject, meter in lines if _exemption(meter, model) is None]
    tightest = min(applying, key=lambda line: _tightness(line[1], now), default=None)
    return Explanation(
        key=_named_if_any(call.key),
        user=_named(call.user),
        project=_named_if_any(call.project),
        client=_named_if_any(call.client),
        model=None if model is None else model.id,
        data=[_explained(subject, meter, model, now) for subject, meter in lines],
        unlimited=[_unlimited(subject) for subject, meters in loaded if not meters],
        tightest=None if tightest is None else _tightest(*tightest, now),
        summary=_summary(tightest, now),
    )


def _limited(entry: BookEntry, name: str) -> LimitedSubject:
    kind, id_ = entry.subject
    return LimitedSubject(
        kind=kind,
        id=id_,
        name=name,
        limits=entry.limits,
        source=entry.source,
        is_for_each_user=entry.is_for_each_user,
    )


def _named(subject: LimitedSubject) -> Named:
    return Named(id=subject.id, name=subject.name)


def _named_if_any(subject: LimitedSubject | None) -> Named | None:
    return None if subject is None else _named(subject)


def _explained(subject: LimitedSubject, meter: Meter, model: KnownModel | None, now: float) -> ExplainedLimit:
    exemption = _exemption(meter, model)
    sentences = [f"{_origin(subject)}; {_COUNTS[subject.kind]}.", _what_is_left(meter, now)]
    if meter.limit.wait_s:
        sentences.append(
            f"When nothing is left, a call waits for room, {about(meter.limit.wait_s)} at most, before it is refused."
        )
    if exemption is not None:
        sentences.append(exemption)
    elif model is None and meter.limit.unit in MONEY:
        sentences.append(f"It counts calls to models that are priced in {meter.limit.unit}.")
    return {**row_of(subject, meter, now), "applies": exemption is None, "why": " ".join(sentences)}


def _origin(subject: LimitedSubject) -> str:
    if subject.source == "default":
        given = "new users" if subject.kind == "user" else f"new {subject.kind}s whose owner has no limits"
        return f"The default for {given} (`limits.default`)"
    if subject.source == "settings":
        return f"From lingpai.toml (`[[models]]`), for {subject.label}"
    if subject.is_for_each_user:
        return f"Set for each user of model `{subject.name.partition(' on ')[2]}`"
    return f"Set {'for' if subject.kind == 'user_model' else 'on'} {subject.label}"


def _what_is_left(meter: Meter, now: float) -> str:
    left, limit = meter.remaining(now), meter.limit
    return f"{amount_text(left, limit.unit)} of {amount_words(limit.amount, limit.unit)} left."


def _exemption(meter: Meter, model: KnownModel | None) -> str | None:
    """Why the limit does not count calls to `model`; None when it does."""
    unit = meter.limit.unit
    if model is None or unit not in MONEY or model.currency == unit:
        return None
    if not model.currency:
        return f"Calls to `{model.id}` do not count: it has no price."
    return f"Calls to `{model.id}` do not count: its price is in {model.currency}."


def _tightness(meter: Meter, now: float) -> tuple[float, float]:
    """Smallest share left first; of those that have nothing left, the one that stays so longest."""
    return meter.remaining(now) / meter.amount, -meter.resets_at(now)


def _tightest(subject: LimitedSubject, meter: Meter, now: float) -> Tightest:
    return Tightest(
        subject=subject.kind,
        id=subject.id,
        name=subject.name,
        limit=str(meter.limit),
        refuses=meter.remaining(now) <= 0,
    )


def _unlimited(subject: LimitedSubject) -> Unlimited:
    return Unlimited(subject=subject.kind, id=subject.id, name=subject.name, why=f"{subject.label}: no limit")


def _summary(tightest: tuple[LimitedSubject, Meter] | None, now: float) -> str:
    if tightest is None:
        return "No limit applies."
    subject, meter = tightest
    limit = f"the limit of {meter.limit.words} for {subject.label}"
    if meter.remaining(now) > 0:
        return f"The tightest is {limit}: {_what_is_left(meter, now)}"
    if meter.limit.wait_s:
        return (
            f"Calls wait for room, {about(meter.limit.wait_s)} at most, because of {limit}: nothing is left."
        )
    return f"Calls are refused now because of {limit}: nothing is left."
