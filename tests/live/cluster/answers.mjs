// The same words from one, two and three devices as from this program alone.
import test from 'node:test';
import assert from 'node:assert/strict';
import { withRig, defaultModel } from './rig.mjs';

const prompts = ['Once upon a time', 'There was a big tree', 'In the forest, a bear'];
const n = 100;

test('one, two and three devices tell the same stories as one program', withRig(async rig => {
    const model = defaultModel();
    const alone = [];
    for (const p of prompts)
        alone.push(await rig.tokens(p, n, model));
    for (const story of alone)
        assert.equal(story.length, n);
    const same = async names => {
        const all = await rig.ready(names);
        for (const [i, p] of prompts.entries())
            assert.deepEqual(await rig.tokens(p, n), alone[i], `${names.length + 1} devices: ${p}`);
        return all;
    };
    await rig.serve({ model });
    await same([]);
    await rig.join('one');
    await same(['one']);
    await rig.join('two');
    await same(['one', 'two']);
    // Each had a part in it, over TLS, and told the next one itself.
    const all = await rig.devices();
    for (const d of all.devices) {
        assert.ok(d.steps > 0, `${d.name} took no step`);
        assert.match(d.security, d.head ? /this program/ : /TLSv1\.3/);
        for (const hop of d.hops)
            assert.equal(hop.via, 'direct');
    }
    assert.ok(all.devices.some(d => d.hops.some(h => h.to !== 'head') && !d.head),
        'no device sends to its neighbour');
}));
