// A cluster of three on a network of its own, where the wire can be cut:
//   - two devices that cannot reach each other are served by way of the head, with the same text;
//   - a device or a pair cut off in mid-answer: the user hears of it within 3 s, by name, and when
//     the wire is back the next request works and no weights travel;
//   - a device without an address finds the head;
//   - a decode token takes no more of the wire than its hidden states and 200 bytes per hop.
// usage: cluster_net.mjs path/to/lingua path/to/lingua-netswitch path/to/lingua-test-model
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Net, Cluster, until } from '../../bench/net/machines.mjs';

const [lingua, netswitch, testModel] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'lingua-net-'));
const net = new Net(3, netswitch);
process.on('exit', () => {
    net.down();
    rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(1));

const sh = (argv, words = argv[0]) => {
    const r = spawnSync(argv[0], argv.slice(1), { encoding: 'utf8', maxBuffer: 1 << 28 });
    assert.equal(r.status, 0, `${words}: ${r.stderr}`);
    return r.stdout;
};
const model = name => {
    const path = join(folder, `${name.replaceAll(':', '-')}.gguf`);
    sh([testModel, name, path]);
    return path;
};
const greedy = n => ['-p', 'Once upon a time there was', '--temp', '0', '-n', String(n)];
const alone = (path, n) =>
    JSON.parse(sh([lingua, 'run', path, ...greedy(n), '--threads', '1', '--json']));
const hop = (devices, name) => devices.devices.find(d => d.name === name).hops;
const received = devices => devices.devices.map(d => `${d.name} ${d.received_bytes}`);

async function same(c, want, words) {
    const got = await c.run(greedy(want.tokens.length));
    assert.deepEqual(got.tokens, want.tokens, `${words}: another text`);
}

// ---- a pair that cannot reach each other ----

async function relays(c, want) {
    net.ctl('block', 1, 2);
    c.startHead();
    c.address = (await until('the head', () => c.devices())).address;
    for (const i of [1, 2]) { // m1 is to be the first in the roster
        c.startDevice(i, c.address);
        await until(`m${i} is known`, () => c.device(`m${i}`));
    }
    const d = await c.ready(3);
    assert.deepEqual(hop(d, 'm1'), [{ to: 'm2', via: 'head' }]);
    assert.deepEqual(hop(d, 'm2'), [{ to: 'm0', via: 'direct' }]);
    await same(c, want, 'through the head');
    const table = spawnSync(lingua, ['devices', '--state', c.state(0)], { encoding: 'utf8' });
    assert.match(table.stdout, /^m1 .* head *$/m, 'the list says which way');
    assert.match(table.stderr, /via head/, 'and what that means');
    // Back: nothing breaks, and the next plan goes the short way.
    net.ctl('unblock', 1, 2);
    await same(c, want, 'with the block gone');
    await c.stop(2);
    await until('m2 has left', () => c.device('m2')?.state !== 'ready');
    c.startDevice(2, c.address);
    assert.deepEqual(hop(await c.ready(3), 'm1'), [{ to: 'm2', via: 'direct' }]);
    await same(c, want, 'direct again');
}

// ---- cut in mid-answer ----

// Starts a long answer, cuts when it is well under way, and mends once the user was told.
async function interrupted(c, cut, mend, words) {
    const before = c.devices();
    // At 15 ms a token it is far from its end.
    net.ctl('delay', 5);
    const run = c.launch(greedy(1800));
    await until('some text', () => run.out.length > 20);
    assert.equal(run.status, undefined, 'the answer is under way');
    net.ctl(...cut);
    const at = Date.now();
    await Promise.race([run.over, new Promise(done => setTimeout(done, 30000).unref())]);
    const ms = Date.now() - at;
    net.ctl(...mend);
    net.ctl('delay', 0);
    assert.equal(run.status, 1, `${cut.join(' ')}: no word after ${ms} ms: ${run.err}`);
    assert.ok(ms <= 3000, `${cut.join(' ')}: the user heard of it after ${ms} ms`);
    for (const word of words)
        assert.match(run.err, word);
    assert.equal(c.procs.filter(p => p.over && !p.ending).length, 0, 'all stay up');
    console.log(`    ${cut.join(' ')}: after ${ms} ms: ${run.err.trim().split('\n').at(-1)}`);
    const after = await until('together again', () => {
        const d = c.devices();
        return d?.state === 'running' && d.epoch > before.epoch &&
            d.devices.every(x => x.state === 'ready') && d;
    });
    assert.deepEqual(received(after), ['m0 0', 'm1 0', 'm2 0'], 'no weights travel again');
    return after;
}

async function cuts(c, want) {
    for (const i of [1, 2]) {
        await interrupted(c, ['cut', i], ['join', i], [new RegExp(`m${i}`)]);
        await same(c, want, `m${i} is back`);
    }
    await interrupted(c, ['block', 1, 2], ['unblock', 1, 2], [/m1/, /m2/]);
    await same(c, want, 'm1 and m2 see each other again');
}

// ---- by itself ----

async function finds(c, want) {
    c.startHead();
    await until('the head', () => c.devices());
    c.startDevice(1, null);
    await c.ready(2);
    await same(c, want, 'found');
    // Known now: it comes back by itself when the head has another address.
    await c.stop(0);
    c.startHead();
    await c.ready(2);
    await same(c, want, 'found again');
}

// ---- bytes ----

// What TCP has carried from machine i to machine k, our frames' TLS records included.
function carried(i, k) {
    const lines = sh(net.command(i, ['ss', '-Htinp', `dst ${net.address(k)}`])).split('\n');
    return lines.reduce((sum, l) => sum + Number(/bytes_acked:(\d+)/.exec(l)?.[1] ?? 0), 0);
}

async function bytes(c, width, tensorsAfter) {
    const start = await c.up();
    const all = () => [carried(0, 1), carried(1, 2), carried(2, 0)];
    const cost = async work => {
        const before = all(), begun = performance.now();
        await work();
        const ms = performance.now() - begun;
        return { ms, bytes: all().map((v, i) => v - before[i]) };
    };
    // Two answers that differ by 300 tokens, so that the prompt and the questions cancel out. What
    // links say by the second (pings) is no token's: a slow build would pay it for its slowness.
    const idle = await cost(() => new Promise(r => setTimeout(r, 3000)));
    const few = await cost(() => c.run(greedy(100))), many = await cost(() => c.run(greedy(400)));
    const wires = many.bytes.map((v, i) => v - few.bytes[i] -
        idle.bytes[i] / idle.ms * (many.ms - few.ms));
    let twos = 0;
    for (const [i, d] of c.devices().devices.entries()) {
        const part = start.devices[i].modules.split(' + ')[0];
        const tensors = tensorsAfter(part), most = 4 * width * tensors + 200;
        twos += tensors === 2;
        assert.ok(d.sent_bytes_per_row > 4 * width * tensors, `${d.name}: counted at all`);
        assert.ok(d.sent_bytes_per_row <= most,
            `${d.name} (${part}): ${d.sent_bytes_per_row} bytes a row, at most ${most}`);
        const wire = wires[i] / 300;
        assert.ok(wire > 4 * width * tensors && wire <= most,
            `${d.name}: ${wire.toFixed(0)} bytes a row by TCP, at most ${most}`);
        console.log(`    ${d.name} ${part}: ${d.sent_bytes_per_row.toFixed(0)} bytes a row, ` +
            `${wire.toFixed(0)} by TCP's count; at most ${most}`);
    }
    return twos;
}

// ---- all of it ----

async function part(name, path, serve, fn) {
    const c = new Cluster({
        lingua, net, model: path, work: join(folder, name.replaceAll(' ', '-')), serve,
    });
    console.log(`== ${name}`);
    try {
        await fn(c);
    } catch (e) {
        for (let i = 0; i < net.n; i++)
            if (c.procs[i])
                console.error(`m${i}:\n${c.log(i).split('\n').slice(-12).join('\n')}`);
        throw e;
    } finally {
        await c.close();
    }
}

const llama = model('llama:4'), neox = model('gptneox:4');
// Output on the head: what the others send are hidden states.
const quiet = ['--no-announce', '--equal'], split = ['--no-announce', '--split', '3'], text = alone(llama, 60);
await part('relay and cuts', llama, quiet, async c => {
    await relays(c, text);
    await cuts(c, text);
});
await part('discovery', llama, ['--equal'], c => finds(c, text));
await part('bytes of llama', llama, split, c => bytes(c, 256, () => 1));
const two = part => /(^|\.\.)attn\.\d+$/.test(part) ? 2 : 1;
await part('bytes of gptneox', neox, split, async c =>
    assert.ok(await bytes(c, 256, two) > 0, 'no cut that takes two tensors'));
console.log('all good');
process.exit(0);
