"""Examples of answers that are no JSON."""

import json
from typing import Final

from lingpai.answer_examples.reports import REPORTS

_ALICE_DID: Final = '"actor":{"credential":{"id":"9Qm2x7RtYb0c","kind":"key"},"id":"usr_HqrETuYJTL4t","kind":"user","name":"alice"}'
_HASH: Final = "a3334c526a85baa2c031e69b72b11f3b347802aefcb6d299a72c0ad29785a921"
_CHUNK: Final = (
    'data: {"id":"chatcmpl-92d1a9fa","object":"chat.completion.chunk","created":1795161600,"model":"lingpai/eliza",'
    '"choices":[{"index":0,"delta":{"content":"How"},"logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
_CSV: Final = "text/csv"
_LINES: Final = "application/jsonl"
OF_TEXT: Final[dict[str, dict[str, str]]] = {
    "GET /metrics": {
        "text/plain": "# HELP lingpai_calls_total Model calls answered.\n# TYPE lingpai_calls_total counter\n"
        'lingpai_calls_total{endpoint="chat.completions",model="lingpai/eliza",status="200"} 1.0\n'
    },
    "POST /v1/chat/completions": {"text/event-stream": _CHUNK},
    "POST /v1/completions": {
        "text/event-stream": 'data: {"id":"cmpl-09cbf2fc","object":"text_completion","created":1795161600,'
        '"model":"lingpai/eliza","choices":[{"index":0,"text":"How","logprobs":null,"finish_reason":null}]}\n\n'
        "data: [DONE]\n\n"
    },
    "POST /v1/audio/transcriptions": {"text/plain": "Hello"},
    "GET /api/v1/usage/export": {
        _CSV: "model,requests,errors,refused,charged,prompt_tokens,completion_tokens,cached_tokens,reasoning_tokens,"
        "charged_tokens,cost_usd,cost_cny,charged_usd,charged_cny\r\n"
        "lingpai/eliza,4,0,0,4,13,33,0,0,46,0,0,0,0\r\n",
        _LINES: '{"model":"lingpai/eliza","requests":4,"errors":0,"refused":0,"charged":4,"prompt_tokens":13,'
        '"completion_tokens":33,"cached_tokens":0,"reasoning_tokens":0,"charged_tokens":46,"cost_usd":"0",'
        '"cost_cny":"0","charged_usd":"0","charged_cny":"0"}\n',
    },
    "GET /api/v1/requests/export": {
        _CSV: ",".join(REPORTS["RequestBody"]) + "\r\n"
        "req_6b0ed03bf3b4d4cdefdd00000030,2026-11-20T08:00:00.123Z,laptop,7Zk2mWq0PfXa,,,alice,usr_HqrETuYJTL4t,search,"
        "prj_QxE0q7SxlkHq,lingpai/eliza,demonstration,chat,chat.completions,200,complete,1.2,1.4,0.0,4,11,0,0,estimated,,,"
        "1,15,,0,203.0.113.7\r\n",
        _LINES: json.dumps(REPORTS["RequestBody"], separators=(",", ":")) + "\n",
    },
    "GET /api/v1/audit/export": {
        _CSV: "number,time,action,result,reason,actor_kind,actor_id,actor_name,credential_kind,credential_id,target_kind,"
        "target_id,target_name,project_id,before,after,address,user_agent,request_id,hash\r\n"
        "42,2026-11-20T08:00:00.123Z,key.delete,done,,user,usr_HqrETuYJTL4t,alice,key,9Qm2x7RtYb0c,key,7Zk2mWq0PfXa,"
        f"laptop,prj_QxE0q7SxlkHq,,,203.0.113.7,curl/8.14.1,req_6b0ed03bf3b4d4cdefdd00000030,{_HASH}\r\n",
        _LINES: '{"filter":{},"time":"2026-11-20T08:00:01.597Z","type":"begin","version":1,"whole":true}\n'
        f'{{"action":"key.delete",{_ALICE_DID},"address":"203.0.113.7","after":null,"before":null,"hash":"{_HASH}",'
        f'"number":1,"previous":"{"0" * 64}","project_id":"prj_QxE0q7SxlkHq","reason":null,'
        '"request_id":"req_6b0ed03bf3b4d4cdefdd00000030","result":"done",'
        '"target":{"id":"7Zk2mWq0PfXa","kind":"key","name":"laptop"},"time":"2026-11-20T08:00:00.123Z","type":"record",'
        '"user_agent":"curl/8.14.1"}\n',
    },
}
"""By method and path, then by media type: answers that are no JSON."""
