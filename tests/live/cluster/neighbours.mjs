// Two devices that cannot reach each other, from the beginning or from the middle of an answer on:
// the head passes their work on. Needs a network that can be cut between any two machines.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, until, cacheOf } from './rig.mjs';

const TOLD_MS = 3000;
const prompt = 'hello';

const shipped = rig => ['one', 'two'].map(n => cacheOf(rig, n).received.reduce((a, b) => a + b, 0));

async function threeMachines(rig, t, before = () => {}) {
    const why = rig.network(3);
    if (why) {
        t.skip(why);
        return false;
    }
    const model = endlessModel();
    rig.story = await rig.tokens(prompt, 60, model);
    before();
    await rig.serve({ model, machine: 0 });
    rig.one = await rig.join('one', { machine: 1 });
    rig.two = await rig.join('two', { machine: 2 });
    rig.all = await rig.ready(['one', 'two']);
    return true;
}

const neighbourHop = all =>
    all.devices.flatMap(d => d.hops.filter(h => !d.head && h.to !== 'head'));

test('direct links blocked: the same answer comes through the head, which says so',
    withRig(async (rig, t) => {
        if (!await threeMachines(rig, t, () => rig.net('ctl', 'block', '1', '2')))
            return;
        assert.deepEqual(neighbourHop(rig.all).map(h => h.via), ['head']);
        assert.deepEqual(await rig.tokens(prompt, 60), rig.story);
        const list = await rig.quiet('devices', '--state', rig.state('head'));
        assert.match(list.err, /cannot reach each other/);
        assert.match(rig.head.err, /(one and two|two and one) cannot reach each other/);
    }));

test('the wire between two devices breaks in mid-answer', withRig(async (rig, t) => {
    if (!await threeMachines(rig, t))
        return;
    assert.deepEqual(neighbourHop(rig.all).map(h => h.via), ['direct']);
    const before = shipped(rig);
    const answer = rig.ask(prompt, 3500);
    await until(() => answer.out.length > 200, 'the beginning of an answer');
    const at = Date.now();
    rig.net('ctl', 'block', '1', '2');
    assert.equal(await answer.end(), 1, answer.err);
    assert.ok(answer.ended - at <= TOLD_MS, `the message took ${answer.ended - at} ms`);
    assert.match(answer.err, /one|two/);
    assert.deepEqual(await rig.tokens(prompt, 60), rig.story);
    assert.deepEqual(neighbourHop(await rig.ready(['one', 'two'])).map(h => h.via), ['head']);
    assert.deepEqual(shipped(rig), before);
    assert.ok(rig.one.running && rig.two.running && rig.head.running);
}));

test('a machine is cut off from everybody in mid-answer', withRig(async (rig, t) => {
    if (!await threeMachines(rig, t))
        return;
    const before = shipped(rig);
    const answer = rig.ask(prompt, 3500);
    await until(() => answer.out.length > 200, 'the beginning of an answer');
    const at = Date.now();
    rig.net('ctl', 'cut', '2');
    assert.equal(await answer.end(), 1, answer.err);
    assert.ok(answer.ended - at <= TOLD_MS, `the message took ${answer.ended - at} ms`);
    assert.match(answer.err, /\btwo\b/);
    rig.net('ctl', 'join', '2');
    const all = await rig.ready(['one', 'two'], 60000);
    assert.deepEqual(neighbourHop(all).map(h => h.via), ['direct']);
    assert.deepEqual(await rig.tokens(prompt, 60), rig.story);
    assert.deepEqual(shipped(rig), before);
    assert.ok(rig.one.running && rig.two.running && rig.head.running);
}));
