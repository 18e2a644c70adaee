// What the network costs a token. Two tables:
//
// 1. Three machines behind the switch, with an emulated one-way delay d between them: ms per token
//    against the sum of what the stages compute plus (number of hops) x d, all from the same run's
//    trace. The claim: at most 1.10 times that. "rest" says where the rest goes, per token: on the
//    wire beyond d (which holds the switch's own time, sockets and TLS), from thread to thread on
//    the devices, and at the head's client: logits to it, sampling, the next token back.
// 2. Over loopback, links with TLS against a build without (LINGUA_BENCH_PLAINTEXT), in turns. The
//    claim: at most 1.03 times as long per token.
//
// Where it may, everything runs at real-time priority, so that what else this machine does is not
// measured; three devices of one thread take turns at a token, so two cores are enough for them.
//
// usage: bench-net.mjs BUILD PLAIN [--rounds N] [--tokens N] [--model NAME]... [--no-delay]
//     [--no-tls]
//   BUILD and PLAIN are build folders; NAME is "stories15M" or one of lingua-test-model's.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Net, Loopback, Cluster, median, spans } from './machines.mjs';

const DELAYS = [0, 2, 5], MACHINES = 3;
const { values: opt, positionals } = parseArgs({
    allowPositionals: true,
    options: {
        rounds: { type: 'string', default: '3' }, tokens: { type: 'string', default: '100' },
        model: { type: 'string', multiple: true, default: ['stories15M', 'wide:12'] },
        'no-delay': { type: 'boolean' }, 'no-tls': { type: 'boolean' },
    },
});
const [build, plain] = positionals.map(p => resolve(p));
const rounds = Number(opt.rounds), nTokens = Number(opt.tokens);
const folder = mkdtempSync(join(tmpdir(), 'lingua-bench-net-'));
const clusters = [];
let net = null;
process.on('exit', () => {
    clusters.forEach(c => c.procs.forEach(p => p?.kill('SIGKILL')));
    net?.down();
    rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(1));

const promptly = spawnSync('chrt', ['-f', '1', 'true']).status === 0 ? ['chrt', '-f', '1'] : [];
const wrap = (i, argv) => [...promptly, ...argv];
const mean = list => list.reduce((a, b) => a + b, 0) / list.length;

function modelFile(name) {
    if (name === 'stories15M')
        return ''; // the default model, fetched when it is not there
    const folder = join(build, 'bench'), path = join(folder, `${name.replaceAll(':', '-')}.gguf`);
    mkdirSync(folder, { recursive: true });
    const writer = join(build, 'lingua-test-model');
    if (!existsSync(path) && spawnSync(writer, [name, path], { stdio: 'inherit' }).status !== 0)
        throw new Error(`no model ${name}`);
    return path;
}

async function cluster(lingua, where, name, label) {
    const c = new Cluster({
        lingua: join(lingua, 'lingua'), net: where, model: modelFile(name), wrap,
        work: join(folder, label), serve: ['--no-announce', '--slots', '1', '--equal'],
    });
    clusters.push(c);
    await c.begin(MACHINES);
    let plan = await c.settled();
    if (plan.devices.some(d => !d.modules)) {
        // It is faster with fewer. Budgets make room for half of the layers on each.
        const budget = plan.devices[1].planned_bytes - 0.4 * layerBytes(c, plan);
        c.join = ['--memory', String(Math.round(budget))];
        for (let i = 1; i < MACHINES; i++)
            await c.stop(i);
        for (let i = 1; i < MACHINES; i++)
            c.startDevice(i, c.address);
        plan = await c.ready(MACHINES);
    }
    await c.run(ask(nTokens)); // warms up
    return Object.assign(c, { plan });
}

// Of all layers, with their caches.
function layerBytes(c, plan) {
    const r = spawnSync(c.lingua, ['inspect', plan.model.path, '--json'], { encoding: 'utf8' });
    return JSON.parse(r.stdout).modules.filter(m => /^(attn|ffn)/.test(m.name))
        .reduce((sum, m) => sum + m.bytes + m.kv_bytes_per_position * plan.n_ctx, 0);
}

const ask = n => ['-p', 'Once upon a time', '--temp', '0', '-n', String(n)];
const perToken = got => got.timings.generate_ms / (got.timings.generated_tokens - 1);

// ---- delays ----

// Per decode step, in ms: from its arrival at the first stage to the arrival of the next one there,
// and what of that the stages computed, what was on the wire, and what was between a step's end at
// the last stage and the next one's arrival at the first.
function steps(file) {
    const by = new Map();
    for (const s of spans(JSON.parse(readFileSync(file, 'utf8'))))
        if (s.rows === 1)
            by.set(s.step, [...by.get(s.step) ?? [], s]);
    const list = [...by.keys()].sort((a, b) => a - b).map(k => by.get(k));
    const sum = (l, cat) => l.filter(s => s.cat === cat).reduce((a, s) => a + s.end - s.begin, 0);
    const arrival = l => Math.min(...l.filter(s => s.cat === 'queue').map(s => s.begin));
    return list.slice(2, -1).map((l, i) => ({
        total: arrival(list[i + 3]) - arrival(l), compute: sum(l, 'compute'), wire: sum(l, 'wire'),
        hops: l.filter(s => s.cat === 'wire').length,
        client: arrival(list[i + 3]) - Math.max(...l.map(s => s.end)),
    }));
}

// Half the least of some round trips, in ms: what the emulated wire takes by itself.
function ping() {
    const argv = net.command(0, ['ping', '-n', '-q', '-c', '20', '-i', '0.02', net.address(1)]);
    const r = spawnSync(argv[0], argv.slice(1), { encoding: 'utf8' });
    return Number(/= ([\d.]+)\//.exec(r.stdout)?.[1]) / 2;
}

async function delays(name) {
    const c = await cluster(build, net, name, `delay-${name}`), runs = new Map();
    for (const d of c.plan.devices)
        console.log(`  ${d.name} holds ${d.modules}`);
    for (let round = 0; round < rounds; round++)
        for (const d of DELAYS) {
            const trace = join(c.work, 'trace.json');
            net.ctl('delay', d);
            const oneWay = ping(), got = await c.run(ask(nTokens), trace);
            runs.set(d, [...runs.get(d) ?? [], { ms: perToken(got), oneWay, steps: steps(trace) }]);
        }
    net.ctl('delay', 0);
    await c.close();
    console.log('                 sum of                ratio,    with d as    rest: wire' +
        '  threads  client\n    d  ms/token  compute  hops  bound   per token  ping has it');
    let worst = 0;
    for (const [d, list] of runs) {
        const all = list.flatMap(r => r.steps), of = key => mean(all.map(s => s[key]));
        const hops = all[0].hops, oneWay = median(list.map(r => r.oneWay));
        const bound = of('compute') + hops * d;
        // The median of tokens' own ratios: a token that was interrupted does not count for more.
        const ratio = w => median(all.map(s => s.total / (s.compute + hops * w)));
        const threads = of('total') - of('compute') - of('wire') - of('client');
        const cells = [mean(list.map(r => r.ms)), of('compute'), hops, bound, ratio(d),
            ratio(oneWay), of('wire') - hops * d, threads, of('client')];
        const shape = [[10, 3], [9, 3], [6, 0], [8, 3], [10, 3], [12, 3], [14, 3], [9, 3], [8, 3]];
        console.log(`${d.toString().padStart(5)}` +
            cells.map((v, i) => v.toFixed(shape[i][1]).padStart(shape[i][0])).join(''));
        worst = Math.max(worst, ratio(d));
    }
    console.log(`  at most 1.10 claimed: ${worst <= 1.1 ? 'holds' : 'DOES NOT HOLD'} ` +
        `(${worst.toFixed(3)})`);
}

// ---- TLS ----

// What the stages compute is the same code on both sides, but two clusters lie in different pages
// of memory, which is worth some percent either way: so the ratio is also given with the mean of
// both sides' compute in both, which leaves what is not computing to differ. TLS is all in that.
async function tls(name) {
    const both = [], tokens = [[], []];
    for (const [label, lingua] of [['tls', build], ['plain', plain]])
        both.push(await cluster(lingua, new Loopback(MACHINES), name, `${label}-${name}`));
    const security = both.map(c => c.plan.devices[1].security);
    for (let round = 0; round < 4 * rounds; round++)
        for (const i of round % 2 ? [1, 0] : [0, 1]) {
            const trace = join(both[i].work, 'trace.json');
            await both[i].run(ask(nTokens), trace);
            tokens[i].push(...steps(trace));
        }
    for (const c of both)
        await c.close();
    const of = (i, what) => median(tokens[i].map(what));
    const total = [0, 1].map(i => of(i, s => s.total));
    const rest = [0, 1].map(i => of(i, s => s.total - s.compute));
    const compute = mean([0, 1].map(i => of(i, s => s.compute)));
    const ratio = (compute + rest[0]) / (compute + rest[1]);
    security.forEach((s, i) => console.log(`  ${total[i].toFixed(3).padStart(9)} ms/token, ` +
        `${rest[i].toFixed(3)} of it not computing: ${s}`));
    console.log(`  ratio ${(total[0] / total[1]).toFixed(3)}, with the same compute ` +
        `${ratio.toFixed(3)} (medians of ${tokens[0].length} tokens each); at most 1.03 claimed: ` +
        `${ratio <= 1.03 ? 'holds' : 'DOES NOT HOLD'}`);
}

if (!opt['no-delay'] && (process.getuid() !== 0 || !existsSync('/dev/net/tun'))) {
    console.log('emulated delays are left out: they need root and /dev/net/tun');
    opt['no-delay'] = true;
}
for (const name of opt['no-delay'] ? [] : opt.model) {
    net ??= new Net(MACHINES, join(build, 'lingua-netswitch'));
    console.log(`== ${name}: ${MACHINES} machines, ${nTokens} tokens x ${rounds}`);
    await delays(name);
}
for (const name of opt['no-tls'] ? [] : opt.model) {
    console.log(`== ${name}: TLS against none, over loopback`);
    await tls(name);
}
process.exit(0);
