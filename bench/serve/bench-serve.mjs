// What many users get of an emulated three-stage cluster; README.md beside this file says what is
// measured and how. Needs root, /dev/net/tun and control groups; says so and ends well without.
//
// usage: bench-serve.mjs BUILD [--quick] [--rounds N] [--tokens N] [--prompt N] [--streams N]
//     [--only rate,gaps,ttft,llama] [--model NAME] [--link NAME] [--json FILE]
//     [--llama FOLDER] [--no-llama] [--keep]
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { median, sleep, until } from '../net/machines.mjs';
import { LINKS, MIXES, quotas } from '../cluster/phones.mjs';
import { OVERHEAD, SLACK, MB, Stand, needPhones } from '../cluster/stand.mjs';
import { PhoneCluster, Store, jsonSave } from '../cluster/cluster.mjs';
import { Llama } from '../cluster/llama.mjs';

const RATIO = 2.5, LLAMA_RATIO = 4, GAP_RATIO = 2, TTFT_SHARE = 0.1;
const PORT = 8080, SHORT = 64, TAIL = 16, BESIDE = 4, FIRST_TOKEN = 300;
const { values: opt, positionals } = parseArgs({
    allowPositionals: true,
    options: {
        quick: { type: 'boolean' }, rounds: { type: 'string', default: '1' },
        tokens: { type: 'string' }, prompt: { type: 'string' },
        streams: { type: 'string', default: '8' }, only: { type: 'string' },
        model: { type: 'string', default: 'wide' }, link: { type: 'string', default: 'lan' },
        json: { type: 'string' }, llama: { type: 'string', default: process.env.LLAMA_CPP ?? '' },
        'no-llama': { type: 'boolean' }, keep: { type: 'boolean' }, help: { type: 'boolean' },
    },
});
if (opt.help) {
    console.log('bench/serve/README.md says how; the head of bench/serve/bench-serve.mjs has the ' +
        'options');
    process.exit(0);
}
const build = resolve(positionals[0] ?? 'build'), here = dirname(fileURLToPath(import.meta.url));
const tokens = Number(opt.tokens ?? (opt.quick ? 16 : 48)), rounds = Number(opt.rounds);
const longPrompt = Number(opt.prompt ?? (opt.quick ? 256 : 2000)), nStreams = Number(opt.streams);
const slots = nStreams + 1, ctx = longPrompt + 304; // 2304
const mix = MIXES.find(m => m.name === 'equal'), link = LINKS.find(l => l.name === opt.link);
const wanted = part => !opt.only || opt.only.split(',').includes(part);
if (!link)
    throw new Error(`there is no link "${opt.link}"; there are ` +
        LINKS.map(l => l.name).join(', '));
needPhones('bench-serve');

const stand = new Stand(build, opt), { phones, folder, lingua } = stand;
const note = words => console.error(`  ${words}`);
const doc = { model: opt.model, mix: mix.name, quotas: quotas(mix), link: link.name, tokens,
    prompt: longPrompt, streams: nStreams, context: ctx, slots, measured: {} };

// The same prompts for everybody, none like another: each a run of its own of the same numbers.
let seed = 1;
function prompt(n) {
    return Array.from({ length: n }, () => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        return FIRST_TOKEN + (seed >>> 8) % (model.vocabulary - FIRST_TOKEN);
    });
}

// One job of asker.mjs, on the head's machine but on no device's time.
async function ask(url, job) {
    const argv = stand.net.command(0, [process.execPath, join(here, 'asker.mjs')]);
    const p = spawn(argv[0], argv.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
    let out = '';
    p.stdout.on('data', d => { out += d; });
    p.stdin.end(JSON.stringify({ url, ...job }));
    const status = await new Promise(done => p.on('close', done));
    if (status !== 0)
        throw new Error(`measuring ${job.kind} failed`);
    return JSON.parse(out);
}

// Keeps what was measured under that name, one entry per round.
function keep(name, got) {
    (doc.measured[name] ??= []).push(got);
    note(`${name}: ${JSON.stringify(got)}`);
    if (opt.json)
        jsonSave(opt.json, doc);
    return got;
}

const shorts = n => Array.from({ length: n }, () => prompt(SHORT));

async function rates(url, side) {
    for (const n of [1, nStreams])
        keep(`${side}_${n}`, await ask(url, { kind: 'rate', prompts: shorts(n), tokens }));
}

async function ttfts(url) {
    const prefix = prompt(longPrompt);
    const asked = () => ask(url, { kind: 'ttft', prompt: [...prefix, ...prompt(TAIL)] });
    keep('ttft_cold', await asked());
    const again = keep('ttft_again', await asked());
    if (again.n_cached < longPrompt)
        note(`only ${again.n_cached} of ${longPrompt} tokens were kept`);
}

async function gapsBeside(url) {
    keep('beside', await ask(url, { kind: 'beside', prompts: shorts(BESIDE), tokens,
        prompt: prompt(longPrompt), most: ctx - SHORT }));
}

// ---- the two servers ----

async function ours() {
    const kv = model.kvBytes * ctx * slots;
    const budget = Math.round(mix.room * (model.bytes + kv) + OVERHEAD);
    quotas(mix).forEach((s, i) => phones.set(`m${i}`, s, budget + SLACK));
    const memory = ['--memory', String(budget)], host = stand.net.address(0);
    const c = new PhoneCluster({
        lingua, net: stand.net, model: model.path, phones, store: stand.store,
        work: join(folder, 'cluster'), machines: mix.speeds.map((_, i) => i), join: memory,
        serve: ['--no-announce', '--concurrency', String(nStreams), '--slots', String(slots),
            '--ctx', String(ctx), '--host', host, '--port', String(PORT), ...memory],
    });
    stand.current = c;
    await c.begin();
    await c.settled();
    doc.parts = c.parts();
    doc.predicted = c.planned()?.prediction;
    note(doc.parts);
    const url = `http://${host}:${PORT}`;
    await ask(url, { kind: 'ttft', prompt: prompt(SHORT) }); // pages are touched, graphs built
    for (let i = 0; i < rounds; i++) {
        if (wanted('rate'))
            await rates(url, 'ours');
        if (wanted('ttft'))
            await ttfts(url);
        if (wanted('gaps'))
            await gapsBeside(url);
    }
    const killed = c.machines.filter(i => phones.kills(`m${i}`));
    await c.close();
    stand.current = null;
    phones.rest();
    if (killed.length)
        throw new Error(`m${killed} took more memory than its limit`);
}

async function theirs() {
    quotas(mix).forEach((s, i) => phones.set(`m${i}`, s, 0));
    const env = { mix, link, net: stand.net, phones, model, log: join(folder, 'llama.log') };
    const log = () => readFileSync(env.log, 'utf8').slice(-1500);
    const server = await stand.llama.serve(env, nStreams, Math.min(ctx, 512));
    for (const end = Date.now() + 300000; ;) {
        if (server.process.over || Date.now() > end)
            throw new Error(`llama-server does not answer:\n${log()}`);
        const got = await ask(server.url, { kind: 'health' });
        if (got.status === 200)
            break;
        await sleep(1000);
    }
    await ask(server.url, { kind: 'ttft', prompt: prompt(SHORT) });
    for (let i = 0; i < rounds; i++)
        await rates(server.url, 'llama');
    stand.llama.stop();
    await until('the end of llama-server', () => server.process.over, 20);
}

// ---- what came of it ----

const of = (name, key) => {
    const list = (doc.measured[name] ?? []).map(key).filter(Number.isFinite);
    return list.length ? median(list) : undefined;
};
const num = (v, digits = 2) => !Number.isFinite(v) ? '-' : v.toFixed(digits);

function line(words, holds, value) {
    if (value === undefined || !Number.isFinite(value))
        return;
    const verdict = holds ? 'holds' : 'DOES NOT HOLD';
    console.log(`  ${words}: ${verdict}`);
    (doc.claims ??= []).push({ words, holds, value });
}

function results() {
    const rate = (side, n) => of(`${side}_${n}`, r => r.tokens_per_s);
    const one = rate('ours', 1), many = rate('ours', nStreams);
    const llamaOne = rate('llama', 1), llamaMany = rate('llama', nStreams);
    const before = of('beside', r => r.before.p95_ms), during = of('beside', r => r.during.p95_ms);
    const cold = of('ttft_cold', r => r.ttft_ms), again = of('ttft_again', r => r.ttft_ms);
    const beside = of('beside', r => r.ttft_ms);

    console.log(`\n== ${doc.parts}; medians of ${rounds} rounds\n` +
        `  tokens/s: 1 stream ${num(one)}, ${nStreams} streams ${num(many)}` +
        (llamaMany ? `; llama-server over RPC ${num(llamaOne)} and ${num(llamaMany)}` : '') + '\n' +
        `  gaps of ${BESIDE} streams, ms: p50 ${num(of('beside', r => r.before.p50_ms), 0)}, ` +
        `p95 ${num(before, 0)}; while ${longPrompt} tokens are read beside them p50 ` +
        `${num(of('beside', r => r.during.p50_ms), 0)}, p95 ${num(during, 0)}, at most ` +
        `${num(of('beside', r => r.during.most_ms), 0)}\n` +
        `  first token of a prompt of ${longPrompt} tokens, s: cold ${num(cold / 1000)}, beside ` +
        `${BESIDE} streams ${num(beside / 1000)}, repeated ${num(again / 1000)}`);
    console.log('\n== claims');
    line(`${nStreams} streams at least ${RATIO} times one: ${num(many / one)}`,
        many / one >= RATIO, many / one);
    line(`${nStreams} streams at least ${LLAMA_RATIO} times llama-server's: ` +
        num(many / llamaMany), many / llamaMany >= LLAMA_RATIO, many / llamaMany);
    line(`p95 of gaps beside a prompt at most ${GAP_RATIO} times as usual: ` +
        num(during / before), during / before <= GAP_RATIO, during / before);
    line(`a repeated prefix at most ${100 * TTFT_SHARE} % of cold: ` +
        `${num(100 * again / cold, 1)} %`, again / cold <= TTFT_SHARE, again / cold);
}

const llama = stand.llama = new Llama(opt['no-llama'] ? null : opt.llama);
const model = stand.model(opt.model);
stand.machines(mix.speeds.length);
stand.linkSet(null);
stand.store = new Store(folder, lingua, model.path);
await stand.store.fill(mix.speeds.length);
stand.store.filling = null;
stand.linkSet(link);
console.log(`${opt.model}: ${(model.bytes / MB).toFixed(0)} MB on ${mix.speeds.length} devices ` +
    `of ${quotas(mix)[0].toFixed(2)} cores, ${link.words}; ${llama.words}`);
if (!opt.only || wanted('rate') || wanted('ttft') || wanted('gaps'))
    await ours();
if (llama.there && wanted('llama'))
    await theirs();
results();
if (opt.json)
    jsonSave(opt.json, doc);
process.exit(0);
