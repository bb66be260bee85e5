"""The section `[identity]` of the settings: passwords, the defence against guessing, sessions, invitations."""

from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Lifetime = Annotated[float, Meta(ge=60)]

# OWASP ASVS 5.0, appendix C: the least memory (KiB) that argon2id needs, by the number of passes.
_LEAST_MEMORY_KIB = {1: 47_104, 2: 19_456}
_LEAST_MEMORY_WITH_MORE_PASSES_KIB = 12_288


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """How people sign in. Raises ValueError for argon2id parameters that are weaker than OWASP's least."""

    password_min_length: Annotated[int, Meta(ge=8, le=64)] = field(
        default=8, metadata={"help": "Fewest characters of a password; 15 are recommended."}
    )
    password_passes: Count = field(
        default=2, metadata={"help": "Passes (t) of argon2id. Passwords are hashed anew at the next sign-in."}
    )
    password_memory_kib: Annotated[int, Meta(ge=12_288, le=1_048_576)] = field(
        default=19_456,
        metadata={"help": "Memory (m) of argon2id, in KiB, for each password that is being checked."},
    )
    password_lanes: Annotated[int, Meta(ge=1, le=16)] = field(
        default=1, metadata={"help": "Lanes (p) of argon2id."}
    )
    password_threads: Annotated[int, Meta(ge=1, le=64)] = field(
        default=2,
        metadata={"help": "Most passwords checked at a time; each needs `password_memory_kib` meanwhile."},
    )
    password_queue: Annotated[int, Meta(ge=0)] = field(
        default=64, metadata={"help": "Most passwords that wait to be checked; beyond it callers get 503."}
    )
    sign_in_failures_per_account: Count = field(
        default=5,
        metadata={"help": "Wrong passwords for one account before attempts have to wait, longer with each."},
    )
    sign_in_failures_per_address: Count = field(
        default=20,
        metadata={
            "help": "Wrong passwords from one address (IPv6: /64) before attempts from there have to wait, longer with each."
        },
    )
    sign_in_failures_per_s: Annotated[float, Meta(gt=0)] = field(
        default=10.0,
        metadata={
            "help": "Wrong passwords a second, of all accounts together, that the server takes; thirty times as many at once."
        },
    )
    sign_in_max_wait_s: Annotated[float, Meta(ge=1)] = field(
        default=900.0,
        metadata={"help": "Longest time, in seconds, that wrong passwords make an attempt wait."},
    )
    credentials_per_hour: Count = field(
        default=100,
        metadata={
            "help": "Keys, clients, signing keys and new secrets that one member may make in an hour; administrators make any number."
        },
    )
    session_idle_s: Lifetime = field(
        default=12 * 3600.0, metadata={"help": "Seconds after which a session that nobody uses ends."}
    )
    session_lifetime_s: Lifetime = field(
        default=30 * 86_400.0, metadata={"help": "Seconds after which every session ends."}
    )
    invitation_lifetime_s: Lifetime = field(
        default=3 * 86_400.0, metadata={"help": "Seconds in which an invitation can be accepted."}
    )

    def __post_init__(self) -> None:
        least = _LEAST_MEMORY_KIB.get(self.password_passes, _LEAST_MEMORY_WITH_MORE_PASSES_KIB)
        if self.password_memory_kib < least:
            raise ValueError(
                f"`identity.password_memory_kib`: argon2id with {self.password_passes} passes needs {least} KiB at least."
            )
        if self.session_idle_s > self.session_lifetime_s:
            raise ValueError(
                "`identity.session_idle_s` must not be longer than `identity.session_lifetime_s`."
            )
