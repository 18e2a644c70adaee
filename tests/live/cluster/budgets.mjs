// Memory: what does not fit is refused before anything travels, with figures that are true.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, endlessModel, until, cacheModels } from './rig.mjs';

const prompt = 'hello', N = 40;
const LIMIT = 40; // MiB, of each

const join = (rig, name, mib) => rig.join(name, { args: ['--memory', `${mib}M`] });
const serve = (rig, model, mib, ...args) =>
    rig.serve({ model, args: ['--memory', `${mib}M`, '--slots', '1', ...args] });

const tooSmall = /budgets are too small by (\d+) MiB.* more on (\w+) it would fit/;

test('too little memory in all is refused with true figures, and nothing is shipped',
    withRig(async rig => {
        const model = endlessModel();
        const alone = await rig.tokens(prompt, N, model);
        await serve(rig, model, LIMIT, '--ctx', '4096');
        const one = await join(rig, 'one', LIMIT);
        await one.says(/linked to head/);
        await until(async () => (await rig.devices()).devices.length === 2, 'one is known');
        // How much is missing with one device, and on which.
        const [, missing, where] = await until(async () => {
            const all = await rig.devices();
            return all.devices.every(d => d.state === 'idle') && tooSmall.exec(all.waiting_for);
        }, 'a refusal');
        const largest = /largest context is (\d+)/.exec((await rig.devices()).waiting_for)?.[1];
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
        const more = name => LIMIT + (where === name ? Number(missing) : 0);
        await serve(rig, model, more('head'), '--ctx', '4096');
        const two = await join(rig, 'one', more('one'));
        await rig.ready(['one']);
        assert.deepEqual(await rig.tokens(prompt, N), alone);
        if (!largest)
            return;
        // Or the context it names.
        await two.kill('SIGTERM');
        await rig.head.kill('SIGTERM');
        await serve(rig, model, LIMIT, '--ctx', largest);
        await join(rig, 'one', LIMIT);
        await rig.ready(['one']);
        assert.deepEqual(await rig.tokens(prompt, N), alone);
    }));

test('a device too small for anything is left out, and says so to nobody\'s harm',
    withRig(async rig => {
        const model = endlessModel();
        const alone = await rig.tokens(prompt, N, model);
        await rig.serve({ model });
        await rig.ready([]);
        await join(rig, 'dwarf', 8);
        await rig.join('one');
        await rig.ready(['one']);
        assert.equal((await rig.device('dwarf')).modules, '');
        assert.deepEqual(cacheModels(rig, 'dwarf'), []);
        assert.deepEqual(await rig.tokens(prompt, N), alone);
    }));
