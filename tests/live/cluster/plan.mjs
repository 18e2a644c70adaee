// The plan of a running cluster: a device that would slow it is left out, with a reason; what the
// plan costs is predicted, then measured; devices that come and go are planned for while answers
// are being given.
import test from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync, mkdirSync } from 'node:fs';
import { withRig, endlessModel, until } from './rig.mjs';

const prompt = 'hello', LONG = 300;

// What is remembered of the head, with every cost times `factor`: a device that is so much slower,
// or says so.
function slower(rig, name, factor) {
    const text = readFileSync(`${rig.state('head')}/profile`, 'utf8');
    const times = line => /^\d+( \d+){6}$/.test(line)
        ? line.replace(/\d+/g, n => String(Math.round(Number(n) * factor))) : line;
    mkdirSync(rig.state(name), { recursive: true, mode: 0o700 });
    writeFileSync(`${rig.state(name)}/profile`, text.split('\n').map(times).join('\n'),
        { mode: 0o600 });
}

async function planOf(rig, ...args) {
    const p = await rig.quiet('plan', '--json', '--state', rig.state('head'), ...args);
    assert.equal(p.code, 0, p.err);
    return JSON.parse(p.out);
}

const deviceOf = (plan, name) => plan.devices.find(d => d.name === name);

test('a slow device is left out, and by force it does what was said', withRig(async rig => {
    const model = endlessModel(24);
    await rig.serve({ model, plan: true });
    slower(rig, 'slug', 50);
    await rig.join('slug');
    await until(async () => (await rig.device('slug'))?.state === 'idle', 'slug is left out');
    await rig.head.says(/slug is left out: .*[\d.]+ instead of [\d.]+ tokens\/s/);

    const plan = await planOf(rig);
    const slug = deviceOf(plan, 'slug');
    assert.equal(slug.modules, '');
    assert.ok(slug.other_tokens_per_s < plan.prediction.tokens_per_s, JSON.stringify(slug));

    const forced = await planOf(rig, '--use', 'slug');
    assert.notEqual(deviceOf(forced, 'slug').modules, '');
    const near = forced.prediction.tokens_per_s / slug.other_tokens_per_s;
    assert.ok(near > 0.9 && near < 1.1, `forced ${near} of what was said`);

    const p = await rig.quiet('plan', '--use', 'nobody', '--state', rig.state('head'));
    assert.equal(p.code, 1);
    assert.match(p.err, /nobody/);
}));

test('what was predicted is measured, part by part', withRig(async rig => {
    await rig.serve({ model: endlessModel() });
    await rig.join('one');
    await rig.ready(['one']);
    assert.equal((await rig.devices()).measured, null);
    await rig.tokens(prompt, LONG);
    const { measured } = await until(async () => {
        const all = await rig.devices();
        return all.measured && all;
    }, 'the generation is measured');
    assert.ok(measured.tokens >= LONG / 2);
    assert.equal(measured.streams, 1);
    const parts = [...measured.compute_ms, ...measured.hop_ms, measured.head_ms];
    const sum = parts.reduce((a, b) => a + b, 0);
    // What is left is the head's own event loop between two steps.
    assert.ok(Math.abs(sum - measured.ms_per_token) < 0.25 * measured.ms_per_token + 0.2,
        `parts make ${sum} of ${measured.ms_per_token} ms`);
    assert.ok(measured.predicted.ms_per_token > 0);
    const shown = await rig.quiet('plan', '--measured', '--state', rig.state('head'));
    assert.equal(shown.code, 0, shown.err);
    assert.match(shown.out, /measured/);
}));

test('under steady load devices join and leave for good', withRig(async rig => {
    const model = endlessModel();
    const story = await rig.tokens(prompt, LONG, model);
    await rig.serve({ model });
    await rig.ready([]);
    let going = true, answers = 0;
    const stream = async () => {
        while (going) {
            assert.deepEqual(await rig.tokens(prompt, LONG), story);
            answers++;
        }
    };
    const streams = [stream(), stream(), stream()];
    const one = await rig.join('one');
    await rig.ready(['one']);
    await rig.join('two');
    await rig.ready(['one', 'two']);
    assert.equal((await rig.quiet('devices', 'drain', 'one', '--state', rig.state('head'))).code, 0);
    await until(async () => (await rig.device('one')).modules === '', 'it is let go');
    await rig.ready(['two']);
    await one.kill('SIGTERM');
    const seen = answers;
    await until(() => answers > seen + 2, 'answers after the last change');
    going = false;
    await Promise.all(streams);
}));
