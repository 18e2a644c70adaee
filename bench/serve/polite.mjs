// A client that keeps the rules: it asks, waits, sometimes changes its mind, is sometimes wrong,
// and comes back when it is told to.
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import { sleep } from '../net/machines.mjs';
import { stream } from './client.mjs';

const WORDS = 'once upon a time there was a little girl who had a big red ball and a dog'
    .split(' ');
const BACK_S_MAX = 10, ANSWER_MS = 60000;
const SCHEMA = { type: 'object', properties: { name: { type: 'string', maxLength: 8 },
    old: { type: 'integer', minimum: 0, maximum: 99 } }, required: ['name', 'old'] };

// Bad requests: path, method, body (text or object), the status they must get.
const BAD = [
    ['/v1/completions', 'POST', '{"prompt": "a", ', 400],
    ['/v1/completions', 'POST', '', 400],
    ['/v1/completions', 'POST', '['.repeat(5000), 400],
    ['/v1/completions', 'POST', { prompt: { a: 1 } }, 400],
    ['/v1/completions', 'POST', { prompt: 'a', temperature: 'hot' }, 400],
    ['/v1/completions', 'POST', { prompt: 'a', n: 100000 }, 400],
    ['/v1/completions', 'POST', { prompt: [1, 2, 99999999] }, 400],
    ['/v1/completions', 'POST', { prompt: 'word '.repeat(4000) }, 400],
    ['/v1/completions', 'POST', { prompt: 'a', logit_bias: { a: 'b' } }, 400],
    ['/v1/completions', 'POST', { prompt: 'a', json_schema: { type: 'nonsense' } }, 400],
    ['/v1/completions', 'POST', { prompt: 'a', grammar: 'root ::= (' }, 400],
    ['/v1/chat/completions', 'POST', { messages: [] }, 400],
    ['/v1/embeddings', 'POST', { input: {} }, 400],
    ['/v1/completions', 'GET', null, 405],
    ['/v1/nowhere', 'POST', {}, 404],
    ['/nowhere', 'GET', null, 404],
];
// Others: path, method, body; whether slots are wanted.
const OTHERS = [
    ['/tokenize', 'POST', { content: WORDS.join(' ') }, false],
    ['/detokenize', 'POST', { tokens: [1, 9038, 2501, 263, 931] }, false],
    ['/v1/embeddings', 'POST', { input: ['a red ball', 'a dog'] }, true],
    ['/v1/models', 'GET', null, false],
    ['/health', 'GET', null, false],
    ['/slots', 'GET', null, false],
    ['/props', 'GET', null, false],
    ['/metrics', 'GET', null, false],
];

export function random(seed) {
    let s = (seed * 2654435761) >>> 0 || 1;
    return below => {
        s ^= s << 13;
        s ^= s >>> 17;
        s = (s ^ s << 5) >>> 0;
        return s % below;
    };
}

export class Polite {
    constructor(url, number, seed) {
        Object.assign(this, { url, done: [], ending: false });
        this.random = random(1000 * seed + number);
        this.agent = new Agent({ keepAlive: true, maxSockets: 1 });
    }

    async run() {
        const kinds = ['stream', 'stream', 'stream', 'stream', 'whole', 'whole', 'whole', 'abort',
            'bad', 'chunked', 'pipelined', 'other'];
        while (!this.ending) {
            const kind = kinds[this.random(kinds.length)];
            const got = { kind, ...await this[kind]() };
            this.done.push(got);
            const back = Date.now() + 1000 * Math.min(BACK_S_MAX, got.retry || 1);
            while (got.status === 503 && Date.now() < back && !this.ending)
                await sleep(100);
        }
        this.agent.destroy();
    }

    prompt() {
        return Array.from({ length: 2 + this.random(60) }, () => WORDS[this.random(WORDS.length)])
            .join(' ');
    }
    body() {
        const b = { prompt: this.prompt(), max_tokens: 4 + this.random(40), seed: this.random(99) };
        const more = [{}, {}, {}, {}, { n: 2 }, { logprobs: 3 }, { stop: ['dog', '.'] },
            { temperature: 0 }, { frequency_penalty: 0.5, top_k: 20 }, { json_schema: SCHEMA },
            { logit_bias: { 263: -100 } }, { echo: true }];
        return { ...b, ...more[this.random(more.length)] };
    }

    async stream() {
        const c = await stream(this.url, this.body()).over;
        return judged(c, { ttft: c.status === 200 && c.at.length ? c.at[0] - c.began : undefined });
    }
    async abort() {
        const after = this.random(6), body = { ...this.body(), n: 1 };
        let n = 0;
        const c = stream(this.url, body, () => n++ === after && c.stop());
        const timer = setTimeout(() => c.stop(), 5 + this.random(2000));
        await c.over;
        clearTimeout(timer);
        return judged(c);
    }
    async whole() {
        return judged(await this.ask('/v1/completions', 'POST', this.body()));
    }
    async chunked() {
        return judged(await this.ask('/v1/completions', 'POST', this.body(), true));
    }
    async bad() {
        const [path, method, body, status] = BAD[this.random(BAD.length)];
        const got = await this.ask(path, method, body);
        return { ...got, error: got.status === status || got.status === 503 ? null
            : `${method} ${path} ${JSON.stringify(body)?.slice(0, 60)} was answered ` +
                `${got.status}, not ${status}` };
    }
    async other() {
        const [path, method, body, generates] = OTHERS[this.random(OTHERS.length)];
        const got = await this.ask(path, method, body);
        return generates ? judged(got) : { ...got, error: got.status === 200 ? null
            : `${method} ${path}: ${got.error ?? got.status}` };
    }

    // {status, retry, error}: a request on this client's one connection.
    ask(path, method, body, chunked = false) {
        return new Promise(done => {
            const text = typeof body === 'string' ? body : body ? JSON.stringify(body) : '';
            const headers = body === null ? {} : { 'content-type': 'application/json',
                ...(chunked ? {} : { 'content-length': Buffer.byteLength(text) }) };
            const req = request(this.url + path, { method, agent: this.agent, headers,
                timeout: ANSWER_MS }, res => {
                let got = '';
                res.on('data', d => { got += d; });
                res.on('end', () => done({ status: res.statusCode, error: null,
                    retry: Number(res.headers['retry-after'] ?? 0), text: got.slice(0, 200) }));
                res.on('error', e => done({ status: 0, error: e.code ?? e.message }));
            });
            req.on('timeout', () => req.destroy(new Error('no answer within a minute')));
            req.on('error', e => done({ status: 0, error: e.code ?? e.message }));
            if (!chunked) {
                req.end(text);
                return;
            }
            for (let i = 0; i < text.length; i += 17)
                req.write(text.slice(i, i + 17));
            req.end();
        });
    }

    // Four requests in one write: their answers come in order.
    pipelined() {
        const { hostname, port } = new URL(this.url);
        const body = JSON.stringify({ prompt: this.prompt(), max_tokens: 4 });
        const get = path => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
        const lines = get('/health') + 'POST /v1/completions HTTP/1.1\r\nHost: a\r\n' +
            `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}` +
            get('/v1/models') + 'GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n';
        return new Promise(done => {
            let text = '';
            const s = connect(Number(port), hostname, () => s.write(lines));
            const end = error => {
                const status = [...text.matchAll(/HTTP\/1\.1 (\d+) /g)].map(m => Number(m[1]));
                s.destroy();
                done(status.length === 4 && status.every((x, i) => x === 200 ||
                    (i === 1 && x === 503)) ? { status: status[1], error: null }
                    : { status: 0, error: `pipelined: ${status.join(', ')} ${error ?? ''}` });
            };
            s.setTimeout(ANSWER_MS, () => end('no answer within a minute'));
            s.on('data', d => { text += d; });
            s.on('end', () => end());
            s.on('error', e => end(e.code ?? e.message));
        });
    }
}

const judged = (c, more = {}) => ({ status: c.status, retry: c.retry, generates: true, ...more,
    error: c.status === 503 || c.stopped ? null
        : c.error ?? (c.status === 200 ? null : `status ${c.status}: ${c.text ?? ''}`) });
