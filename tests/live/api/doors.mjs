// Who may ask: keys, pages of other origins, TLS.
import test from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { chatModel, openApi, OpenAI, withApi } from './rig.mjs';
import { withRig } from '../cluster/rig.mjs';
import * as shapes from './shapes.mjs';

const key = 'sk-first-0123456789', other = 'sk-second-9876543210';
const ask = { prompt: 'a', max_tokens: 2 };

test('API keys', withRig(async rig => {
    const file = `${rig.folder}/keys`;
    writeFileSync(file, `${key}\n${other}\n`, { mode: 0o600 });
    const api = await openApi(rig, { model: chatModel(), args: ['--api-key-file', file] });
    const bearer = k => ({ headers: { Authorization: `Bearer ${k}` } });
    for (const options of [{}, bearer('wrong'), bearer(''), bearer(`${key}x`), bearer(key.slice(0, -1)),
        { headers: { Authorization: `Basic ${key}` } }, { headers: { Authorization: key } }])
        for (const where of ['/v1/models', '/v1/completions', '/metrics', '/slots', '/props']) {
            const r = await api.ask(where, where === '/v1/completions' ? ask : undefined, options);
            assert.equal(r.status, 401, where);
            assert.match(r.json.error.message, /key/);
            assert.ok(!r.text.includes(key));
            if (where.startsWith('/v1/')) {
                shapes.fits(shapes.error, r.json);
                assert.equal(r.json.error.code, 'invalid_api_key');
            }
        }
    for (const k of [key, other])
        assert.equal((await api.ask('/v1/completions', ask, bearer(k))).status, 200);
    assert.equal((await api.ask('/health')).status, 200, 'balancers have no key');
    const good = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: key, maxRetries: 0 });
    assert.equal((await good.completions.create({ model: 'x', ...ask })).usage.completion_tokens, 2);
    await assert.rejects(api.client.models.list(), OpenAI.AuthenticationError);
    assert.ok(!rig.head.err.includes(key));
}));

test('a key as an argument is wiped', withRig(async rig => {
    await openApi(rig, { model: chatModel(), args: ['--api-key', key] }).catch(() => {});
    assert.ok(!readFileSync(`/proc/${rig.head.pid}/cmdline`, 'utf8').includes(key));
    assert.match(rig.head.err, /--api-key/, 'no warning');
    assert.ok(!rig.head.err.includes(key));
}));

const preflight = (api, origin) => api.ask('/v1/chat/completions', undefined, { method: 'OPTIONS',
    headers: { Origin: origin, 'Access-Control-Request-Method': 'POST',
        'Access-Control-Request-Headers': 'content-type,authorization' } });

test('pages of other origins', withApi({ model: chatModel() }, async api => {
    const r = await api.ask('/v1/completions', ask, { headers: { Origin: 'http://elsewhere.test' } });
    assert.equal(r.status, 403);
    assert.equal(r.json.error.code, 'origin_not_allowed');
    assert.equal((await preflight(api, 'http://elsewhere.test')).headers
        .get('access-control-allow-origin'), null);
    const own = await api.ask('/v1/completions', ask, { headers: { Origin: api.url } });
    assert.equal(own.status, 200);
}));

test('the origin that is allowed', withApi({ model: chatModel(),
    args: ['--cors', 'http://friend.test'] }, async api => {
    const r = await preflight(api, 'http://friend.test');
    assert.ok(r.status === 200 || r.status === 204);
    assert.equal(r.headers.get('access-control-allow-origin'), 'http://friend.test');
    assert.match(r.headers.get('access-control-allow-methods'), /POST/);
    assert.match(r.headers.get('access-control-allow-headers'), /\*|content-type/i);
    const a = await api.ask('/v1/completions', ask, { headers: { Origin: 'http://friend.test' } });
    assert.equal(a.status, 200);
    assert.equal(a.headers.get('access-control-allow-origin'), 'http://friend.test');
    const no = await api.ask('/v1/completions', ask, { headers: { Origin: 'http://elsewhere.test' } });
    assert.equal(no.status, 403);
}));

test('HTTPS', withRig(async rig => {
    const [cert, keyFile] = ['cert', 'key'].map(n => `${rig.folder}/${n}.pem`);
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', keyFile, '-out',
        cert], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);
    const api = await openApi(rig, { model: chatModel(), args: ['--tls-cert', cert, '--tls-key',
        keyFile] });
    assert.match(api.url, /^https:/);
    const request = (body, options = {}) => new Promise((resolve, reject) => {
        const r = https.request(`${api.url.replace('localhost', '127.0.0.1')}/v1/completions`,
            { method: 'POST', ca: readFileSync(cert), ...options }, a => {
                let text = '';
                a.on('data', b => { text += b; });
                a.on('end', () => resolve({ status: a.statusCode, text }));
            });
        r.on('error', reject);
        r.end(JSON.stringify(body));
    });
    const whole = await request(ask);
    assert.equal(whole.status, 200);
    assert.equal(JSON.parse(whole.text).usage.completion_tokens, 2);
    assert.match((await request({ ...ask, stream: true })).text, /data: \[DONE\]\n\n$/);
    assert.equal((await request(ask, { maxVersion: 'TLSv1.2' })).status, 200);
    await assert.rejects(request(ask, { maxVersion: 'TLSv1.1', minVersion: 'TLSv1',
        ciphers: 'DEFAULT@SECLEVEL=0' }));
    const plain = await fetch(api.url.replace('https:', 'http:')).catch(e => e);
    assert.ok(plain instanceof Error, 'plain HTTP was answered');
    assert.equal((await request(ask)).status, 200);
}));
