// What the head tells of itself; and metrics that move with the work.
import test from 'node:test';
import assert from 'node:assert/strict';
import * as shapes from './shapes.mjs';
import { chatModel, clusters, withApi } from './rig.mjs';

async function pages(api, t, devices) {
    await t.test('health', async () => {
        for (const where of ['/health', '/v1/health'])
            assert.deepEqual(await api.get(where), { status: 'ok' });
        const head = await api.ask('/health', undefined, { method: 'HEAD' });
        assert.deepEqual([head.status, head.text], [200, '']);
    });
    await t.test('models', async () => {
        const list = shapes.fits(shapes.models, await api.get('/v1/models'));
        assert.deepEqual(await api.get('/models'), list);
        const [{ id, meta }] = list.data;
        assert.deepEqual(await api.get(`/v1/models/${encodeURIComponent(id)}`), list.data[0]);
        assert.equal((await api.client.models.retrieve(id)).id, id);
        assert.ok(meta.n_vocab === 320 && meta.n_ctx > 0 && meta.n_embd === 512);
    });
    await t.test('props and slots', async () => {
        const props = shapes.fits(shapes.props, await api.get('/props'));
        const slots = shapes.fits(shapes.slots, await api.get('/slots'));
        assert.equal(slots.length, props.total_slots);
        assert.ok(slots.every(s => s.n_ctx === props.n_ctx && !s.is_processing));
        assert.deepEqual(slots.map(s => s.id), slots.map((_, i) => i));
        assert.match(props.chat_template, /tool_call/);
        assert.equal(props.chat_template_caps.tools ?? props.chat_template_caps.supports_tools, true);
    });
    await t.test('metrics', async () => {
        const r = await api.ask('/metrics');
        assert.match(r.headers.get('content-type'), /^text\/plain; version=0\.0\.4/);
        for (const line of r.text.trimEnd().split('\n'))
            assert.match(line, /^(# (HELP|TYPE) \S+ .+|[a-zA-Z_:][\w:]*(\{[^}]*\})? (-?[\d.]+(e[-+]?\d+)?|[+-]Inf|NaN))$/);
        const before = await api.metrics();
        await api.get('/v1/completions', { prompt: 'one two three', max_tokens: 9 });
        await api.get('/v1/completions', { prompt: 'one two three', max_tokens: -5 })
            .catch(() => {});
        const after = await api.metrics(), moved = name => after[name] - (before[name] ?? 0);
        const n = (await api.tokenize('one two three', { add_special: true })).length;
        assert.equal(moved('lingua_generated_tokens_total'), 9);
        assert.equal(moved('llamacpp:tokens_predicted_total'), 9);
        assert.equal(moved('lingua_prompt_tokens_total'), n);
        assert.equal(moved('lingua_generations_total'), 1);
        assert.equal(moved('lingua_requests_total{route="/v1/completions",status="200"}'), 1);
        assert.equal(moved('lingua_requests_total{route="/v1/completions",status="400"}'), 1);
        assert.equal(moved('lingua_time_to_first_token_seconds_count'), 1);
        assert.equal(moved('lingua_inter_token_seconds_count'), 8);
        assert.ok(moved('lingua_steps_total') >= 9);
        assert.ok(moved('lingua_rows_decoded_total') >= 8);
        assert.equal(after.lingua_slots_busy, 0);
        assert.equal(after.lingua_ready, 1);
        for (const name of ['head', ...devices])
            assert.equal(after[`lingua_device_up{device="${name}"}`], 1, name);
        assert.ok(after.process_resident_memory_bytes > 1e6);
    });
    await t.test('nothing tells what people wrote', async () => {
        await api.get('/v1/completions', { prompt: 'sesame', max_tokens: 2 });
        for (const where of ['/metrics', '/slots', '/props'])
            assert.doesNotMatch((await api.ask(where)).text, /sesame/);
        assert.doesNotMatch(api.rig.head.err, /sesame|one two three/);
    });
}

for (const [name, options] of clusters)
    test(name, withApi({ ...options, model: chatModel() }, (api, t) =>
        pages(api, t, options.devices ?? [])));

test('another name for the model', withApi({ model: chatModel(), args: ['--alias', 'my/model 1'] },
    async api => {
        assert.equal((await api.get('/v1/models')).data[0].id, 'my/model 1');
        assert.equal((await api.client.models.retrieve('my/model 1')).id, 'my/model 1');
        const a = await api.get('/v1/completions', { prompt: 'a', max_tokens: 1, model: 'x' });
        assert.equal(a.model, 'my/model 1');
    }));
