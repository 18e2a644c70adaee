// Devices that come and go on purpose while an answer is being given: it goes on as if nothing
// were.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, until } from './rig.mjs';

const prompt = 'hello', LONG = 1200;

const devices = (rig, ...args) => rig.quiet('devices', ...args, '--state', rig.state('head'));

async function begun(rig, n) {
    const answer = rig.ask(prompt, n, '--json');
    await until(async () => (await rig.device('head')).steps > 50, 'an answer is under way');
    return answer;
}

async function tokensOf(answer) {
    assert.equal(await answer.end(60000), 0, answer.err);
    return JSON.parse(answer.out).tokens;
}

test('devices come and are drained in mid-answer, and nobody notices', withRig(async rig => {
    const model = endlessModel();
    const story = await rig.tokens(prompt, LONG, model);
    await rig.serve({ model });
    await rig.ready([]);
    let answer = await begun(rig, LONG);
    await rig.join('one');
    await rig.ready(['one']);
    assert.ok(answer.running, 'the answer was over too soon to prove anything');
    assert.deepEqual(await tokensOf(answer), story);
    await rig.join('two');
    await rig.ready(['one', 'two']);

    answer = await begun(rig, LONG);
    assert.equal((await devices(rig, 'drain', 'one')).code, 0);
    await until(async () => (await rig.device('one')).modules === '', 'it is let go');
    assert.ok(answer.running, 'the answer was over too soon to prove anything');
    assert.deepEqual(await tokensOf(answer), story);
    const one = (await rig.ready(['two'])).devices.find(d => d.name === 'one');
    assert.deepEqual([one.state, one.drained], ['idle', true]);
    assert.match((await devices(rig, 'drain', 'head')).err, /head/);
    assert.equal((await devices(rig, 'drain', 'nobody')).code, 1);
}));
