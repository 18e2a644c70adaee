// The HTTP API of a head that really runs, alone or with devices, and clients for it.
import assert from 'node:assert/strict';
import net from 'node:net';
import path from 'node:path';
import { withRig, until, sleep, skipFile, defaultModel, endlessModel } from '../cluster/rig.mjs';
import { withKey } from '../cluster/gguf.mjs';
import { template } from './template.mjs';

export { until, sleep, skipFile, defaultModel, endlessModel };

let OpenAI;
try {
    ({ default: OpenAI } = await import('openai'));
} catch {
    skipFile('the package openai is not installed: make deps');
}

// Random weights with a chat template that knows tools: what it says is noise, unless a grammar
// makes it speak.
export const chatModel = () => {
    const plain = endlessModel(2);
    return withKey(plain, plain.replace(/\.gguf$/, '-chat.gguf'), 'tokenizer.chat_template',
        template);
};
// The stories' weights and vocabulary with the same template.
export const storyChatModel = () => withKey(defaultModel(),
    path.join(process.env.LINGUA_TEST_DIR, 'stories-chat.gguf'), 'tokenizer.chat_template',
    template);

// "data: ..." lines of a stream as they come: objects, and '[DONE]'.
export async function* eventsOf(response) {
    let text = '';
    const decoder = new TextDecoder();
    for await (const bytes of response.body) {
        text += decoder.decode(bytes, { stream: true });
        for (let at; (at = text.indexOf('\n\n')) >= 0; text = text.slice(at + 2)) {
            const line = text.slice(0, at);
            assert.match(line, /^data: /, 'an event is no data');
            const data = line.slice(6);
            yield data === '[DONE]' ? data : JSON.parse(data);
        }
    }
    assert.equal(text, '', 'the stream ends within an event');
}

export class Api {
    constructor(rig, url, headers = {}) {
        this.rig = rig;
        this.url = url;
        this.headers = headers;
        this.client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'any', maxRetries: 0,
            timeout: 60000 });
    }

    get port() { return Number(new URL(this.url).port); }

    async fetch(where, body, { method, headers = {}, signal } = {}) {
        const init = { method: method ?? (body === undefined ? 'GET' : 'POST'), signal,
            headers: { ...this.headers, ...headers } };
        if (body !== undefined) {
            init.headers['Content-Type'] ??= 'application/json';
            init.body = typeof body === 'string' || body instanceof Uint8Array ? body
                : JSON.stringify(body);
        }
        return fetch(this.url + where, init);
    }

    // {status, headers, text, json}
    async ask(where, body, options) {
        const r = await this.fetch(where, body, options);
        const text = await r.text();
        let json;
        try {
            json = JSON.parse(text);
        } catch {
            json = undefined;
        }
        return { status: r.status, headers: r.headers, text, json };
    }

    // The JSON of an answer that has to be good.
    async get(where, body, options) {
        const r = await this.ask(where, body, options);
        assert.equal(r.status, 200, `${where}: ${r.text.slice(0, 300)}`);
        return r.json;
    }

    // All events of a stream.
    async stream(where, body) {
        const r = await this.fetch(where, { ...body, stream: true }), all = [];
        assert.equal(r.status, 200);
        assert.match(r.headers.get('content-type'), /^text\/event-stream/);
        for await (const e of eventsOf(r))
            all.push(e);
        return all;
    }

    async tokenize(content, more = {}) {
        return (await this.get('/tokenize', { content, ...more })).tokens;
    }

    // {'name{label="x"}': value}
    async metrics() {
        const r = await this.ask('/metrics');
        assert.equal(r.status, 200);
        const values = {};
        for (const line of r.text.split('\n').filter(l => l && !l.startsWith('#'))) {
            const at = line.lastIndexOf(' ');
            values[line.slice(0, at)] = Number(line.slice(at + 1));
        }
        return values;
    }

    async idle() {
        await until(async () => (await this.get('/slots')).every(s => !s.is_processing) &&
            (await this.metrics()).lingua_slots_busy === 0, 'no slot is busy', 10000);
    }

    // Others are served: a short answer comes.
    async alive() {
        const a = await this.get('/v1/completions', { prompt: 'a', max_tokens: 2, temperature: 0 });
        assert.equal(a.usage.completion_tokens, 2);
    }

    // A socket that speaks no HTTP by itself: .received is what came; .ended when all has.
    socket() {
        const s = net.connect({ host: '127.0.0.1', port: this.port, allowHalfOpen: true });
        s.received = '';
        s.on('data', b => { s.received += b; });
        s.on('error', () => {});
        s.ended = new Promise(resolve => { s.on('end', resolve); s.on('close', resolve); });
        this.rig.closers.push(() => s.destroy());
        return s;
    }
}

// The head says where its API is.
export async function openApi(rig, { model = defaultModel(), devices = [], args = [] } = {}) {
    await rig.serve({ model, args: ['--port', '0', ...args] });
    const [, url] = await rig.head.says(/(https?:\/\/[^/\s]+)\/v1\b/);
    for (const name of devices)
        rig[name] = await rig.join(name);
    await rig.ready(devices);
    return new Api(rig, url);
}

export function withApi(options, body) {
    return withRig(async (rig, t) => body(await openApi(rig, options), t, rig));
}

// The same claims of a head alone and of three devices: [name, options] to make tests of.
export const clusters = [['one device', {}], ['three devices', { devices: ['one', 'two'] }]];

// What one cluster has answered, every other has to answer, too.
export function sameEverywhere() {
    const known = new Map();
    return (what, answer) => {
        if (known.has(what))
            assert.deepEqual(answer, known.get(what), `${what}: not the same on both clusters`);
        else
            known.set(what, answer);
    };
}

// What `lingua run` says by itself: {text, tokens}.
const stories = new Map();
export async function greedy(rig, prompt, n, model = defaultModel()) {
    const key = `${model}\0${prompt}\0${n}`;
    if (!stories.has(key)) {
        const p = rig.start('alone', ['run', model, '-p', prompt, '--temp', '0', '-n', String(n),
            '--threads', '1', '--json']);
        assert.equal(await p.end(60000), 0, p.err);
        stories.set(key, JSON.parse(p.out));
    }
    return stories.get(key);
}

export { OpenAI };
