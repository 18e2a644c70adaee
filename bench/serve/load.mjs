// Many clients for a long time against one `lingua serve` on this machine; README.md beside this
// file says what is claimed. Exit status 1 when a claim does not hold.
//
// usage: load.mjs BUILD [--seconds N] [--clients N] [--rude N] [--slots N] [--queue N] [--seed N]
//     [--model FILE] [--json FILE] [--keep] [--verbose]
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync,
    writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { sleep, until } from '../net/machines.mjs';
import { quantile } from './client.mjs';
import { Polite } from './polite.mjs';
import { Rude } from './rude.mjs';

const RSS_MORE = 0.02, CALM_MS = 3000, SAMPLE_MS = 1000, SAY_MS = 30000;
const { values: opt, positionals } = parseArgs({
    allowPositionals: true,
    options: {
        seconds: { type: 'string', default: '600' }, clients: { type: 'string', default: '64' },
        rude: { type: 'string', default: '6' }, slots: { type: 'string', default: '8' },
        queue: { type: 'string', default: '40' }, seed: { type: 'string', default: '1' },
        model: { type: 'string' }, json: { type: 'string' }, keep: { type: 'boolean' },
        verbose: { type: 'boolean' },
        help: { type: 'boolean' },
    },
});
if (opt.help) {
    console.log('bench/serve/README.md says how; the head of bench/serve/load.mjs has the options');
    process.exit(0);
}
const build = resolve(positionals[0] ?? 'build'), seconds = Number(opt.seconds);
const warmS = Math.min(120, Math.max(8, 0.2 * seconds));
const model = opt.model ?? join(build, 'models', 'stories15M-q8_0.gguf');
if (!existsSync(model)) {
    console.error(`load: ${model} is missing; make fetches it, or --model names another`);
    process.exit(1);
}

const folder = mkdtempSync(join(tmpdir(), 'lingua-load-')), logFile = join(folder, 'log');
const log = openSync(logFile, 'a', 0o600);
const server = spawn(join(build, 'lingua'), ['serve', model, '--name', 'load', '--state',
    join(folder, 'state'), '--listen', '127.0.0.1:0', '--no-announce', '--threads', '1', '--slots',
    opt.slots, '--concurrency', opt.slots, '--queue', opt.queue, '--port', '0'],
{ stdio: ['ignore', log, log] });
closeSync(log);
server.on('exit', (code, signal) => { server.over = { code, signal }; });
process.on('exit', () => {
    server.kill('SIGKILL');
    if (opt.keep)
        console.error(`  ${folder} is kept`);
    else
        rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(1));

// ---- what the kernel knows of it ----

const rss = () => 1024 * Number(/^VmRSS:\s+(\d+) kB$/m
    .exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1] ?? 0); // 0: it has just ended
const descriptors = () => readdirSync(`/proc/${server.pid}/fd`).length;

function alive() {
    if (server.over)
        throw new Error(`the server ended (${JSON.stringify(server.over)}):\n` +
            readFileSync(logFile, 'utf8').slice(-4000));
    return true;
}

const url = await until('the API', () => alive() &&
    /http:\/\/[\d.]+:\d+(?=\/v1)/.exec(readFileSync(logFile, 'utf8'))?.[0], 120);
await until('an answer', async () => alive() &&
    (await fetch(`${url}/health`, { headers: { connection: 'close' } })).status === 200, 120);

// ---- the load ----

// All clients at work for so long; then none of them has a connection.
async function phase(words, s, known) {
    const clients = [
        ...Array.from({ length: Number(opt.clients) }, (_, i) => new Polite(url, i + 1,
            Number(opt.seed))),
        ...Array.from({ length: Number(opt.rude) }, (_, i) => new Rude(url, i + 1,
            Number(opt.seed))),
    ];
    const began = Date.now();
    let said = began, most = 0;
    const running = clients.map(c => c.run());
    while (Date.now() < began + 1000 * s) {
        await sleep(SAMPLE_MS);
        alive();
        most = Math.max(most, rss());
        if (Date.now() > said + SAY_MS) {
            said = Date.now();
            console.error(`  ${words}, ${Math.round((said - began) / 1000)} s: ` +
                `${(rss() / 1e6).toFixed(1)} MB, ${descriptors()} descriptors`);
        }
    }
    for (const c of clients)
        c.ending = true;
    await Promise.all(running);
    const took = (Date.now() - began) / 1000;
    alive();
    await sleep(CALM_MS);
    await until('the end of connections', () => !known || descriptors() <= known, 15)
        .catch(() => {});
    return { took, most, rss: rss(), descriptors: descriptors(),
        done: clients.flatMap(c => c.done) };
}

// Every slot's cache is touched to its end once: memory that was promised from the start, but that the
// system gives only when it is written to, and so is no growth.
async function fill() {
    await Promise.all(Array.from({ length: Number(opt.slots) }, async (_, i) => {
        const r = await fetch(`${url}/completion`, {
            method: 'POST', headers: { connection: 'close' },
            body: JSON.stringify({ prompt: 'x', id_slot: i, n_predict: -1, ignore_eos: true }),
        });
        const got = await r.json();
        if (r.status !== 200 || got.stop_type !== 'limit')
            throw new Error(`slot ${i} was not filled: ${JSON.stringify(got).slice(0, 300)}`);
    }));
}

await fill();
console.error(`  ${opt.clients} clients and ${opt.rude} rude ones on ${opt.slots} slots: ` +
    `${warmS} s of warm-up, ${seconds} s`);
const warm = await phase('warm-up', warmS, 0);
const load = await phase('load', seconds, warm.descriptors);

// ---- what came of it ----

function groups(list, name) {
    const of = new Map();
    for (const d of list)
        of.has(name(d)) ? of.get(name(d)).push(d) : of.set(name(d), [d]);
    return of;
}

const polite = load.done.filter(d => !d.rude);
const errors = [...warm.done, ...load.done].filter(d => d.error);
const asked = polite.filter(d => d.generates), refused = asked.filter(d => d.status === 503);
const ttft = polite.map(d => d.ttft).filter(t => t !== undefined);
const kinds = groups(load.done, d => d.kind);
const doc = {
    seconds: load.took, clients: Number(opt.clients), rude: Number(opt.rude),
    requests: load.done.length, requests_per_s: load.done.length / load.took,
    ttft_p50_ms: quantile(ttft, 0.5), ttft_p95_ms: quantile(ttft, 0.95),
    share_503: refused.length / Math.max(1, asked.length), errors: errors.length,
    rss_warm: warm.rss, rss_end: load.rss, rss_most: load.most,
    descriptors_warm: warm.descriptors, descriptors_end: load.descriptors,
    kinds: Object.fromEntries([...kinds].map(([k, l]) => [k, l.length])),
};
console.log(`== ${doc.requests} requests in ${load.took.toFixed(0)} s: ` +
    `${doc.requests_per_s.toFixed(1)}/s; first token in ${doc.ttft_p50_ms?.toFixed(0)} ms (p50), ` +
    `${doc.ttft_p95_ms?.toFixed(0)} ms (p95); ${(100 * doc.share_503).toFixed(1)} % told to come ` +
    'back (503)');
if (opt.verbose)
    console.log(doc.kinds);
for (const [words, l] of groups(errors, d => `${d.kind}: ${d.error}`))
    console.log(`  ${l.length} x ${words}`);
doc.claims = [
    [`no error but 503: ${errors.length}`, errors.length === 0],
    [`memory at the end at most ${100 * RSS_MORE} % above warm-up: ` +
        `${(warm.rss / 1e6).toFixed(2)} MB, then ${(load.rss / 1e6).toFixed(2)} MB ` +
        `(${(100 * (load.rss / warm.rss - 1)).toFixed(2)} %; at most ` +
        `${(load.most / 1e6).toFixed(1)} MB under load)`, load.rss <= (1 + RSS_MORE) * warm.rss],
    [`no descriptor leaked: ${warm.descriptors}, then ${load.descriptors}`,
        load.descriptors === warm.descriptors],
].map(([words, holds]) => ({ words, holds }));
for (const c of doc.claims)
    console.log(`  ${c.words}: ${c.holds ? 'holds' : 'DOES NOT HOLD'}`);
if (opt.json)
    writeFileSync(opt.json, `${JSON.stringify(doc, null, 1)}\n`);
process.exit(doc.claims.every(c => c.holds) ? 0 : 1);
