// HTTP by hand, as well-meaning libraries, slow phones and ill-meaning strangers speak it. Whatever
// one connection does, others are served.
import test from 'node:test';
import assert from 'node:assert/strict';
import { chatModel, eventsOf, sleep, until, withApi } from './rig.mjs';

const post = (body, more = '') => `POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: ` +
    `application/json\r\n${more}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
const asked = n => JSON.stringify({ prompt: 'a', max_tokens: n, temperature: 0 });
const get = 'GET /health HTTP/1.1\r\nHost: a\r\n\r\n';
const answers = s => s.received.split('HTTP/1.1 ').slice(1);
const statuses = s => answers(s).map(a => Number(a.slice(0, 3)));

async function closes(s, ms = 10000) {
    await Promise.race([s.ended, sleep(ms).then(() => { throw new Error('it stays open'); })]);
}

test('sockets', withApi({ model: chatModel(), args: ['--slots', '8'] }, async (api, t) => {
    await t.test('byte by byte', async () => {
        const s = api.socket();
        s.setNoDelay(true);
        for (const c of post(asked(3))) {
            s.write(c);
            await new Promise(setImmediate);
        }
        await until(() => /"usage".*\}\s*$/s.test(s.received), 'an answer');
        assert.deepEqual(statuses(s), [200]);
    });
    await t.test('kept alive and pipelined', async () => {
        const s = api.socket();
        s.write(get + post(asked(3)) + get + post(asked(2)) + get);
        await until(() => answers(s).length === 5 && s.received.trimEnd().endsWith('}'), 'five answers');
        assert.deepEqual(statuses(s), [200, 200, 200, 200, 200]);
        const tokens = answers(s).map(a => /"completion_tokens": ?(\d+)/.exec(a)?.[1]);
        assert.deepEqual(tokens, [undefined, '3', undefined, '2', undefined], 'in order');
    });
    await t.test('a body in chunks', async () => {
        const body = asked(3), s = api.socket();
        s.write('POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
        for (let i = 0; i < body.length; i += 7) {
            const part = body.slice(i, i + 7);
            s.write(`${part.length.toString(16)}\r\n${part}\r\n`);
            await sleep(2);
        }
        s.write('0\r\n\r\n');
        await until(() => answers(s).length === 1 && /"usage"/.test(s.received), 'an answer');
        assert.deepEqual(statuses(s), [200]);
    });
    await t.test('the client ends its sending', async () => {
        const s = api.socket();
        s.end(post(asked(3)));
        await closes(s); // an answer or none: evhttp takes it for the end
        await api.idle();
        const short = api.socket();
        short.end(post(asked(3)).slice(0, -5));
        await closes(short);
    });
    await t.test('HTTP/1.0', async () => {
        const s = api.socket();
        s.write(post(asked(2)).replace('HTTP/1.1', 'HTTP/1.0'));
        await closes(s);
        assert.match(s.received, /^HTTP\/1\.[01] 200 [^]*"completion_tokens": ?2/);
    });
    await t.test('no HTTP', async () => {
        for (const noise of ['\0\0\0\0\0\0\0\0', 'hello\r\n\r\n', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc',
            'GET\r\n\r\n', 'POST / HTTP/9.9\r\n\r\n', `${'A'.repeat(100000)}\r\n\r\n`]) {
            const s = api.socket();
            s.write(Buffer.from(noise, 'latin1'));
            s.end();
            await closes(s);
            assert.doesNotMatch(s.received, /^HTTP\/1\.[01] 200/);
        }
        await api.alive();
    });
    await t.test('a flood of headers', async () => {
        const s = api.socket();
        s.write('GET /health HTTP/1.1\r\n');
        for (let i = 0; i < 4000 && !s.destroyed && !s.readableEnded; i++)
            s.write(`X-Flood-${i}: ${'x'.repeat(100)}\r\n`);
        await closes(s);
        assert.doesNotMatch(s.received, /^HTTP\/1\.1 200/);
        await api.alive();
    });
    await t.test('lengths that lie', async () => {
        for (const length of ['-1', '99999999999999999999', '1e3', 'many', '17000000']) {
            const s = api.socket();
            s.write(`POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n{}`);
            s.end();
            await closes(s);
            assert.doesNotMatch(s.received, /^HTTP\/1\.1 200/, length);
        }
        const chunk = api.socket();
        chunk.write('POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n' +
            'ffffffffffffffff\r\n{}');
        chunk.end();
        await closes(chunk);
        assert.doesNotMatch(chunk.received, /^HTTP\/1\.1 200/);
        await api.alive();
    });
    await t.test('many connections that say nothing', async () => {
        const silent = Array.from({ length: 300 }, () => api.socket());
        await Promise.all(silent.map(s => new Promise(resolve => s.on('connect', resolve))));
        silent.slice(0, 100).forEach(s => s.write('POST /v1/completions HTTP/1.1\r\nHost'));
        await api.alive();
        await until(async () => (await api.metrics()).lingua_http_connections >= 300, 'all are in');
        silent.forEach(s => s.destroy());
        await until(async () => (await api.metrics()).lingua_http_connections < 50, 'all are gone');
    });
    await t.test('many clients that go at once', async () => {
        for (let i = 0; i < 60; i++) {
            const s = api.socket();
            s.on('connect', () => { s.write(post(asked(50))); setTimeout(() => s.destroy(), i % 7); });
        }
        await sleep(200);
        await api.idle();
        await api.alive();
    });
}));

test('a reader that does not read', withApi({ model: chatModel(), args: ['--slots', '8'] },
    async api => {
        // Every event carries 64 probabilities, some 6 KB, so that 1000 of them are more than the
        // kernel's buffers and ours take.
        const lazy = JSON.stringify({ messages: [{ role: 'user', content: 'x' }], stream: true,
            logprobs: true, top_logprobs: 64, max_tokens: 1000, ignore_eos: true, temperature: 0 });
        const lazies = [0, 1].map(() => {
            const s = api.socket();
            s.pause();
            s.write(post(lazy).replace('/v1/completions', '/v1/chat/completions'));
            return s;
        });
        await until(async () => (await api.metrics()).lingua_slots_busy === 2, 'they are served');
        const before = api.rig.head.resident;
        const r = await api.fetch('/v1/completions', { prompt: 'b', max_tokens: 200, stream: true });
        let n = 0;
        for await (const e of eventsOf(r))
            n += e !== '[DONE]' && e.choices.length;
        assert.ok(n > 50, 'somebody who reads is served meanwhile');
        await until(async () => (await api.metrics()).lingua_slots_busy === 0,
            'the lazy ones\' answers are made', 60000);
        const more = api.rig.head.resident - before;
        assert.ok(more < 300 << 10, `${more} KiB more are resident`);
        await api.alive();
        // The first reads after all, and has everything.
        lazies[1].destroy();
        lazies[0].resume();
        await until(() => /data: \[DONE\]\n\n/.test(lazies[0].received.slice(-100)), 'the end', 30000);
        assert.equal(lazies[0].received.match(/"finish_reason": ?"length"/g)?.length, 1);
        await api.idle();
    }));
