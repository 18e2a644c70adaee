// The page of a head that really runs: its files, its session, what it is told, and what it may do.
import test from 'node:test';
import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';
import { hostname } from 'node:os';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { chatModel, defaultModel, openApi, sleep, until, withApi } from './rig.mjs';
import { withRig } from '../cluster/rig.mjs';

const apiKey = 'sk-first-0123456789';

// A browser, as far as it matters: the page's address, a cookie jar, and headers that fetch() will not
// let anybody set.
class Page {
    constructor(api, url, key, options = {}) {
        Object.assign(this, { api, url: new URL(url), key, options });
    }

    static async of(api) {
        const [, url, key] = await api.rig.head.says(/page: (\S+)\/#key=([0-9a-f]+)\n/);
        return new Page(api, url, key);
    }

    // {status, headers, bytes, text, json}
    ask(where, body, { headers = {}, method, as = this.url.host } = {}) {
        const text = body === undefined ? undefined : typeof body === 'string' ? body
            : JSON.stringify(body);
        const all = { Host: as, ...this.cookie && { Cookie: this.cookie },
            ...text !== undefined && { Origin: `${this.url.protocol}//${as}` }, ...headers };
        for (const name of Object.keys(all))
            if (all[name] === null)
                delete all[name];
        return new Promise((resolve, reject) => {
            const r = (this.url.protocol === 'https:' ? https : http).request({ agent: false,
                host: '127.0.0.1', port: this.url.port, path: where, headers: all, setHost: false,
                method: method ?? (text === undefined ? 'GET' : 'POST'), ...this.options }, a => {
                const parts = [];
                a.on('data', b => parts.push(b));
                a.on('error', reject);
                a.on('end', () => {
                    const bytes = Buffer.concat(parts);
                    let json;
                    try {
                        json = JSON.parse(bytes);
                    } catch {
                        json = undefined;
                    }
                    resolve({ status: a.statusCode, headers: a.headers, bytes, text: String(bytes),
                        json });
                });
            });
            r.on('error', reject);
            r.end(text);
        });
    }

    async enter(options) {
        const r = await this.ask('/session', { key: this.key }, options);
        if (r.status === 200) {
            assert.equal(r.headers['set-cookie'].length, 1);
            this.setCookie = r.headers['set-cookie'][0];
            this.cookie = this.setCookie.split(';')[0];
        }
        return r.status;
    }

    // Documents as they come, the newest in .last.
    watch() {
        const s = this.api.socket(), events = [];
        s.write(`GET /cluster/events HTTP/1.1\r\nHost: ${this.url.host}\r\n` +
            `${this.cookie ? `Cookie: ${this.cookie}\r\n` : ''}\r\n`);
        let seen = 0;
        s.on('data', () => {
            for (let end; (end = s.received.indexOf('\n\n', seen)) >= 0; seen = end + 2) {
                const at = s.received.indexOf('event: cluster\ndata: ', seen);
                if (at >= 0 && at < end)
                    events.push(JSON.parse(s.received.slice(at + 'event: cluster\ndata: '.length, end)));
            }
        });
        return { socket: s, events, get last() { return events.at(-1); },
            until: (what, about) => until(() => events.length && what(events.at(-1)), about) };
    }
}

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

test('its files', withApi({ model: chatModel() }, async api => {
    const page = await Page.of(api), index = await page.ask('/');
    assert.equal(index.status, 200);
    assert.match(index.headers['content-type'], /^text\/html/);
    const names = [...index.text.matchAll(/(?:src|href)="([^"]+)"/g)].map(m => m[1]);
    assert.ok(names.length >= 3, index.text);
    for (const where of ['/', ...names.map(n => new URL(n, page.url).pathname)]) {
        const plain = await page.ask(where, undefined, { headers: { Host: 'anything.test' } });
        assert.equal(plain.status, 200, where);
        assert.equal(plain.headers['content-security-policy'], policy);
        assert.equal(plain.headers['x-content-type-options'], 'nosniff');
        assert.equal(plain.headers['referrer-policy'], 'no-referrer');
        assert.equal(plain.headers['cache-control'], 'no-cache');
        const gz = await page.ask(where, undefined, { headers: { 'Accept-Encoding': 'gzip, br' } });
        assert.equal(gz.headers['content-encoding'], 'gzip');
        assert.deepEqual(gunzipSync(gz.bytes), plain.bytes);
        for (const r of [plain, gz]) {
            const known = await page.ask(where, undefined, { headers: { 'If-None-Match': r.headers.etag } });
            assert.equal(known.status, 304, where);
            assert.equal(known.bytes.length, 0);
        }
        const head = await page.ask(where, undefined, { method: 'HEAD' });
        assert.equal(head.status, 200);
        assert.equal(head.bytes.length, 0);
        assert.equal(Number(head.headers['content-length']), plain.bytes.length);
    }
    assert.equal((await page.ask('/', {})).status, 405);
}));

const order = ['/cluster/drain', { name: 'nobody' }];

test('the session, and who has none', withRig(async rig => {
    const file = `${rig.folder}/keys`;
    writeFileSync(file, `${apiKey}\n`, { mode: 0o600 });
    const api = await openApi(rig, { model: chatModel(), args: ['--api-key-file', file, '--cors',
        'http://friend.test'] });
    const page = await Page.of(api), bearer = { Authorization: `Bearer ${apiKey}` };
    assert.equal(page.url.href, `${api.url}/`);
    assert.equal(page.key.length, 48);

    // Without it a key opens what it always did, and nothing more.
    assert.deepEqual((await page.ask('/session')).json, { session: false, key_wanted: true });
    assert.equal((await page.ask('/cluster')).status, 401);
    assert.equal((await page.ask('/cluster/events')).status, 401);
    assert.equal((await page.ask('/cluster', undefined, { headers: bearer })).status, 200);
    for (const headers of [{}, bearer, { ...bearer, Cookie: `lingua_${page.url.port}=` },
        { ...bearer, Cookie: `lingua_${page.url.port}=${page.key}` }]) {
        const r = await page.ask(...order, { headers });
        assert.deepEqual([r.status, r.json.error.code], [403, 'session_needed']);
        assert.equal((await page.ask('/cluster/invite', {}, { headers })).status, 403);
    }

    // How it does not begin.
    const { key } = page;
    for (const wrong of ['', 'x', key.slice(1), `${key}0`, key.toUpperCase() + ' ', apiKey, 7, null]) {
        const r = await page.ask('/session', { key: wrong });
        assert.ok(r.status === 403 || r.status === 400, `${wrong}: ${r.status}`);
        assert.equal(r.headers['set-cookie'], undefined);
    }
    for (const options of [{ headers: { Origin: null } }, { headers: { Origin: 'http://friend.test' } },
        { headers: { Origin: 'http://evil.test' } }, { headers: { Origin: 'null' } },
        { as: `evil.test:${page.url.port}` }, { as: '127.0.0.1:1' }, { headers: { Host: 'evil.test' } },
        { as: `127.0.0.1.evil.test:${page.url.port}` }])
        assert.equal(await page.enter(options), 403, JSON.stringify(options));

    // And how it does, by each of this machine's names.
    for (const name of ['127.0.0.1', 'localhost', '[::1]', hostname(), `${hostname()}.local`])
        assert.equal(await page.enter({ as: `${name}:${page.url.port}` }), 200, name);
    assert.match(page.setCookie,
        new RegExp(`^lingua_${page.url.port}=[0-9a-f]{48}; Path=/; HttpOnly; SameSite=Strict$`));
    assert.ok(!page.cookie.includes(key));
    const known = (await page.ask('/session')).json;
    assert.deepEqual({ ...known, model: undefined },
        { session: true, key_wanted: false, model: undefined, head: 'head' });

    // What it opens, and from where.
    assert.equal((await page.ask('/cluster')).status, 200);
    assert.equal((await page.ask('/v1/completions', { prompt: 'a', max_tokens: 2 })).status, 200);
    assert.equal((await page.ask(...order)).status, 404);
    for (const [options, status] of [
        [{ headers: { Origin: null } }, 403], [{ headers: { Origin: 'http://127.0.0.1:1' } }, 403],
        [{ headers: { Origin: `https://${page.url.host}` } }, 403],
        [{ headers: { Origin: 'http://friend.test' } }, 403],
        [{ headers: { 'Sec-Fetch-Site': 'same-site' } }, 403],
        [{ as: `evil.test:${page.url.port}` }, 403], [{ as: `evil.test:${page.url.port}`,
            headers: bearer }, 403]]) {
        const r = await page.ask(...order, options);
        assert.equal(r.status, status, JSON.stringify(options));
        assert.match(r.json.error.code, /^(session_needed|origin_not_allowed)$/);
    }
    assert.equal((await page.ask('/v1/completions', { prompt: 'a', max_tokens: 2 },
        { headers: { Origin: 'http://friend.test' } })).status, 401, 'the cookie counts under CORS');
    assert.equal((await page.ask('/cluster', undefined, { as: `evil.test:${page.url.port}` })).status, 401);

    const secret = page.cookie.split('=')[1];
    assert.equal(rig.head.count(new RegExp(key)), 1, 'the key is told more than once');
    assert.ok(!rig.head.err.includes(secret));
}));

test('a page of a stranger\'s name for us asks for nothing', withApi({ model: chatModel() }, async api => {
    const page = await Page.of(api), as = `evil.test:${page.url.port}`;
    const r = await page.ask('/v1/completions', { prompt: 'a', max_tokens: 2 }, { as });
    assert.deepEqual([r.status, r.json.error.code], [403, 'origin_not_allowed']);
    assert.equal((await page.ask('/v1/completions', { prompt: 'a', max_tokens: 2 })).status, 200);
}));

test('two heads of one machine', withRig(async rig => {
    const one = await Page.of(await openApi(rig, { model: chatModel() }));
    await withRig(async other => {
        const two = await Page.of(await openApi(other, { model: chatModel() }));
        assert.equal(await one.enter(), 200);
        assert.equal(await two.enter(), 200);
        assert.notEqual(one.cookie.split('=')[0], two.cookie.split('=')[0]);
        // A browser sends both to each.
        const both = { headers: { Cookie: `${one.cookie}; ${two.cookie}` } };
        assert.equal((await one.ask(...order, both)).status, 404);
        assert.equal((await two.ask(...order, both)).status, 404);
        const swapped = (a, b) => `${a.cookie.split('=')[0]}=${b.cookie.split('=')[1]}`;
        assert.equal((await one.ask(...order, { headers: { Cookie: two.cookie } })).status, 403);
        assert.equal((await one.ask(...order, { headers: { Cookie: swapped(one, two) } })).status, 403);
        // Nor does the page of one speak for the other.
        assert.equal((await one.ask(...order, { headers: { ...both.headers,
            Origin: `http://${two.url.host}` } })).status, 403);
        const borrowed = new Page(one.api, one.url, two.key);
        assert.equal(await borrowed.enter(), 403);
    })();
}));

test('over HTTPS the cookie is Secure', withRig(async rig => {
    const [cert, keyFile] = ['cert', 'key'].map(n => `${rig.folder}/${n}.pem`);
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2',
        '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', keyFile, '-out',
        cert], { encoding: 'utf8' });
    assert.equal(made.status, 0, made.stderr);
    const page = await Page.of(await openApi(rig, { model: chatModel(), args: ['--tls-cert', cert,
        '--tls-key', keyFile] }));
    page.options = { ca: readFileSync(cert) };
    assert.equal(page.url.protocol, 'https:');
    assert.equal(await page.enter({ headers: { Origin: `http://${page.url.host}` } }), 403);
    assert.equal(await page.enter(), 200);
    assert.match(page.setCookie, /; Secure$/);
    assert.equal((await page.ask(...order)).status, 404);
}));

const state = (doc, name) => doc.devices.find(d => d.name === name)?.state;

// Every module is somewhere, once, and the path of a token hangs together.
function whole(doc, n) {
    assert.equal(doc.stages[0].first, 0);
    assert.equal(doc.stages.at(-1).last, doc.model.n_modules - 1);
    doc.stages.slice(1).forEach((s, i) => assert.equal(s.first, doc.stages[i].last + 1));
    assert.equal(doc.hops.length, doc.stages.length + 1);
    doc.stages.forEach((s, i) => assert.deepEqual([doc.hops[i].to, doc.hops[i + 1].from],
        [s.device, s.device]));
    assert.deepEqual([doc.hops[0].from, doc.hops.at(-1).to], ['head', 'head']);
    assert.equal(new Set(doc.stages.map(s => s.device)).size, n);
}

test('a cluster of three, looked at', withApi({ model: defaultModel(), devices: ['one', 'two'] },
    async (api, t, rig) => {
        const page = await Page.of(api);
        assert.equal(await page.enter(), 200);
        const seen = page.watch(), other = page.watch();
        await seen.until(d => d.state === 'running', 'the first event');
        await t.test('the document', async () => {
            const doc = (await page.ask('/cluster')).json;
            whole(doc, 3);
            const byHand = await rig.devices();
            assert.deepEqual(Object.keys(byHand).sort(), Object.keys(doc).sort());
            assert.deepEqual(Object.keys(seen.last).sort(), Object.keys(doc).sort());
            assert.deepEqual(doc.devices.map(d => `${d.name} ${d.state}`).sort(),
                ['head ready', 'one ready', 'two ready']);
            assert.ok(Math.abs(doc.time_ms - Date.now()) < 60000);
            // Embedding and output share their weights, where they are on one device.
            const weights = doc.stages.reduce((sum, s) => sum + s.weight_bytes, 0);
            if (doc.stages[0].device === doc.stages.at(-1).device)
                assert.equal(weights, doc.model.weight_bytes, 'parts that do not make the model');
            else
                assert.ok(weights >= doc.model.weight_bytes);
            const sent = doc.hops.filter(h => h.from !== h.to);
            assert.ok(sent.length >= 3);
            for (const h of sent)
                assert.ok(h.latency_ms > 0 && ['direct', 'head'].includes(h.via), JSON.stringify(h));
        });
        await t.test('figures of an answer', async () => {
            await api.get('/v1/completions', { prompt: 'Once', max_tokens: 200, temperature: 0,
                ignore_eos: true });
            await until(() => seen.events.some(d => d.speed.tokens_per_s > 0 && d.speed.streams === 1),
                'tokens per second');
            await seen.until(d => d.speed.streams === 0 && d.measured, 'it was measured');
            const doc = seen.last;
            doc.stages.forEach(s => assert.ok(s.measured_ms > 0 && s.predicted_ms > 0));
            const sent = doc.hops.filter(h => h.from !== h.to);
            sent.forEach(h => assert.ok(h.bytes > 0 && h.frames > 0 && h.predicted_ms !== null));
            assert.ok(sent.some(h => h.bytes_per_token > 0));
            const { predicted: p } = doc;
            assert.ok(Math.abs(p.token_ms - p.compute_ms - p.hops_ms - p.head_ms) < 0.01 * p.token_ms);
            await seen.until(d => d.speed.tokens_per_s === 0, 'it stands still');
        });
        await t.test('nothing happens, and nothing is told', async () => {
            await until(async () => {
                const before = seen.events.length;
                await sleep(1200);
                return seen.events.length === before;
            }, 'it is quiet');
        });
        await t.test('one is drained', async () => {
            const r = await page.ask('/cluster/drain', { name: 'one' });
            assert.deepEqual([r.status, r.json], [200, { name: 'one' }]);
            await seen.until(d => state(d, 'one') === 'idle' && d.state === 'running' &&
                d.stages.length && !d.stages.some(s => s.device === 'one'), 'it holds nothing');
            whole(seen.last, 2);
            assert.ok(seen.events.some(d => state(d, 'one') === 'draining'), 'it was never draining');
            const again = await page.ask('/cluster/drain', { name: 'head' });
            assert.equal(again.status, 400);
        });
        await t.test('one is killed, and comes back', async () => {
            await rig.two.kill();
            await seen.until(d => state(d, 'two') === 'lost' && d.state === 'running' &&
                !d.stages.some(s => s.device === 'two'), 'it is lost');
            rig.two = await rig.join('two');
            await seen.until(d => state(d, 'two') === 'ready' && d.state === 'running' &&
                d.stages.some(s => s.device === 'two'), 'it is back');
        });
        await t.test('one is invited', async () => {
            const { json: in_ } = await page.ask('/cluster/invite', {});
            assert.equal(in_.command, `lingua join ${in_.address}`);
            assert.equal(in_.address, rig.address);
            assert.ok(in_.expires_s > 0);
            assert.ok(in_.qr.every(row => row.length === in_.qr.length && /^[01]+$/.test(row)));
            rig.three = await rig.join('three', { token: in_.token });
            await seen.until(d => state(d, 'three') === 'ready', 'it has joined');
            assert.ok(!rig.head.err.includes(in_.token), 'the token was logged');
        });
        await until(() => other.last.time_ms >= seen.last.time_ms - 1000 &&
            state(other.last, 'three') === 'ready', 'the other page has seen it, too');
    }));

test('pages that do not read', withApi({ model: chatModel(), args: ['--slots', '4'] }, async api => {
    const page = await Page.of(api);
    const busy = () => api.get('/v1/completions', { prompt: 'a', max_tokens: 600, temperature: 0,
        ignore_eos: true });
    const four = async () => {
        for (let i = 0; i < 4; i++)
            await busy();
    };
    await four(); // each takes another slot, whose keys and values become resident
    const lazies = Array.from({ length: 40 }, () => {
        const s = api.socket();
        s.pause();
        s.write(`GET /cluster/events HTTP/1.1\r\nHost: ${page.url.host}\r\n\r\n`);
        return s;
    });
    const reader = page.watch();
    await busy();
    const before = api.rig.head.resident, n = reader.events.length;
    await four();
    const more = api.rig.head.resident - before;
    assert.ok(more < 20 << 10, `${more} KiB more are resident`);
    await until(() => reader.events.length > n, 'somebody who reads is told meanwhile');
    await api.alive();
    lazies.forEach(s => s.destroy());
    // As many as there may be, and one.
    const all = Array.from({ length: 63 }, () => page.watch());
    await until(() => all.every(w => w.events.length), 'all look on');
    const r = await page.ask('/cluster/events');
    assert.deepEqual([r.status, r.json.error.code], [503, 'server_busy']);
    assert.ok(r.headers['retry-after']);
    all.forEach(w => w.socket.destroy());
    await until(async () => (await api.metrics()).lingua_http_connections < 10, 'they are gone');
    const next = page.watch();
    await until(() => next.events.length, 'there is room again');
}));
