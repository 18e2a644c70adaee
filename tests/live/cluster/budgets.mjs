// Memory: what does not fit is refused before anything travels, with figures that are true.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, until, cacheModels } from './rig.mjs';

const prompt = 'hello', N = 40;

const join = (rig, name, mib) => rig.join(name, { args: ['--memory', `${mib}M`] });
const serve = (rig, model, mib, ...args) =>
    rig.serve({ model, args: ['--memory', `${mib}M`, '--slots', '1', ...args] });

const tooSmall = /budgets are too small by (\d+) MiB.* more on (\w+) it would fit/;

// limit: MiB, of each device; aContext: whether a smaller context would fit.
for (const [limit, aContext] of [[40, false], [60, true]])
    test(`twice ${limit} MiB are refused with true figures, and nothing is shipped`,
        withRig(rig => refused(rig, limit, aContext)));

async function refused(rig, limit, aContext) {
    const model = endlessModel();
    const alone = await rig.tokens(prompt, N, model);
    await serve(rig, model, limit, '--ctx', '4096');
    // The head says so of itself alone, and then again of both.
    const refusals = n => until(() => rig.head.count(/\[cluster\] .*too small/) === n, 'a refusal');
    await refusals(1);
    const one = await join(rig, 'one', limit);
    await refusals(2);
    const refusal = (await rig.devices()).waiting_for;
    const [, missing, where] = tooSmall.exec(refusal);
    const largest = /largest context is (\d+)/.exec(refusal)?.[1];
    assert.ok(Number(missing) > 0);
    // Whoever asks is told at once, and waits in case that somebody joins.
    const answer = rig.ask(prompt, N);
    await answer.says(tooSmall, 5000);
    await answer.kill('SIGINT');
    assert.equal(answer.out, '');
    assert.deepEqual(cacheModels(rig, 'one'), [], 'something was shipped');
    assert.equal((await rig.device('one')).received_bytes, 0);

    // That much more, where it says, and it fits.
    await one.kill('SIGTERM');
    await rig.head.kill('SIGTERM');
    const more = name => limit + (where === name ? Number(missing) : 0);
    await serve(rig, model, more('head'), '--ctx', '4096');
    const two = await join(rig, 'one', more('one'));
    await rig.ready(['one']);
    assert.deepEqual(await rig.tokens(prompt, N), alone);
    assert.equal(Boolean(largest), aContext, refusal);
    if (!aContext)
        return;
    // Or the context it names.
    await two.kill('SIGTERM');
    await rig.head.kill('SIGTERM');
    await serve(rig, model, limit, '--ctx', largest);
    await join(rig, 'one', limit);
    await rig.ready(['one']);
    assert.deepEqual(await rig.tokens(prompt, N), alone);
}

test('a device too small for anything is left out, and says so to nobody\'s harm',
    withRig(async rig => {
        const model = endlessModel();
        const alone = await rig.tokens(prompt, N, model);
        await rig.serve({ model, plan: true, args: ['--use', 'one'] });
        await rig.ready([]);
        await join(rig, 'dwarf', 8);
        await rig.join('one');
        await rig.ready(['one']);
        assert.equal((await rig.device('dwarf')).modules, '');
        assert.deepEqual(cacheModels(rig, 'dwarf'), []);
        assert.deepEqual(await rig.tokens(prompt, N), alone);
    }));
