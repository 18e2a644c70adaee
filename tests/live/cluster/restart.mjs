// Heads and devices that end and come back: nobody needs a token and nothing is shipped twice.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, cacheOf, sleep } from './rig.mjs';

const prompt = 'hello', N = 60;

const shipped = rig => ['one', 'two'].map(n => cacheOf(rig, n).received.reduce((a, b) => a + b, 0));
const parts = all => Object.fromEntries(all.devices.map(d => [d.name, d.modules]));

async function threeDevices(rig) {
    rig.model = endlessModel();
    rig.story = await rig.tokens(prompt, N, rig.model);
    await rig.serve({ model: rig.model });
    rig.one = await rig.join('one');
    await rig.ready(['one']);
    rig.two = await rig.join('two');
    rig.parts = parts(await rig.ready(['one', 'two']));
    rig.shipped = shipped(rig);
    assert.deepEqual(await rig.tokens(prompt, N), rig.story);
}

async function asBefore(rig, what) {
    const all = await rig.ready(['one', 'two']);
    assert.deepEqual(parts(all), rig.parts, `${what}: others hold it`);
    for (const d of all.devices.filter(d => !d.head))
        assert.equal(d.received_bytes, 0, `${what}: ${d.name}`);
    assert.deepEqual(shipped(rig), rig.shipped, what);
    assert.deepEqual(await rig.tokens(prompt, N), rig.story, what);
}

for (const signal of ['SIGTERM', 'SIGKILL'])
    test(`the head ends (${signal}) and comes back: the devices find it`, withRig(async rig => {
        await threeDevices(rig);
        await rig.head.kill(signal);
        const said = signal === 'SIGTERM' ? /head has stopped/ : /lost the head/;
        await Promise.all([rig.one, rig.two].map(p => p.says(said)));
        await rig.serve({ model: rig.model, listen: rig.address });
        await asBefore(rig, signal);
        assert.ok(rig.one.running && rig.two.running);
    }));

test('everything ends and comes back in another order, without an address', withRig(async rig => {
    await threeDevices(rig);
    for (const p of [rig.one, rig.two, rig.head])
        assert.equal(await p.kill('SIGTERM'), 0);
    await rig.serve({ model: rig.model, listen: rig.address });
    const two = await rig.join('two', { address: null });
    await two.says(/linked to head/);
    await sleep(1500); // longer than the head waits for others to come along, in general
    await rig.join('one', { address: null });
    await asBefore(rig, 'another order');
}));
