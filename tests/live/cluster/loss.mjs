// A device that dies, hangs or is cut off in the middle of an answer: whoever asked is told within
// seconds which one it was and what to do; nobody else is hurt; and when it is back, all is as
// before.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, until, cacheOf } from './rig.mjs';
import { proxyTo } from './proxy.mjs';

const TOLD_MS = 3000; // from the loss to the message
const prompt = 'hello';

const shipped = rig => ['one', 'two'].map(n => cacheOf(rig, n).received.reduce((a, b) => a + b, 0));

// lose(): makes `two` vanish; back(): brings it back.
async function loseInMidAnswer(rig, lose, back) {
    const before = shipped(rig);
    const answer = rig.ask(prompt, 3500);
    await until(() => answer.out.length > 200, 'the beginning of an answer');
    assert.ok(answer.running);
    const at = Date.now();
    await lose();
    const code = await answer.end();
    const took = answer.ended - at;
    assert.equal(code, 1, `exit status ${code}: ${answer.err}`);
    assert.match(answer.err, /\btwo\b/, 'the message does not name the device');
    assert.match(answer.err, /bring it back|try again/, 'the message does not say what to do');
    assert.ok(took <= TOLD_MS, `the message took ${took} ms`);
    assert.ok(rig.head.running && rig.one.running, 'a bystander ended');
    const gone = (await rig.devices()).devices.find(d => d.name === 'two');
    assert.equal(gone.state, 'lost');

    await back();
    assert.deepEqual(await rig.tokens(prompt, 60), rig.story);
    const all = await rig.ready(['one', 'two']);
    for (const d of all.devices.filter(d => !d.head))
        assert.equal(d.received_bytes, 0, `${d.name} was sent weights again`);
    assert.deepEqual(shipped(rig), before);
}

async function threeDevices(rig, more = {}) {
    const model = endlessModel();
    rig.story = await rig.tokens(prompt, 60, model);
    rig.head = await rig.serve({ model });
    rig.one = await rig.join('one');
    rig.two = await rig.join('two', more.address ? { address: await more.address() } : {});
    const all = await rig.ready(['one', 'two']);
    assert.ok(all.devices.every(d => d.modules), 'each has a part');
    assert.deepEqual(await rig.tokens(prompt, 60), rig.story);
}

test('killed', withRig(async rig => {
    await threeDevices(rig);
    await loseInMidAnswer(rig, () => rig.two.signal('SIGKILL'),
        async () => { rig.two = await rig.join('two'); });
    assert.ok(rig.one.count(/ready: holds/) >= 1);
}));

test('stopped', withRig(async rig => {
    await threeDevices(rig);
    await loseInMidAnswer(rig, () => rig.two.signal('SIGSTOP'), () => rig.two.signal('SIGCONT'));
    assert.ok(rig.two.running, 'it did not survive the pause');
}));

test('cut off', withRig(async rig => {
    let proxy;
    const address = async () => {
        proxy = await proxyTo(rig.address);
        rig.closers.push(() => proxy.close());
        return proxy.address;
    };
    await threeDevices(rig, { address });
    await loseInMidAnswer(rig, () => proxy.cut(), () => proxy.mend());
    assert.ok(rig.two.running, 'it did not survive being cut off');
}));

test('the first loss does not spoil the second', withRig(async rig => {
    await threeDevices(rig);
    for (let i = 0; i < 2; i++)
        await loseInMidAnswer(rig, () => rig.two.signal('SIGKILL'),
            async () => { rig.two = await rig.join('two'); });
}));
