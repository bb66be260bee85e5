"""Examples of limits, usage, calls, events, audit and secrets, by the name of their schema."""

from typing import Final

from lingpai.answer_examples.story import DAY, MADE, Fields

_LIMIT: Final[Fields] = {
    "subject": "key",
    "id": "7Zk2mWq0PfXa",
    "name": "laptop",
    "limit": "2000/day@Asia/Shanghai",
    "unit": "requests",
    "source": "set",
    "used": 120,
    "reserved": 0,
    "remaining": 1880,
    "resets_at": f"{DAY}T16:00:00Z",
    "waits_s": 0.0,
}
_APPLIED: Final[Fields] = {
    **_LIMIT,
    "applies": True,
    "why": "Set on key `laptop`; it counts the calls with this key. 1880 of 2000 requests left.",
}
_SECRET_VERSION: Final[Fields] = {
    "kind": "pepper",
    "version": "1",
    "state": "current",
    "algorithm": None,
    "place": "/var/lib/lingpai/secrets/pepper.json",
    "created_at": MADE,
    "use_from": None,
    "verify_until": None,
    "uses": {"API keys": 12},
}
REPORTS: Final[dict[str, Fields]] = {
    "LimitPage": {"data": [_LIMIT], "next_cursor": None},
    "ChangedLimits": {"data": [_LIMIT], "warning": None},
    "Explanation": {
        "key": {"id": "7Zk2mWq0PfXa", "name": "laptop"},
        "user": {"id": "usr_HqrETuYJTL4t", "name": "alice"},
        "project": {"id": "prj_QxE0q7SxlkHq", "name": "search"},
        "client": None,
        "model": None,
        "data": [_APPLIED],
        "unlimited": [
            {"subject": "user", "id": "usr_HqrETuYJTL4t", "name": "alice", "why": "user `alice`: no limit"}
        ],
        "tightest": {
            "subject": "key",
            "id": "7Zk2mWq0PfXa",
            "name": "laptop",
            "limit": "2000/day@Asia/Shanghai",
            "refuses": False,
        },
        "summary": "The tightest is the limit of 2000 requests per day for key `laptop`: 1880 of 2000 requests "
        "left.",
    },
    "UsageAnswer": {
        "data": [
            {
                "model": "lingpai/eliza",
                "requests": 120,
                "prompt_tokens": 4800,
                "completion_tokens": 13200,
                "cost": 0.0,
                "errors": 0,
                "refused": 3,
                "currency": None,
                "costs": {},
                "cached_tokens": 0,
                "reasoning_tokens": 0,
                "charged": 120,
                "charged_tokens": 18000,
                "charged_costs": {},
            }
        ],
        "since": "2026-11-13T08:00:00Z",
        "until": "2026-11-20T08:15:00Z",
        "tz": "UTC",
        "by": ["model"],
    },
    "RequestBody": {
        "id": "req_6b0ed03bf3b4d4cdefdd00000030",
        "started_at": f"{DAY}T08:00:00.123Z",
        "key": "laptop",
        "key_id": "7Zk2mWq0PfXa",
        "client": None,
        "client_id": None,
        "user": "alice",
        "user_id": "usr_HqrETuYJTL4t",
        "project": "search",
        "project_id": "prj_QxE0q7SxlkHq",
        "model": "lingpai/eliza",
        "backend": "demonstration",
        "task": "chat",
        "endpoint": "chat.completions",
        "status": 200,
        "end_reason": "complete",
        "first_byte_ms": 1.2,
        "duration_ms": 1.4,
        "queued_ms": 0.0,
        "prompt_tokens": 4,
        "completion_tokens": 11,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "counted": "estimated",
        "cost": None,
        "currency": None,
        "charged": 1,
        "charged_tokens": 15,
        "charged_cost": None,
        "retries": 0,
        "client_address": "203.0.113.7",
    },
    "JournalBody": {
        "is_healthy": True,
        "waiting_records": 0,
        "waiting_bytes": 0,
        "kept_since": None,
        "damage": [],
        "damage_count": 0,
    },
    "EventView": {
        "id": "evt_4fKx0aZ1bC2d",
        "type": "key.leaked",
        "occurred_at": MADE,
        "message": "Key `laptop` of `alice` was reported as leaked. It is disabled. Give it a new secret, and ask an "
        "administrator to enable it.",
        "subject": "key",
        "subject_id": "7Zk2mWq0PfXa",
        "data": {"kind": "key", "id": "7Zk2mWq0PfXa"},
        "webhooks": [],
    },
    "TrialsAnswer": {
        "data": [
            {
                "webhook": "hooks.example-1f0c9a3b",
                "ok": True,
                "status": 204,
                "detail": "status 204",
                "ms": 38.4,
            }
        ]
    },
    "AuditRecordView": {
        "number": 42,
        "time": "2026-11-20T08:00:00.123Z",
        "action": "key.update",
        "result": "done",
        "reason": None,
        "actor": {
            "kind": "user",
            "id": "usr_HqrETuYJTL4t",
            "name": "alice",
            "credential": {"kind": "key", "id": "9Qm2x7RtYb0c"},
        },
        "target": {"kind": "key", "id": "7Zk2mWq0PfXa", "name": "laptop"},
        "project_id": "prj_QxE0q7SxlkHq",
        "before": {"limits": ["500/day"]},
        "after": {"limits": ["5000/day"]},
        "address": "203.0.113.7",
        "user_agent": "curl/8.14.1",
        "request_id": "req_6b0ed03bf3b4d4cdefdd00000030",
        "previous": "9cc26880ef5bd4b45cfd75ea880451440bd4a4b7ace895aba2cccabce061776d",
        "hash": "a3334c526a85baa2c031e69b72b11f3b347802aefcb6d299a72c0ad29785a921",
    },
    "SecretVersions": {"data": [_SECRET_VERSION]},
    "KeptTargets": {
        "data": [
            {
                "target": "https://api.example.com/v1",
                "added_at": MADE,
                "is_served": True,
                "models": ["example/large"],
                "api_key": {"hint": "…x7Qa", "set_at": MADE},
            }
        ]
    },
}
