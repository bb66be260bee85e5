// A program that uses a server as oauth4webapi, a certified strict client, does. Reads {issuer, client_id, client_secret,
// method, username, password, call} as JSON from standard input, and prints what it saw as JSON.

import * as oauth from 'oauth4webapi';

const given = JSON.parse(await readAll(process.stdin));
const insecure = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(given.issuer);
const client = { client_id: given.client_id };
const authentication = {
  basic: () => oauth.ClientSecretBasic(given.client_secret),
  post: () => oauth.ClientSecretPost(given.client_secret),
  none: () => oauth.None(),
}[given.method]();

const seen = {};
const as = await discover();
seen.discovered = as.token_endpoint;
seen.resource = await discoverResource();
if (given.method !== 'none') {
  seen.clientCredentials = await clientCredentials();
}
seen.password = await signInAndOut();
seen.errors = await errors();
console.log(JSON.stringify(seen));

async function readAll(stream) {
  let text = '';
  for await (const part of stream) text += part;
  return text;
}

async function discover() {
  const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure });
  return oauth.processDiscoveryResponse(issuer, response);
}

async function discoverResource() {
  const resource = new URL(`${given.issuer}/v1`);
  const response = await oauth.resourceDiscoveryRequest(resource, insecure);
  const found = await oauth.processResourceDiscoveryResponse(resource, response);
  return found.authorization_servers;
}

async function clientCredentials() {
  const parameters = new URLSearchParams({ scope: 'model:inference' });
  const response = await oauth.clientCredentialsGrantRequest(as, client, authentication, parameters, insecure);
  const tokens = await oauth.processClientCredentialsResponse(as, client, response);
  const called = await call(tokens.access_token);
  const active = await introspect(tokens.access_token);
  await revoke(tokens.access_token);
  return {
    type: tokens.token_type,
    expires_in: tokens.expires_in,
    scope: tokens.scope,
    called,
    active,
    afterwards: await introspect(tokens.access_token),
    challenge: await challenge(tokens.access_token),
  };
}

async function signInAndOut() {
  const parameters = new URLSearchParams({ username: given.username, password: given.password });
  const response = await oauth.genericTokenEndpointRequest(as, client, authentication, 'password', parameters, insecure);
  const first = await oauth.processGenericTokenEndpointResponse(as, client, response);
  const again = await oauth.refreshTokenGrantRequest(as, client, authentication, first.refresh_token, insecure);
  const second = await oauth.processRefreshTokenResponse(as, client, again);
  const called = await call(second.access_token);
  await revoke(second.refresh_token);
  return { called, rotated: first.refresh_token !== second.refresh_token, challenge: await challenge(second.access_token) };
}

async function call(token) {
  const headers = new Headers({ 'content-type': 'application/json' });
  const url = new URL(given.call);
  const response = await oauth.protectedResourceRequest(token, 'POST', url, headers, JSON.stringify({ input: 'hi' }), insecure);
  return response.status;
}

async function challenge(token) {
  try {
    return await call(token);
  } catch (error) {
    if (!(error instanceof oauth.WWWAuthenticateChallengeError)) throw error;
    return { status: error.status, challenges: error.cause };
  }
}

async function introspect(token) {
  const response = await oauth.introspectionRequest(as, client, authentication, token, insecure);
  return (await oauth.processIntrospectionResponse(as, client, response)).active;
}

async function revoke(token) {
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, authentication, token, insecure));
}

async function errors() {
  const scope = new URLSearchParams({ scope: 'no:such' });
  const wrong = given.method === 'post' ? oauth.ClientSecretPost('wrong') : oauth.ClientSecretBasic('wrong');
  return [
    await refusal(oauth.refreshTokenGrantRequest(as, client, authentication, 'rt-lp-unknown', insecure), oauth.processRefreshTokenResponse),
    await refusal(oauth.genericTokenEndpointRequest(as, client, authentication, 'urn:none', {}, insecure), oauth.processGenericTokenEndpointResponse),
    await refusal(oauth.clientCredentialsGrantRequest(as, client, authentication, scope, insecure), oauth.processClientCredentialsResponse),
    await refusal(oauth.clientCredentialsGrantRequest(as, client, wrong, scope, insecure), oauth.processClientCredentialsResponse),
  ];
}

async function refusal(request, process) {
  try {
    await process(as, client, await request);
  } catch (error) {
    if (error instanceof oauth.ResponseBodyError) return `${error.status} ${error.error}`;
    if (error instanceof oauth.WWWAuthenticateChallengeError) return `${error.status} ${error.cause[0].scheme}`;
    throw error;
  }
  return 'no refusal';
}
