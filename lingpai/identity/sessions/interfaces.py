"""What sessions hand out: sessions as values, without their secret."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser in which a user is signed in. Times are Unix seconds."""

    id: str
    user_id: str
    user_name: str
    created_at: float
    last_seen_at: float
    expires_at: float
    address: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session just started and its secret, which goes into a cookie and nowhere else."""

    session: Session
    token: str = field(repr=False)
