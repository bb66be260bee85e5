"""Examples of keys, clients, tokens, users, sessions and projects, by the name of their schema."""

from typing import Final

from lingpai.answer_examples.story import DAY, ENDS, MADE, Fields
from lingpai.identity.scopes import SCOPES_OF_ROLE

_SECRET: Final = {"hint": "sk-lp-…x4Kd", "created_at": MADE, "expires_at": None, "last_used_at": None}
_OLD_SECRET: Final = {
    "hint": "sk-lp-…RmVk",
    "created_at": "2026-08-20T08:00:00Z",
    "expires_at": "2026-11-21T08:00:00Z",
    "last_used_at": f"{DAY}T07:58:00Z",
}
_KEY: Final[Fields] = {
    "id": "7Zk2mWq0PfXa",
    "name": "laptop",
    "user": "alice",
    "project": "search",
    "scopes": ["model:inference"],
    "models": [],
    "limits": ["2000/day@Asia/Shanghai"],
    "allowed_ips": ["203.0.113.0/24"],
    "expires_at": ENDS,
    "created_at": MADE,
    "state": "active",
    "disabled": False,
    "disabled_because": None,
    "signature_required": False,
    "last_used_at": f"{DAY}T09:30:00Z",
    "last_used_ip": "203.0.113.7",
    "hint": "sk-lp-…x4Kd",
    "secrets": [_SECRET, _OLD_SECRET],
}
_NEW_SIGNING_KEY: Final[Fields] = {
    "id": "sgn_khv0LgV6crWi",
    "name": "build server",
    "algorithm": "hmac-sha256",
    "public_key": None,
    "created_at": MADE,
    "expires_at": None,
    "last_used_at": None,
}
_CLIENT: Final[Fields] = {
    "client_id": "cl-lp-4fKx0aZ1bC2d",
    "name": "nightly",
    "user": "alice",
    "project": "search",
    "grants": ["client_credentials"],
    "public": False,
    "scopes": ["model:inference"],
    "models": [],
    "limits": ["2000/day"],
    "allowed_ips": ["10.0.0.0/8"],
    "token_lifetime_s": None,
    "expires_at": ENDS,
    "created_at": MADE,
    "disabled": False,
    "disabled_because": None,
    "signature_required": False,
    "last_used_at": f"{DAY}T09:30:00Z",
    "last_used_ip": "10.2.3.4",
    "hint": "cs-lp-…jdfC",
    "rotated_at": MADE,
    "old_hint": "cs-lp-…wMmN",
    "old_expires_at": "2026-11-21T08:00:00Z",
}
_USER: Final[Fields] = {
    "id": "usr_HqrETuYJTL4t",
    "name": "alice",
    "role": "member",
    "limits": ["2000/day@Asia/Shanghai"],
    "disabled": False,
    "has_password": True,
    "created_at": MADE,
}
_SESSION_SCOPES: Final = sorted(SCOPES_OF_ROLE["member"])
IDENTITY: Final[dict[str, Fields]] = {
    "CreatedKeyView": {**_KEY, "key": "sk-lp-…"},
    "KeyView": _KEY,
    "CreatedSigningKeyView": {**_NEW_SIGNING_KEY, "secret": "sg-lp-…"},
    "SigningKeyView": _NEW_SIGNING_KEY,
    "ExplanationView": {
        "faults": [
            {
                "rule": "created",
                "message": "The signature was created 3600 s ago by this server's clock; 300 s are allowed. Sign again, and "
                "set the clock if it is wrong.",
            },
            {
                "rule": "expires",
                "message": "The signature expired 3540 s ago. Sign again for every attempt.",
            },
        ],
        "signature_base": '"@method": POST\n"@authority": models.example\n"@path": /v1/embeddings\n"@query": ?\n"content-type": application/json\n"content-digest": sha-256=:EbZemxlN7nZut/BPw8SXnf5/3QG7Vf+4ZYn6v3EOGbk=:\n"@signature-params": ("@method" "@authority" "@path" "@query" "content-type" "content-digest");created=1795161600;expires=1795161660;nonce="b3k2p8Zq7Lw1Tn4Rs6Vd";keyid="sgn_khv0LgV6crWi";alg="hmac-sha256";tag="lingpai"',
        "differences": None,
        "verified": True,
        "clock_difference_s": 3600.0,
        "server_time": 1795165200,
    },
    "CreatedClientView": {**_CLIENT, "client_secret": "cs-lp-…"},
    "ClientView": _CLIENT,
    "LiveTokenView": {
        "id": "fam_4fKx0aZ1bC2dE3fG",
        "kind": "family",
        "client": "desktop",
        "client_id": "cl-lp-4fKx0aZ1bC2d",
        "user": "alice",
        "scopes": ["model:inference"],
        "created_at": MADE,
        "refreshed_at": f"{DAY}T09:00:00Z",
        "expires_at": ENDS,
        "address": "203.0.113.7",
        "user_agent": "desktop/1.4",
    },
    "UserView": _USER,
    "PasswordChanged": {"csrf_token": "Tnfb19jCSoC9eC36GprMoSiI4BHLQTbmc3WIdLVhd84"},
    "InvitationView": {"user": "alice", "expires_at": "2026-11-23T08:00:00Z"},
    "CreatedInvitationView": {
        "user": "alice",
        "expires_at": "2026-11-23T08:00:00Z",
        "invitation": "in-lp-…",
        "path": "/console/invitation",
    },
    "CurrentSessionView": {
        "id": "3u2ReesgyFjt",
        "user": "alice",
        "role": "member",
        "scopes": _SESSION_SCOPES,
        "expires_at": "2026-12-20T08:00:00Z",
        "csrf_token": "Tnfb19jCSoC9eC36GprMoSiI4BHLQTbmc3WIdLVhd84",
    },
    "SessionView": {
        "id": "3u2ReesgyFjt",
        "user": "alice",
        "current": True,
        "created_at": MADE,
        "last_seen_at": f"{DAY}T09:30:00Z",
        "expires_at": "2026-12-20T08:00:00Z",
        "address": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    },
    "SessionsEnded": {"ended": 2, "programs": 1},
    "ProjectView": {
        "id": "prj_QxE0q7SxlkHq",
        "name": "search",
        "owner": "alice",
        "personal": False,
        "limits": ["10000/day"],
        "created_at": MADE,
        "role": "admin",
    },
    "MemberView": {
        "id": "usr_9FjHoZK1JU9B",
        "user": "bob",
        "role": "viewer",
        "disabled": False,
        "since": MADE,
    },
    "LeakAnswer": {"status": "received"},
}
