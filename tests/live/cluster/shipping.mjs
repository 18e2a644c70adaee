// Weights on their way: each device gets what it needs, once, whatever happens in between.
import test from 'node:test';
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, openSync, readSync, writeSync, closeSync } from 'node:fs';
import { withRig, endlessModel, until, cacheOf } from './rig.mjs';
import { parts, needs, bytesNeeded } from './gguf.mjs';
import { proxyTo } from './proxy.mjs';

const CHUNK = 128 << 10; // of a FETCH, at most
const STREAMS = 8; // requests under way at one source
const PROBE = 2200000; // what finding out how quick a link is may take (src/device/probe.h), with TLS
const prompt = 'hello';

// What lies in the cache is what the modules need, whole, and nothing of any other.
function assertExact(rig, name, all, modules) {
    const need = needs(all, modules);
    const { received } = cacheOf(rig, name);
    all.forEach((p, i) => assert.equal(received[i], need[i] ? p.size : 0, `${name}: ${p.name}`));
}

test('a device gets the bytes of its own modules, once', withRig(async rig => {
    const model = endlessModel(), all = parts(model);
    await rig.serve({ model });
    const proxy = await proxyTo(rig.address);
    rig.closers.push(() => proxy.close());
    let one = await rig.join('one', { address: proxy.address });
    const ready = (await rig.ready(['one'])).devices.find(d => d.name === 'one');
    const needed = bytesNeeded(all, ready.modules);
    assert.equal(ready.received_bytes, needed);
    assertExact(rig, 'one', all, ready.modules);
    // As it was seen on the wire: TLS, greetings, the manifest and pings take little, and the probe.
    assert.ok(proxy.toDialler >= needed, `${proxy.toDialler} of ${needed} bytes were seen`);
    assert.ok(proxy.toDialler < needed * 1.02 + 100000 + PROBE,
        `${proxy.toDialler} for ${needed} bytes`);
    const story = await rig.tokens(prompt, 40);

    // Everything stops and starts again: nothing travels.
    assert.equal(await rig.head.kill('SIGTERM'), 0);
    assert.equal(await one.kill('SIGTERM'), 0);
    proxy.toDialler = 0;
    await rig.serve({ model, listen: rig.address });
    one = await rig.join('one', { address: proxy.address });
    const again = (await rig.ready(['one'])).devices.find(d => d.name === 'one');
    assert.equal(again.modules, ready.modules);
    assert.equal(again.received_bytes, 0);
    assert.ok(proxy.toDialler < 100000 + PROBE, `${proxy.toDialler} bytes for a second start`);
    assert.deepEqual(await rig.tokens(prompt, 40), story);
}));

test('three devices: nobody gets what it was never asked to hold', withRig(async rig => {
    const model = endlessModel(), all = parts(model);
    await rig.serve({ model });
    const joined = [await rig.join('one'), await rig.join('two')];
    await rig.ready(['one', 'two']);
    for (const [i, name] of ['one', 'two'].entries()) {
        // A plan without the other may have come first: what it asked for is its own, too.
        const told = joined[i].lines.map(l => /this device is to hold (\S.*)$/.exec(l.line)?.[1])
            .filter(Boolean);
        const now = await rig.device(name);
        const may = new Set();
        for (const modules of [...told, now.modules])
            needs(all, modules).forEach((yes, k) => yes && may.add(k));
        const { received } = cacheOf(rig, name);
        all.forEach((p, k) => assert.ok(received[k] === 0 || may.has(k), `${name}: ${p.name}`));
        needs(all, now.modules).forEach((yes, k) =>
            yes && assert.equal(received[k], all[k].size, `${name}: ${all[k].name}`));
    }
}));

test('kill -9 in mid-transfer: what came is not sent again', withRig(async rig => {
    const model = endlessModel(), all = parts(model);
    await rig.serve({ model });
    const proxy = await proxyTo(rig.address);
    rig.closers.push(() => proxy.close());
    proxy.rate = 4 << 20;
    const before = await rig.join('one', { address: proxy.address });
    const half = await until(async () => {
        const d = await rig.device('one');
        return d?.state === 'fetching' && d.received_bytes > 6e6 && d;
    }, 'the transfer is on its way');
    assert.ok(half.done < half.total);
    await before.kill();
    const first = cacheOf(rig, 'one').received.reduce((a, b) => a + b, 0);
    assert.ok(first > 5e6);
    proxy.rate = Infinity;
    await rig.join('one', { address: proxy.address });
    const ready = (await rig.ready(['one'])).devices.find(d => d.name === 'one');
    const needed = bytesNeeded(all, ready.modules);
    assertExact(rig, 'one', all, ready.modules);
    assert.equal(ready.received_bytes, needed - first);
    // On the wire, both times together: what was asked for when it died came twice, no more.
    // Each time the link was probed.
    assert.ok(proxy.toDialler < needed * 1.02 + 100000 + STREAMS * CHUNK + 2 * PROBE,
        `${proxy.toDialler} bytes for ${needed}`);
    await rig.tokens(prompt, 10);
}));

test('a flipped byte in the cache is found, named and fetched again', withRig(async rig => {
    const model = endlessModel(), all = parts(model);
    await rig.serve({ model });
    let one = await rig.join('one');
    const ready = (await rig.ready(['one'])).devices.find(d => d.name === 'one');
    const story = await rig.tokens(prompt, 40);
    await one.kill('SIGTERM');
    const need = needs(all, ready.modules);
    const damaged = all.findIndex((p, i) => need[i] && /ffn_up/.test(p.name));
    const fd = openSync(cacheOf(rig, 'one').file, 'r+'), byte = Buffer.alloc(1);
    const at = all[damaged].offset + (all[damaged].size >> 1);
    readSync(fd, byte, 0, 1, at);
    byte[0] ^= 0x10;
    writeSync(fd, byte, 0, 1, at);
    closeSync(fd);

    one = await rig.join('one');
    const again = (await rig.ready(['one'])).devices.find(d => d.name === 'one');
    assert.ok(one.err.includes(all[damaged].name), `the log does not name ${all[damaged].name}`);
    for (const [i, p] of all.entries())
        assert.ok(i === damaged || !one.err.includes(p.name), `the log names ${p.name}`);
    assert.equal(again.received_bytes, all[damaged].size);
    assertExact(rig, 'one', all, ready.modules);
    assert.deepEqual(await rig.tokens(prompt, 40), story);
}));

function tmpfs(rig, name, megabytes) {
    mkdirSync(rig.state(name), { mode: 0o700 });
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=0700`, 'tmpfs',
        rig.state(name)], { stdio: 'pipe' });
    rig.closers.push(() => execFileSync('umount', ['-l', rig.state(name)]));
}

test('a full disk is said clearly, and the others go on without it', withRig(async (rig, t) => {
    if (process.getuid() !== 0)
        return t.skip('needs root, to make a small disk');
    try {
        tmpfs(rig, 'small', 4);
    } catch (e) {
        return t.skip(`no disk can be mounted here: ${e.stderr}`);
    }
    const model = endlessModel();
    const alone = await rig.tokens(prompt, 40, model);
    await rig.serve({ model });
    await rig.join('one');
    await rig.ready(['one']);
    const small = await rig.join('small');
    await small.says(/full|No space left/i);
    assert.match(small.err, /MB|MiB|GB/, 'it does not say how much is missing');
    const all = await rig.ready(['one']);
    const d = all.devices.find(d => d.name === 'small');
    assert.equal(d.modules, '');
    assert.match(d.trouble, /full|No space left/i);
    assert.deepEqual(await rig.tokens(prompt, 40), alone);
    assert.ok(small.running, 'the device with the full disk ended');
}));
