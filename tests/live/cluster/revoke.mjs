// A device that is thrown out: at once, for good, and whatever it has kept.
import test from 'node:test';
import assert from 'node:assert/strict';
import { cpSync, existsSync, rmSync } from 'node:fs';
import { withRig, endlessModel, until } from './rig.mjs';
import { knock, greet, REFUSE, WELCOME, BULK, MEMBER, STAGES } from './wire.mjs';

const AT_ONCE_MS = 3000; // a second, on a machine with nothing else to do
const prompt = 'hello', N = 60;

const revoke = (rig, name) => rig.quiet('devices', 'revoke', name, '--state', rig.state('head'));
const removed = /was removed from head's cluster; join again with a new token/;

async function threeDevices(rig) {
    rig.model = endlessModel();
    rig.story = await rig.tokens(prompt, N, rig.model);
    await rig.serve({ model: rig.model });
    rig.one = await rig.join('one');
    rig.two = await rig.join('two');
    await rig.ready(['one', 'two']);
}

test('its links are cut at once, in mid-answer, and it forgets the cluster', withRig(async rig => {
    await threeDevices(rig);
    const answer = rig.ask(prompt, 3500);
    await until(() => answer.out.length > 200, 'the beginning of an answer');
    const at = Date.now();
    assert.equal((await revoke(rig, 'two')).code, 0);
    assert.equal(await rig.two.end(), 1);
    assert.ok(rig.two.ended - at < AT_ONCE_MS, `its links stood for ${rig.two.ended - at} ms`);
    console.log(`its links stood for ${rig.two.ended - at} ms`);
    assert.match(rig.two.err, removed);
    assert.equal(rig.two.count(/^lingua: this device was removed/), 1);
    assert.ok(!existsSync(`${rig.state('two')}/cluster`), 'it remembers the cluster');
    await answer.end(60000);
    assert.ok(answer.code === 0 || /\btwo\b/.test(answer.err), answer.err);
    assert.ok(rig.one.running && rig.head.running);
    // Nobody waits for it to come back.
    await rig.ready(['one'], 6000);
    assert.deepEqual(await rig.tokens(prompt, N), rig.story);
    assert.equal(await rig.device('two'), undefined);

    // Without a token it has no way in; with one it is new.
    const again = rig.start('again', ['join', rig.address, '--state', rig.state('two')]);
    assert.equal(await again.end(), 1);
    assert.match(again.err, /token/);
    await rig.join('two');
    await rig.ready(['one', 'two']);
    assert.deepEqual(await rig.tokens(prompt, N), rig.story);
}));

test('a link that is open to it is cut; no session outlives it', withRig(async rig => {
    await threeDevices(rig);
    const guest = await rig.join('guest');
    await guest.says(/linked to head/);
    await guest.kill('SIGTERM');
    const key = rig.state('guest');
    const open = [];
    for (const address of [rig.address, rig.one.listens]) {
        const got = await knock(address, { key, hold: true, send: [greet(BULK, 'guest')] });
        assert.equal(got.frame?.type, WELCOME, address);
        const sessions = [];
        got.socket.on('session', s => sessions.push(s));
        open.push({ address, sessions, session: got.socket.getSession(),
            closed: new Promise(resolve => got.socket.on('close', () => resolve(Date.now()))) });
    }
    const at = Date.now();
    await revoke(rig, 'guest');
    for (const { address, closed, sessions, session } of open) {
        const took = await closed - at;
        assert.ok(took < AT_ONCE_MS, `${address}: its link stood for ${took} ms`);
        assert.deepEqual(sessions, [], 'a ticket was given out');
        for (const purpose of [BULK, STAGES, MEMBER]) {
            const got = await knock(address, { key, send: [greet(purpose, 'guest')],
                tlsOptions: { session } });
            assert.equal(got.frame?.type, REFUSE, `${address}, purpose ${purpose}`);
        }
    }
}));

test('what it has kept is of no use, nor is an old roster', withRig(async rig => {
    await threeDevices(rig);
    const kept = rig.state('kept'), roster = rig.state('roster');
    cpSync(rig.state('two'), kept, { recursive: true });
    assert.equal(await rig.one.kill('SIGTERM'), 0);
    cpSync(`${rig.state('one')}/joined/roster`, roster);
    await rig.join('one').then(p => { rig.one = p; });
    await rig.ready(['one', 'two']);
    await revoke(rig, 'two');
    await rig.two.end();
    await rig.ready(['one']);

    const comeBack = async what => {
        rmSync(rig.state('two'), { recursive: true });
        cpSync(kept, rig.state('two'), { recursive: true });
        const p = rig.start(what, ['join', rig.address, '--state', rig.state('two'), '--listen',
            '127.0.0.1:0']);
        assert.equal(await p.end(), 1, what);
        assert.match(p.err, removed, what);
        assert.ok(!existsSync(`${rig.state('two')}/cluster`), what);
    };
    await comeBack('with its old folder');

    // The roster of before, in a device that was not there when it changed.
    assert.equal(await rig.one.kill('SIGTERM'), 0);
    cpSync(roster, `${rig.state('one')}/joined/roster`);
    assert.equal(await rig.head.kill('SIGTERM'), 0);
    rig.one = await rig.join('one', { address: null });
    await rig.one.says(/looks for the head/);
    const stolen = { key: kept, send: [greet(BULK, 'two')] };
    const nobody = await knock(rig.one.listens, stolen);
    assert.equal(nobody.frame?.type, REFUSE, 'without its head it believes the old roster');
    assert.match(nobody.frame.text, /not linked with its head/);
    await rig.serve({ model: rig.model, listen: rig.address });
    await rig.one.says(/linked to head/);
    await until(async () => (await knock(rig.one.listens, stolen)).frame?.text !==
        nobody.frame.text, 'it is linked with its head');
    const then = await knock(rig.one.listens, stolen);
    assert.equal(then.frame?.type, REFUSE);
    assert.match(then.frame.text, /not one of the cluster's devices/);
    await comeBack('after a restart of the head');
    await rig.ready(['one']);
    assert.deepEqual(await rig.tokens(prompt, N), rig.story);
}));
