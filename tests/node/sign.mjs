// Signs a request with npm's http-message-signatures and sends it, unless `send` is false. The request comes as JSON on
// stdin: {method, url, headers, body, fields, keyId, algorithm, key, nonce, send}; what goes out is {status, body, headers}.
import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import httpMessageSignatures from "http-message-signatures";

const { createSigner, httpbis } = httpMessageSignatures;
const wanted = JSON.parse(readFileSync(0, "utf8"));
const key = wanted.algorithm === "ed25519" ? createPrivateKey(wanted.key) : wanted.key;
const signed = await httpbis.signMessage(
  {
    key: createSigner(key, wanted.algorithm, wanted.keyId),
    name: "npm",
    fields: wanted.fields,
    params: ["created", "expires", "nonce", "keyid", "alg", "tag"],
    paramValues: { nonce: wanted.nonce, tag: "lingpai", expires: new Date(Date.now() + 60_000) },
  },
  { method: wanted.method, url: wanted.url, headers: wanted.headers },
);
const outcome = { headers: signed.headers };
if (wanted.send) {
  const body = wanted.method === "GET" ? undefined : wanted.body;
  const answer = await fetch(wanted.url, { method: wanted.method, headers: signed.headers, body });
  Object.assign(outcome, { status: answer.status, body: await answer.text() });
}
console.log(JSON.stringify(outcome));
