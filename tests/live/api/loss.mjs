// Clients that go in the middle of an answer, and devices that do.
import test from 'node:test';
import assert from 'node:assert/strict';
import { chatModel, clusters, eventsOf, openApi, sleep, until, withApi } from './rig.mjs';
import { withRig } from '../cluster/rig.mjs';

const endless = { prompt: 'hello', max_tokens: 3500, temperature: 0, ignore_eos: true };
const chat = { messages: [{ role: 'user', content: 'hello' }], max_tokens: 3000, temperature: 0,
    ignore_eos: true };

// Nothing is computed any more: no step is sent.
async function still(api) {
    const steps = async () => {
        const m = await api.metrics();
        return [m.lingua_steps_total, m.lingua_rows_decoded_total, m.lingua_rows_read_total];
    };
    const before = await steps();
    await sleep(250);
    assert.deepEqual(await steps(), before);
}

async function begun(api, where, body, n = 20) {
    const abort = new AbortController();
    const r = await api.fetch(where, { ...body, stream: true }, { signal: abort.signal });
    const events = eventsOf(r);
    for (let i = 0; i < n; i++)
        await events.next();
    return { abort, events };
}

for (const [name, options] of clusters)
    test(`clients go: ${name}`, withApi({ ...options, model: chatModel(), args: ['--slots', '2'] },
        async (api, t) => {
            await t.test('in mid-stream', async () => {
                for (const [where, body] of [['/v1/completions', endless],
                    ['/v1/chat/completions', chat], ['/completion', endless]]) {
                    const { abort } = await begun(api, where, body);
                    const before = (await api.metrics()).lingua_generated_tokens_total;
                    abort.abort();
                    await api.idle();
                    await still(api);
                    const made = (await api.metrics()).lingua_generated_tokens_total - before;
                    assert.ok(made < endless.max_tokens - 1000, `${made} tokens were made all the same`);
                }
            });
            await t.test('by the client\'s own abort', async () => {
                const s = await api.client.chat.completions.create({ model: 'x', ...chat,
                    stream: true });
                let n = 0;
                for await (const _ of s)
                    if (++n === 10)
                        break;
                await api.idle();
                await still(api);
            });
            await t.test('while waiting for a whole answer, with choices, and in the queue', async () => {
                const abort = new AbortController();
                const all = [{}, { n: 2 }, {}, { n: 2 }].map(more => api.fetch('/v1/completions',
                    { ...endless, ...more }, { signal: abort.signal }).catch(() => 'gone'));
                await until(async () => (await api.metrics()).lingua_queue_waiting > 0, 'a queue');
                abort.abort();
                assert.deepEqual(await Promise.all(all), Array(4).fill('gone'));
                await api.idle();
                assert.equal((await api.metrics()).lingua_queue_waiting, 0);
                await still(api);
                await api.alive();
            });
            await t.test('one goes, the others stay', async () => {
                const stay = await begun(api, '/v1/completions', { ...endless, max_tokens: 300 }, 5);
                const go = await begun(api, '/v1/completions', { ...endless, prompt: 'other' }, 5);
                go.abort.abort();
                let last, n = 5;
                for await (const e of stay.events) {
                    last = e;
                    n++;
                }
                assert.equal(last, '[DONE]');
                assert.ok(n > 290, `${n} events`);
                await api.idle();
            });
        }));

// A stream to its end: its events, and how it ended.
async function follow(events) {
    const all = [];
    try {
        for await (const e of events)
            all.push(e);
        return { all, ended: true };
    } catch (error) {
        return { all, ended: false, error };
    }
}

test('a device dies in mid-stream', withRig(async rig => {
    const api = await openApi(rig, { model: chatModel(), devices: ['one', 'two'] });
    const short = { prompt: 'hello', max_tokens: 30, temperature: 0 };
    const { choices: [{ text }] } = await api.get('/v1/completions', short);
    const streams = await Promise.all([['/v1/completions', endless], ['/v1/chat/completions', chat],
        ['/completion', endless]].map(([where, body]) => begun(api, where, body)));
    const whole = api.ask('/v1/completions', { ...endless, prompt: 'whole' });
    await until(async () => (await api.metrics()).lingua_slots_busy === 4, 'four answers under way');
    rig.two.signal('SIGKILL');
    for (const { events } of streams) {
        const { all, ended, error } = await follow(events);
        assert.ok(ended, `the stream broke off: ${error}`);
        const last = all.at(-1);
        assert.ok(last.error, `it ends with ${JSON.stringify(last)}`);
        assert.match(last.error.message, /\btwo\b|device/);
        assert.ok(all.slice(0, -1).every(e => e !== '[DONE]' && !e.error));
    }
    const failed = await whole;
    assert.equal(failed.status, 503, failed.text.slice(0, 200));
    assert.match(failed.json.error.message, /\btwo\b|device/);
    assert.ok(Number(failed.headers.get('retry-after')) >= 1);

    // The server lives; who asks now waits until the device is back, and gets the same answer.
    assert.ok(rig.head.running);
    const m = await api.metrics();
    assert.equal(m.lingua_slots_busy, 0);
    assert.ok(m.lingua_devices_lost_total >= 1);
    assert.equal((await api.get('/slots')).length, 4);
    const waits = api.get('/v1/completions', short);
    if (!m.lingua_ready)
        assert.equal((await api.ask('/health')).status, 503);
    rig.two = await rig.join('two');
    assert.equal((await waits).choices[0].text, text);
    await rig.ready(['one', 'two']);
    assert.deepEqual(await api.get('/health'), { status: 'ok' });
    assert.equal((await api.get('/v1/completions', short)).choices[0].text, text);
}));

test('the client library throws when a device dies', withRig(async rig => {
    const api = await openApi(rig, { model: chatModel(), devices: ['one'] });
    const s = await api.client.chat.completions.create({ model: 'x', ...chat, stream: true });
    let n = 0;
    await assert.rejects(async () => {
        for await (const _ of s)
            if (++n === 10)
                rig.one.signal('SIGKILL');
    }, e => /one|device/.test(`${e.message} ${e.error?.message}`));
    assert.ok(n >= 10);
}));

test('the head is told to end in mid-stream', withApi({ model: chatModel() }, async (api, t, rig) => {
    const { events } = await begun(api, '/v1/completions', endless);
    rig.head.signal('SIGTERM');
    await follow(events);
    assert.equal(typeof await rig.head.end(10000), 'number', 'it ends by itself, not by a signal');
}));
