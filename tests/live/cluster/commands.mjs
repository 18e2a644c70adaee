// What `lingua devices` and `lingua serve` are told to do, while answers are being given.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, until, cacheOf } from './rig.mjs';
import { modulesOf, parts } from './gguf.mjs';

const prompt = 'hello', N = 60, LONG = 1500;

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
    const all = await rig.ready(['two']);
    assert.ok(answer.running, 'the answer was over too soon to prove anything');
    assert.deepEqual(await tokensOf(answer), story);
    const one = all.devices.find(d => d.name === 'one');
    assert.deepEqual([one.state, one.modules, one.drained], ['idle', '', true]);
    assert.match((await devices(rig, 'drain', 'head')).err, /head/);
    assert.equal((await devices(rig, 'drain', 'nobody')).code, 1);
}));

test('show, mine and invite', withRig(async rig => {
    await rig.serve({ model: endlessModel() });
    await rig.join('one');
    await rig.ready(['one']);
    const shown = await devices(rig, 'show', 'one', '--json');
    const d = JSON.parse(shown.out);
    assert.deepEqual([d.name, d.state, d.head, d.mine], ['one', 'ready', false, false]);
    assert.match(d.key, /^[0-9a-f:]{19}$/);
    assert.match((await devices(rig, 'show', 'one')).out, /TLSv1\.3/);
    assert.equal((await devices(rig, 'mine', 'one')).code, 0);
    assert.equal((await rig.device('one')).mine, true);
    assert.equal((await devices(rig, 'mine', 'one', '--off')).code, 0);
    assert.equal((await rig.device('one')).mine, false);
    assert.match((await devices(rig, 'show', 'on')).err, /did you mean "one"/);
    const invited = JSON.parse((await devices(rig, 'invite', '--json')).out);
    assert.equal(invited.address, rig.address);
    await rig.join('two', { token: invited.token });
    await rig.ready(['one', 'two']);
}));

test('private modules stay on devices marked mine', withRig(async rig => {
    const model = endlessModel(), all = parts(model);
    const story = await rig.tokens(prompt, N, model);
    const secret = ['embed', 'attn.0', 'ffn.0', 'attn.5', 'ffn.5', 'output'];
    const check = async (names, mine) => {
        for (const d of (await rig.ready(names)).devices) {
            const held = modulesOf(all, d.modules).filter(m => secret.includes(m));
            assert.ok(mine.includes(d.name) || held.length === 0, `${d.name} holds ${held}`);
        }
        assert.deepEqual(await rig.tokens(prompt, N), story);
    };
    await rig.serve({ model, args: ['--private'] });
    await rig.join('one');
    await check(['one'], ['head']);
    await rig.join('two');
    await check(['one', 'two'], ['head']);
    // Nor did their bytes ever travel there.
    for (const name of ['one', 'two']) {
        const { received } = cacheOf(rig, name);
        all.forEach((p, i) => assert.ok(received[i] === 0 ||
            !/^(token_embd|output|blk\.[05]\.)/.test(p.name), `${name} has ${p.name}`));
    }
}));

test('private modules that do not fit on the head wait for a device that is mine',
    withRig(async rig => {
        const model = endlessModel(), all = parts(model);
        const story = await rig.tokens(prompt, N, model);
        await rig.serve({ model, args: ['--private', '--memory', '40M', '--slots', '1'] });
        await rig.join('lent');
        const why = await until(async () => /private modules.*/.exec((await rig.devices())
            .waiting_for)?.[0], 'the head says that they do not fit');
        assert.match(why, /lingua devices mine NAME/);
        await rig.join('own');
        await devices(rig, 'mine', 'own');
        const now = await until(async () => {
            const all = await rig.devices();
            return all.state === 'running' && all;
        }, 'an answer is possible');
        const secret = ['embed', 'attn.0', 'ffn.0', 'attn.5', 'ffn.5', 'output'];
        const lent = now.devices.find(d => d.name === 'lent').modules;
        assert.ok(!modulesOf(all, lent).some(m => secret.includes(m)), lent);
        assert.deepEqual(await rig.tokens(prompt, N), story);
    }));
