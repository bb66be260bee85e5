// A resource server that verifies access tokens by itself, as oauth4webapi does it (RFC 9068 section 4). Reads {issuer, tokens}
// as JSON from standard input, and prints for each token its claims, or the error, as JSON.

import * as oauth from 'oauth4webapi';

let text = '';
for await (const part of process.stdin) text += part;
const given = JSON.parse(text);
const issuer = new URL(given.issuer);
const insecure = { [oauth.allowInsecureRequests]: true };
const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure });
const as = await oauth.processDiscoveryResponse(issuer, response);

const seen = [];
for (const token of given.tokens) {
  const request = new Request('https://elsewhere.example/', { headers: { authorization: `Bearer ${token}` } });
  try {
    seen.push(await oauth.validateJwtAccessToken(as, request, given.issuer, insecure));
  } catch (error) {
    seen.push({ error: error.code ?? error.name, message: error.message });
  }
}
console.log(JSON.stringify(seen));
