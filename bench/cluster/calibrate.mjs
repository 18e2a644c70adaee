// Is the emulation honest? What a link makes of a ping and of a transfer; what the devices' own
// profiles say against their quotas; speed against quota for pieces of work like a stage's, with
// pauses between them, and when computing all the time.
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { median, spans } from '../net/machines.mjs';
import { CORES, LINKS } from './phones.mjs';

const SPEEDS = [0.5, 0.25, 0.1], PERIODS_MS = [0, 2, 10, 20], TRANSFER_MB = 12;
const percent = v => `${v < 1 ? '' : '+'}${(100 * (v - 1)).toFixed(1)} %`;
const periodWords = ms => (ms ? `${ms} ms` : 'as used').padStart(10);
// The kernel gives no less than 1 ms of each period.
const possible = (speed, ms) => !ms || speed * ms >= 1;

async function steady(alone) {
    console.log('== computing all the time: tokens/s against unlimited, over the quota, less ' +
        'one\n  quota' + PERIODS_MS.map(periodWords).join(''));
    const [whole] = await alone(1, 8, 0);
    const one = async (s, ms, name) => (await alone(s, Math.max(3, Math.round(12 * s)), 0,
        { periodUs: 1000 * ms, name }))[0];
    for (const s of [1, ...SPEEDS]) {
        const cells = [];
        for (const ms of PERIODS_MS)
            cells.push(possible(s, ms) ? percent(await one(s, ms) / whole / s) : '-');
        console.log(s.toFixed(2).padStart(7) + cells.map(t => t.padStart(10)).join(''));
    }
    const s = CORES / 3, cells = [];
    for (const ms of PERIODS_MS) {
        const got = await Promise.all([0, 1, 2].map(i => one(s, ms, `alone${i}`)));
        cells.push(percent(median(got) / whole / s).padStart(10));
    }
    console.log(`three of ${s.toFixed(2)} at once:\n${' '.repeat(7)}${cells.join('')}`);
}

// Two stages beside the head's: what each computes per token, from the trace.
async function pieces(env) {
    const n = env.model.modules.length, a = Math.floor(0.6 * n), b = Math.floor(0.75 * n);
    const runs = [{ device: 0, first: 0, end: a }, { device: 1, first: a, end: b },
        { device: 2, first: b, end: n }];
    const mix = { name: 'calibration', speeds: [1, 1, 1], room: 1 };
    const c = await env.up(mix, null, { runs }), file = join(c.work, 'trace.json');
    const stages = async (speed, periodMs) => {
        env.phones.speed('m0', 1);
        for (const i of [1, 2])
            env.phones.speed(`m${i}`, speed, 1000 * periodMs);
        await c.run(['-p', 'abc', '--temp', '0', '-n', '12'], file);
        const all = spans(JSON.parse(readFileSync(file, 'utf8')))
            .filter(s => s.cat === 'compute' && s.rows === 1);
        return [1, 2].map(i => median(all.filter(s => s.stage === i).map(s => s.end - s.begin)));
    };
    const whole = await stages(1, 0);
    console.log('== pieces of work with pauses: how much faster than the quota says\n' +
        `  quota    period  ${whole.map(w => `${w.toFixed(1)} ms of work`.padStart(18)).join('')}`);
    for (const s of SPEEDS)
        for (const ms of PERIODS_MS.filter(p => possible(s, p))) {
            const got = await stages(s, ms);
            console.log(s.toFixed(2).padStart(7) + periodWords(ms) + '  ' +
                got.map((g, i) => `${g.toFixed(1)} ms ${percent(whole[i] / g / s)}`.padStart(18))
                    .join(''));
        }
    await env.down(c);
}

// One TCP connection from machine 0 to machine 1: Mbit/s of payload.
async function transfer(net) {
    const sink = `require('net').createServer(s => { let n = 0, t; s.on('data', d => {
        t ??= process.hrtime.bigint(); n += d.length; });
        s.on('end', () => { console.log(8e3 * n / Number(process.hrtime.bigint() - t));
            process.exit(); });
        }).listen(9, '${net.address(1)}', () => console.log('ready'));`;
    const source = `const s = require('net').connect(9, '${net.address(1)}', () => {
        s.end(Buffer.alloc(${TRANSFER_MB}e6)); });`;
    const argv = net.command(1, [process.execPath, '-e', sink]);
    const p = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    const heard = what => new Promise(done => p.stdout.on('data', d => {
        out += d;
        if (out.includes(what))
            done();
    }));
    const over = new Promise(done => p.on('close', done));
    await heard('ready');
    const from = net.command(0, [process.execPath, '-e', source]);
    const sender = spawn(from[0], from.slice(1), { stdio: 'inherit' });
    await new Promise(done => sender.on('close', done));
    await over;
    return Number(out.split('\n')[1]);
}

async function wires(env) {
    console.log('== links: half the least round trip in ms, Mbit/s of one TCP connection');
    for (const link of LINKS) {
        env.linkSet(link);
        const argv = env.net.command(0,
            ['ping', '-n', '-q', '-c', '20', '-i', '0.05', env.net.address(1)]);
        const r = spawnSync(argv[0], argv.slice(1), { encoding: 'utf8' });
        const half = Number(/= ([\d.]+)\//.exec(r.stdout)?.[1]) / 2;
        const rate = await transfer(env.net);
        console.log(`  ${link.name}: ${half.toFixed(3)} of ${link.delay}, ${rate.toFixed(0)} of ` +
            `${link.air || link.rate}`);
    }
    env.linkSet(null);
}

// What the devices' own profiles say of their speed, over the quota; and what they measured of the
// link.
async function profiles(env) {
    const mix = { name: 'calibration', speeds: [0.8, 0.4, 0.2, 0.1, 0.05], room: 1 };
    console.log('== profiles: decoding a row, and a row of a prompt, against what one core does');
    const c = await env.up(mix, LINKS[1], { streams: 1 });
    const { devices, links } = JSON.parse(c.ask(['plan', '--json'])).devices_file;
    const many = { attn: env.layers, ffn: env.layers, embed: 0, output: 1 };
    const total = (d, what, but) => Object.entries(d.costs).reduce((sum, [key, cost]) =>
        sum + (key.startsWith(but) ? 0 : many[key.split(' ')[0]] * what(cost)), 0);
    devices.forEach((d, i) => {
        const decode = env.fullMs / total(d, x => x.decode_ms[0], 'embed') / mix.speeds[i];
        const prompt = 1000 / env.prefill / total(d, x => x.prefill_ms, 'output') / mix.speeds[i];
        console.log(`${mix.speeds[i].toFixed(2).padStart(7)}${percent(decode).padStart(10)}` +
            percent(prompt).padStart(10));
    });
    for (const p of links.pairs)
        console.log(`  ${p.from} to ${p.to}: ${p.latency_ms.toFixed(3)} ms of ${LINKS[1].delay}, ` +
            `${p.rate_mbit} Mbit/s of ${LINKS[1].air}`);
    await env.down(c);
}

export async function calibrate(env) {
    await wires(env);
    await profiles(env);
    await pieces(env);
    await steady(env.alone);
}
