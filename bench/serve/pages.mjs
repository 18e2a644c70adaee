// What open pages cost those who are answered: eight streams over three devices of this machine, with
// twenty readers of /cluster/events and without, in turns; README.md beside this file says what is
// claimed. Exit status 1 when the claim does not hold.
//
// usage: pages.mjs BUILD [--rounds N] [--seconds N] [--pages N] [--streams N] [--model FILE] [--json FILE]
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { sleep, until } from '../net/machines.mjs';
import { quantile } from './client.mjs';

const COST_MAX = 0.02;
const { values: opt, positionals } = parseArgs({
    allowPositionals: true,
    options: {
        rounds: { type: 'string', default: '15' }, seconds: { type: 'string', default: '4' },
        pages: { type: 'string', default: '20' }, streams: { type: 'string', default: '8' },
        model: { type: 'string' }, json: { type: 'string' }, help: { type: 'boolean' },
    },
});
if (opt.help) {
    console.log('bench/serve/README.md says how; the head of bench/serve/pages.mjs has the options');
    process.exit(0);
}
const build = resolve(positionals[0] ?? 'build'), program = join(build, 'lingua');
const model = opt.model ?? join(build, 'models', 'stories15M-q8_0.gguf');
if (!existsSync(model)) {
    console.error(`pages: ${model} is missing; make fetches it, or --model names another`);
    process.exit(1);
}

// ---- a cluster ----

const folder = mkdtempSync(join(tmpdir(), 'lingua-pages-')), running = [];
process.on('exit', () => {
    running.forEach(p => p.kill('SIGKILL'));
    rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(1));

function start(name, args, env = {}) {
    const file = join(folder, `${name}.log`), log = openSync(file, 'a', 0o600);
    const p = spawn(program, [...args, '--state', join(folder, name), '--name', name, '--listen',
        '127.0.0.1:0', '--threads', '1'], { stdio: ['ignore', log, log], env: { ...process.env, ...env } });
    closeSync(log);
    p.said = pattern => pattern.exec(readFileSync(file, 'utf8'));
    p.on('exit', () => { p.over = true; });
    running.push(p);
    return p;
}

const head = start('head', ['serve', model, '--equal', '--no-announce', '--slots', opt.streams,
    '--concurrency', opt.streams, '--port', '0']);
const said = pattern => until(String(pattern), () => {
    if (head.over)
        throw new Error(`the head ended: ${head.said(/[^]*/)[0].slice(-2000)}`);
    return head.said(pattern);
}, 120);
const [, url] = await said(/(http:\/\/[\d.]+:\d+)\/v1/), [, address] = await said(/reached at (\S+),/);
for (const name of ['one', 'two']) {
    const r = spawnSync(program, ['devices', 'invite', '--state', join(folder, 'head')],
        { encoding: 'utf8' });
    start(name, ['join', address], { LINGUA_TOKEN: r.stdout.trim() });
}
const get = async where => (await fetch(url + where, { headers: { connection: 'close' } }));
await until('three devices', async () => {
    const doc = await (await get('/cluster')).json();
    return new Set(doc.stages.map(s => s.device)).size === 3;
}, 120);

// ---- streams and pages ----

let over = false;
const body = JSON.stringify({ prompt: 'Once upon a time', max_tokens: 200, temperature: 0,
    ignore_eos: true, stream: true });
async function stream() {
    while (!over) {
        const r = await fetch(`${url}/v1/completions`, { method: 'POST', body });
        for await (const _ of r.body)
            ;
    }
}

function page() {
    const p = { events: 0, bytes: 0 };
    p.request = http.get(`${url}/cluster/events`, { agent: false }, r => r.on('data', b => {
        p.bytes += b.length;
        p.events += String(b).split('event: cluster').length - 1;
    }));
    p.request.on('error', () => {});
    return p;
}

// Seconds of CPU that the three have used. On a machine that has other things to do, it drifts less
// than tokens per second.
const cpu = () => running.reduce((sum, p) => {
    const f = readFileSync(`/proc/${p.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return sum + (Number(f[11]) + Number(f[12])) / 100;
}, 0);

const decoded = async () => Number(/^lingua_rows_decoded_total (\d+)/m
    .exec(await (await get('/metrics')).text())[1]);

async function rate(n) {
    const pages = Array.from({ length: n }, page);
    await sleep(500);
    const before = await decoded(), cpuBefore = cpu(), began = performance.now();
    await sleep(1000 * Number(opt.seconds));
    const tokens = await decoded() - before, s = (performance.now() - began) / 1000;
    const cpuS = cpu() - cpuBefore;
    pages.forEach(p => p.request.destroy());
    await sleep(200);
    return { per_s: tokens / s, cpu_ms: 1000 * cpuS / tokens, events: pages.reduce((sum, p) => sum + p.events, 0) / (n || 1) / s,
        bytes: pages.reduce((sum, p) => sum + p.bytes, 0) / (n || 1) / s };
}

const streams = Array.from({ length: Number(opt.streams) }, stream);
await rate(0);
const ratios = [], cpuRatios = [], rounds = [];
for (let i = 0; i < Number(opt.rounds); i++) {
    // The machine drifts: each is first as often as the other.
    const order = i % 2 ? [Number(opt.pages), 0] : [0, Number(opt.pages)], got = {};
    for (const n of order)
        got[n ? 'watched' : 'alone'] = await rate(n);
    ratios.push(got.watched.per_s / got.alone.per_s);
    cpuRatios.push(got.watched.cpu_ms / got.alone.cpu_ms);
    rounds.push(got);
    console.error(`  ${got.alone.per_s.toFixed(0)} tokens/s, ${got.watched.per_s.toFixed(0)} with ` +
        `${opt.pages} pages (${got.watched.events.toFixed(1)} events/s of ` +
        `${(got.watched.bytes / Math.max(1, got.watched.events) / 1000).toFixed(1)} KB to each)`);
}
over = true;
await Promise.all(streams);

const median = quantile(ratios, 0.5), doc = { pages: Number(opt.pages), streams: Number(opt.streams),
    ratio: median, quarter: quantile(ratios, 0.25), three_quarters: quantile(ratios, 0.75), rounds };
console.log(`== ${opt.pages} pages, ${opt.streams} streams: ${median.toFixed(3)} of the tokens/s ` +
    `without (half of ${opt.rounds} rounds between ${doc.quarter.toFixed(3)} and ` +
    `${doc.three_quarters.toFixed(3)})`);
doc.cpu_ratio = quantile(cpuRatios, 0.5);
console.log(`  CPU per token, of the three devices: ${doc.cpu_ratio.toFixed(3)} times as much`);
const holds = median > 1 - COST_MAX;
console.log(`  less than ${100 * COST_MAX} % lost: ${holds ? 'holds' : 'DOES NOT HOLD'}`);
if (opt.json)
    writeFileSync(opt.json, `${JSON.stringify(doc, null, 1)}\n`);
process.exit(holds ? 0 : 1);
