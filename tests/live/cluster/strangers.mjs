// Everybody who has no business here, at the head's door and at a device's, while an answer is
// being given: each is refused in one line, memory stays bounded, and the answer is not disturbed.
import test from 'node:test';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { cpSync } from 'node:fs';
import net from 'node:net';
import { withRig, endlessModel, until, sleep } from './rig.mjs';
import { knock, greet, frame, message, STEP, FETCH, GREET, REFUSE, WELCOME, MEMBER, STAGES,
    BULK } from './wire.mjs';

const prompt = 'hello', N = 250;
const MORE_KIB = 24 << 10; // of resident memory, at most, whatever strangers do
const HALF_OPEN = 1000;

// Answers one after the other until it is told to stop; each must be the story.
function keepAnswering(rig) {
    const self = { n: 0, stop: false };
    self.over = (async () => {
        while (!self.stop) {
            assert.deepEqual(await rig.tokens(prompt, N), rig.story, 'an answer was disturbed');
            self.n++;
        }
    })();
    self.over.catch(() => {}); // told by end()
    self.end = async () => {
        self.stop = true;
        await self.over;
        assert.ok(self.n > 0);
    };
    return self;
}

const refused = /\[link\] refused 127\.0\.0\.1:\d+/;

// One line more, and only one; it says why.
async function refusedOnce(program, what, why, act) {
    const before = program.count(refused);
    const got = await act();
    await until(() => program.count(refused) > before, `${program.name} refuses: ${what}`, 15000);
    await sleep(100);
    assert.equal(program.count(refused), before + 1, `${program.name}, lines for: ${what}`);
    const line = program.lines.filter(l => refused.test(l.line)).at(-1).line;
    assert.match(line, why, what);
    return got;
}

// [what, the reason in the log, what is done]. at: who is knocked at, outsider: a key nobody knows
function visitors({ outsider, revoked, purposes }) {
    const list = [
        ['HTTP', /plain HTTP/, a => knock(a, { plain: true, send: ['GET / HTTP/1.1\r\n\r\n'] })],
        ['a greeting without TLS', /not TLS/,
            a => knock(a, { plain: true, send: [greet(MEMBER, 'mallory')] })],
        ['random bytes', /not TLS|TLS/, a => knock(a, { plain: true,
            send: [Buffer.concat([Buffer.from([0xff]), randomBytes(4000)])] })],
        ['TLS 1.2', /does not speak TLS 1\.3/, a => knock(a, { key: outsider,
            tlsOptions: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } })],
        ['no certificate', /no certificate/, a => knock(a, { send: [greet(MEMBER, 'mallory')] })],
        ['a frame over its limit', /./, a => knock(a, { key: outsider,
            send: [frame(GREET, message({ 4: 'mallory' }), Buffer.alloc(0), 1 << 30)] })],
        ['a step before any greeting', /./, a => knock(a, { key: outsider,
            send: [frame(STEP, message({ 1: 1 }))] })],
    ];
    for (const [purpose, name] of purposes)
        for (const [who, key] of [['an outsider', outsider], ['a revoked device', revoked]])
            list.push([`${who}, ${name}`, /mallory.*key [0-9a-f:]{19}/,
                a => knock(a, { key, send: [greet(purpose, 'mallory')] }), true]);
    return list;
}

async function refuseAll(program, address, list) {
    for (const [what, why, act, answered] of list) {
        const got = await refusedOnce(program, what, why, () => act(address));
        assert.ok(got.closed || got.frame, `${what}: it was not hung up on`);
        if (answered)
            assert.equal(got.frame?.type, REFUSE, what);
        else
            assert.notEqual(got.frame?.type, WELCOME, what);
    }
}

async function threeDevices(rig) {
    const model = endlessModel();
    rig.story = await rig.tokens(prompt, N, model);
    await rig.serve({ model });
    rig.one = await rig.join('one');
    rig.two = await rig.join('two');
    return rig.ready(['one', 'two']);
}

test('strangers at the head and at a device', withRig(async rig => {
    const before = await threeDevices(rig);
    const outsider = await rig.stranger('outsider');
    // Paired once, then thrown out; what it knew is put back.
    const third = await rig.join('third');
    await third.says(/linked to head/);
    const revoked = rig.state('revoked');
    cpSync(rig.state('third'), revoked, { recursive: true });
    await rig.quiet('devices', 'revoke', 'third', '--state', rig.state('head'));
    await third.end();
    await rig.ready(['one', 'two']);
    const { epoch } = await rig.devices();

    const answering = keepAnswering(rig);
    await until(() => answering.n > 0, 'a first answer');
    const resident = [rig.head, rig.one].map(p => p.resident);
    await refuseAll(rig.head, rig.address, visitors({ outsider, revoked,
        purposes: [[MEMBER, 'as a member'], [BULK, 'for weights'], [STAGES, 'as a neighbour']] }));
    await refuseAll(rig.one, rig.one.listens, visitors({ outsider, revoked,
        purposes: [[BULK, 'for weights'], [STAGES, 'as a neighbour'], [MEMBER, 'as a member']] }));
    for (let i = 0; i < 100; i++)
        await knock(rig.address, { plain: true, send: [randomBytes(2000)], ms: 2000 });
    await answering.end();
    [rig.head, rig.one].forEach((p, i) => assert.ok(p.resident - resident[i] < MORE_KIB,
        `${p.name} grew from ${resident[i]} to ${p.resident} KiB`));
    const after = await rig.devices();
    assert.equal(after.epoch, epoch, 'the cluster was shaken');
    assert.equal(after.devices.length, before.devices.length);
}));

test('a device of the cluster that sends more than it may is cut off', withRig(async rig => {
    await threeDevices(rig);
    const guest = await rig.join('guest');
    await guest.says(/linked to head/);
    await guest.kill('SIGTERM');
    await rig.ready(['one', 'two']);
    const answering = keepAnswering(rig);
    await until(() => answering.n > 0, 'a first answer');
    const resident = rig.head.resident;
    for (const [purpose, type, about] of [
        [MEMBER, STEP, /\bguest\b.*2147483651 bytes, more than the/],
        [BULK, FETCH, /bulk link of 127\.0\.0\.1.*2147483651 bytes, more than the/]]) {
        const lines = rig.head.lines.length;
        const got = await knock(rig.address, { key: rig.state('guest'), hold: true,
            send: [greet(purpose, 'guest', { 7: 'none', 8: 'none', 9: 1, 13: 1 })] });
        assert.equal(got.frame?.type, WELCOME);
        const closed = new Promise(resolve => got.socket.on('close', resolve));
        got.socket.write(frame(type, message({ 1: 1 }), Buffer.alloc(64), 0x7fffffff));
        await Promise.race([closed, sleep(5000).then(() => assert.fail('it was not hung up on'))]);
        await until(() => rig.head.lines.slice(lines).some(l => about.test(l.line)),
            `a line about it: ${about}`, 5000);
    }
    await answering.end();
    assert.ok(rig.head.resident - resident < MORE_KIB);
    await rig.ready(['one', 'two']);
}));

// Some wait to be judged, the others are turned away at once; all in a line each.
async function besiege(program, address) {
    const resident = program.resident;
    const [host, port] = address.split(':');
    const sockets = [...Array(HALF_OPEN)].map(() => {
        const s = net.connect({ host, port: Number(port) });
        s.on('error', () => {});
        return s;
    });
    let most = 0;
    await until(() => {
        most = Math.max(most, program.resident);
        return program.count(/turned away 127\.0\.0\.1/) + program.count(
            /refused 127\.0\.0\.1:\d+: it did not say who it is/) >= HALF_OPEN;
    }, `${program.name} gets rid of them`, 40000);
    assert.equal(program.count(/turned away/) + program.count(refused), HALF_OPEN);
    assert.ok(most - resident < MORE_KIB, `${program.name}: from ${resident} to ${most} KiB`);
    sockets.forEach(s => s.destroy());
}

test('a thousand half-open connections', withRig(async rig => {
    await threeDevices(rig);
    const { epoch } = await rig.devices();
    const answering = keepAnswering(rig);
    await until(() => answering.n > 0, 'a first answer');
    await Promise.all([besiege(rig.head, rig.address), besiege(rig.one, rig.one.listens)]);
    await answering.end();
    assert.equal((await rig.devices()).epoch, epoch, 'the cluster was shaken');
    // The door is open again.
    const late = await rig.join('late');
    await late.says(/linked to head/, 20000);
}));
