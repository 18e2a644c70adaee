// Tokens: one device each, for a while, and not to be guessed.
import test from 'node:test';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { withRig, endlessModel, sleep, until } from './rig.mjs';
import { knock, greet, REFUSE, PAIR } from './wire.mjs';

const LIFE_MS = 60000;

test('used, wrong, too many and too old', withRig(async rig => {
    await rig.serve({ model: endlessModel(), args: ['--token-life', '1'] });
    const key = await rig.stranger('guesser');
    const first = Date.now();
    const old = await rig.invite(), used = await rig.invite(), late = await rig.invite();
    const refused = async (name, token, why) => {
        const p = await rig.join(name, { token });
        assert.equal(await p.end(), 1, name);
        assert.match(p.err, why, name);
        assert.ok(!p.err.includes(token) && !rig.head.err.includes(token));
    };

    // One device each.
    const one = await rig.join('one', { token: used });
    await one.says(/linked to head/);
    await refused('second', used, /used already, has expired/);
    assert.equal(rig.head.count(/refused .*second.*used already, has expired/), 1);
    assert.match(rig.head.err, /token: \S+[^]*token: \S+/, 'no fresh one is shown');

    // Guesses: some are answered, then none is looked at for the rest of the minute.
    const guess = () => knock(rig.address, { key,
        send: [greet(PAIR, 'guesser', { 5: randomBytes(32) })] });
    let answers = [];
    for (let i = 0; i < 8; i++)
        answers.push((await guess()).frame);
    assert.ok(answers.every(f => f?.type === REFUSE));
    assert.ok(answers.some(f => /used already, has expired/.test(f.text)));
    assert.match(answers.at(-1).text, /too many/);
    assert.equal(rig.head.count(/refused .*guesser/), answers.length, 'a line for each');
    const unlucky = await rig.join('unlucky', { token: late });
    await until(() => rig.head.count(/refused .*unlucky.*too many/) > 0, 'a good one must wait');
    await unlucky.kill();

    // Too old; and the door opens again.
    await sleep(Math.max(0, LIFE_MS + 1500 - (Date.now() - first)));
    await refused('late', old, /used already, has expired/);
    const welcome = await rig.join('welcome');
    await welcome.says(/linked to head/);
    const names = (await rig.devices()).devices.map(d => d.name).sort();
    assert.deepEqual(names, ['head', 'one', 'welcome']);
}));
