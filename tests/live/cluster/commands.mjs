// What `lingua devices` and `lingua serve` are told to do.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, until, sleep, cacheOf, cacheModels } from './rig.mjs';
import { modulesOf, parts } from './gguf.mjs';

const prompt = 'hello', N = 60;

const devices = (rig, ...args) => rig.quiet('devices', ...args, '--state', rig.state('head'));

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
    const check = async all => {
        for (const d of all.devices.filter(d => !d.head)) {
            const held = modulesOf(parts(model), d.modules).filter(m => secret.includes(m));
            assert.deepEqual(held, [], `${d.name} holds what is private`);
        }
        assert.deepEqual(await rig.tokens(prompt, N), story);
    };
    await rig.serve({ model, args: ['--private', '--use', 'one'] });
    await rig.join('one');
    await check(await rig.ready(['one']));
    const two = await rig.join('two');
    await two.says(/linked to head/);
    await sleep(2000); // it may be of use or not, as fast as the others are
    await check(await until(async () => {
        const now = await rig.devices();
        return now.state === 'running' && now.devices.every(d => /ready|idle/.test(d.state)) && now;
    }, 'all are settled'));
    // Nor did their bytes ever travel there.
    for (const name of ['one', 'two'].filter(n => cacheModels(rig, n).length)) {
        const { received } = cacheOf(rig, name);
        all.forEach((p, i) => assert.ok(received[i] === 0 ||
            !/^(token_embd|output|blk\.[05]\.)/.test(p.name), `${name} has ${p.name}`));
    }
}));

test('private modules that do not fit on the head wait for a device that is mine',
    withRig(async rig => {
        const model = endlessModel(), all = parts(model);
        const story = await rig.tokens(prompt, N, model);
        await rig.serve({ model, args: ['--private', '--memory', '48M', '--slots', '1'] });
        await rig.join('lent');
        const why = await until(async () => /private modules.*/.exec((await rig.devices())
            .waiting_for)?.[0], 'the head says that they do not fit');
        assert.match(why, /lingua devices mine NAME/);
        const own = await rig.join('own');
        await own.says(/linked to head/);
        assert.equal((await devices(rig, 'mine', 'own')).code, 0);
        const now = await until(async () => {
            const all = await rig.devices();
            return all.state === 'running' && all;
        }, 'an answer is possible');
        const secret = ['embed', 'attn.0', 'ffn.0', 'attn.5', 'ffn.5', 'output'];
        const lent = now.devices.find(d => d.name === 'lent').modules;
        assert.ok(!modulesOf(all, lent).some(m => secret.includes(m)), lent);
        assert.deepEqual(await rig.tokens(prompt, N), story);
    }));
