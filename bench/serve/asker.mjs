// One measurement by HTTP clients, run where the server is (a namespace): the job comes on stdin,
// the figures go to stdout, both as JSON. bench-serve.mjs starts it; job.kind says which.
import { get } from 'node:http';
import { gaps, quantile, stream } from './client.mjs';

// Every token is the same letter, whatever the model: whole characters, which are sent at once, and
// no end before the last.
const LETTER = 3 + 'a'.charCodeAt(0);
const body = (prompt, n) => ({ prompt, max_tokens: n, temperature: 0,
    logit_bias: [[LETTER, 100]] });

let text = '';
for await (const piece of process.stdin)
    text += piece;
const job = JSON.parse(text);

async function ended(c) {
    await c.over;
    if (c.error || c.status !== 200)
        throw new Error(`an answer ended with status ${c.status}: ${c.error}`);
    return c;
}

// Streams of all prompts: {all: how many tokens each has, stop, over: a promise that fails when one
// ends by itself}. looked() is called at each token.
function decode(prompts, most, looked) {
    const list = prompts.map(p => stream(job.url, body(p, most), () => looked()));
    const over = Promise.race(list.map(async c => {
        await ended(c);
        throw new Error('a stream ended while others were measured');
    }));
    over.catch(() => {});
    return { list, over, stop: () => list.forEach(c => c.stop()) };
}

// Waits until what() holds, looking at each token of the streams.
const until = (streams, what) => Promise.race([streams.over, new Promise(done => {
    streams.check = () => what() && done();
    streams.check();
})]);

// Tokens per second of all streams together while all of them decode: from when each has begun, and
// one round more, to when they have given job.tokens each on the average. A stream's rate is from
// its first token within that time to its last.
async function rate() {
    const streams = decode(job.prompts, 4 * job.tokens + 40, () => streams.check?.());
    const count = () => streams.list.reduce((n, c) => n + c.at.length, 0);
    await until(streams, () => streams.list.every(c => c.at.length >= 3));
    const from = performance.now(), before = count();
    await until(streams, () => count() >= before + job.tokens * job.prompts.length);
    streams.stop();
    const each = streams.list.map(c => {
        const at = c.at.filter(t => t >= from);
        return 1000 * (at.length - 1) / (at.at(-1) - at[0]);
    });
    return { tokens_per_s: each.reduce((a, b) => a + b), each };
}

// A prompt's first token, and how much of the prompt was not read again.
async function ttft() {
    const c = await ended(stream(job.url, body(job.prompt, 1)));
    return { ttft_ms: c.at[0] - c.began, n_prompt: c.usage.prompt_tokens,
        n_cached: c.usage.prompt_tokens_details?.cached_tokens ?? 0 };
}

// Gaps between tokens of streams that decode, before a prompt is read beside them and meanwhile.
async function beside() {
    const streams = decode(job.prompts, job.most, () => streams.check?.());
    await until(streams, () => streams.list.every(c => c.at.length >= 4));
    const from = performance.now();
    await until(streams, () => streams.list.every(c =>
        c.at.filter(t => t >= from).length > job.tokens));
    const began = performance.now();
    const long = await Promise.race([ended(stream(job.url, body(job.prompt, 1))), streams.over]);
    const to = long.at[0];
    streams.stop();
    const within = (a, b) => streams.list.flatMap(c => {
        const at = c.at;
        return gaps(at).filter((_, i) => at[i] >= a && at[i + 1] <= b);
    });
    const of = list => ({ n: list.length, p50_ms: quantile(list, 0.5), p95_ms: quantile(list, 0.95),
        most_ms: quantile(list, 1) });
    return { before: of(within(from, began)), during: of(within(began, to)), ttft_ms: to - began };
}

// Whether it answers at all: {status}.
const health = () => new Promise(done => {
    get(`${job.url}/health`, res => {
        res.resume();
        done({ status: res.statusCode });
    }).on('error', () => done({ status: 0 }));
});

const out = await { rate, ttft, beside, health }[job.kind]();
console.log(JSON.stringify(out));
process.exit(0);
