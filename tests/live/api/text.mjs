// Text that continues a prompt, by /v1/completions: on one device and on three, and the same there.
import test from 'node:test';
import assert from 'node:assert/strict';
import * as shapes from './shapes.mjs';
import { clusters, greedy, sameEverywhere, withApi } from './rig.mjs';

const prompt = 'Once upon a time', N = 40;
const prompts = [prompt, 'The little dog', 'Lily and Tom', 'One day, a bird', 'There was a big',
    'Mom said', 'In the garden', 'A red ball', 'The sun', 'Ben had a'];
const plain = { model: 'any', prompt, max_tokens: N, temperature: 0 };
const same = sameEverywhere();

async function complete(api, more = {}) {
    return shapes.fits(shapes.completion,
        await api.client.completions.create({ ...plain, ...more }));
}

// The same by a stream: one answer again, and the events it came in.
async function streamed(api, more = {}) {
    const events = await api.stream('/v1/completions', { ...plain, ...more,
        stream_options: { include_usage: true } });
    assert.equal(events.pop(), '[DONE]');
    events.forEach(e => shapes.fits(shapes.completionChunk, e, 'an event'));
    const last = events.at(-1), choices = [];
    assert.deepEqual(last.choices, []);
    for (const e of events.slice(0, -1)) {
        assert.equal(e.id, last.id);
        assert.equal(e.usage ?? null, null);
        for (const c of e.choices) {
            const to = choices[c.index] ??= { text: '', reason: null, probs: [] };
            assert.equal(to.reason, null, 'more comes after the end');
            to.text += c.text;
            to.reason = c.finish_reason;
            to.probs.push(...c.logprobs?.tokens ?? []);
        }
    }
    const { predicted_n: n, predicted_per_second: rate } = last.timings;
    assert.ok(n > 0);
    assert.equal(rate > 0, n > 1, `${rate}/s for ${n}`); // one token has no other to be timed by
    return { choices, usage: last.usage, events };
}

// Both ways, which have to agree.
async function both(api, more = {}) {
    const whole = await complete(api, more), parts = await streamed(api, more);
    assert.deepEqual(parts.choices.map(c => c.text), whole.choices.map(c => c.text));
    assert.deepEqual(parts.choices.map(c => c.reason), whole.choices.map(c => c.finish_reason));
    const counted = ({ prompt_tokens_details, ...rest }) => rest;
    assert.deepEqual(counted(parts.usage), counted(whole.usage));
    return { ...whole, text: whole.choices[0].text, reason: whole.choices[0].finish_reason };
}

async function exactness(api, t, rig) {
    const alone = {};
    for (const p of prompts)
        alone[p] = (await greedy(rig, p, N)).text;
    await t.test('greedy is what lingua run says', async () => {
        for (const p of prompts.slice(0, 3))
            assert.equal((await both(api, { prompt: p })).text, alone[p]);
    });
    await t.test('ten at once, on eight slots, are as alone', async () => {
        const answers = await Promise.all(prompts.map((p, i) =>
            (i % 2 ? streamed : complete)(api, { prompt: p })));
        answers.forEach((a, i) => assert.equal(a.choices[0].text, alone[prompts[i]], prompts[i]));
    });
    await t.test('prompts as tokens, and several', async () => {
        const lists = [];
        for (const p of prompts.slice(0, 3))
            lists.push(await api.tokenize(p, { add_special: true }));
        assert.equal((await complete(api, { prompt: lists[0] })).choices[0].text, alone[prompt]);
        for (const several of [prompts.slice(0, 3), lists]) {
            const a = await both(api, { prompt: several });
            assert.deepEqual(a.choices.map(c => c.index), [0, 1, 2]);
            assert.deepEqual(a.choices.map(c => c.text), prompts.slice(0, 3).map(p => alone[p]));
            assert.equal(a.usage.prompt_tokens, lists.flat().length);
            assert.equal(a.usage.completion_tokens, 3 * N);
        }
    });
    await t.test('echo', async () => {
        assert.equal((await both(api, { echo: true })).text, prompt + alone[prompt]);
        const a = await complete(api, { echo: true, logprobs: 2 }), p = a.choices[0].logprobs;
        const n = (await api.tokenize(prompt, { add_special: true })).length;
        assert.equal(p.tokens.length, n + N);
        assert.equal(p.token_logprobs[0], null, 'nothing stands before the first');
        assert.ok(p.token_logprobs.slice(1).every(l => l <= 1e-5));
        assert.equal(a.usage.prompt_tokens, n);
        same('likelihoods of a prompt', p.token_logprobs);
    });
}

async function ends(api, t, rig) {
    const { text } = await greedy(rig, prompt, N);
    const before = stop => text.slice(0, text.indexOf(stop));
    const space = text.indexOf(' ', 12);
    const stops = { 'one word': text.slice(space + 1, space + 4),
        'across tokens': text.slice(space - 2, space + 3), 'one letter': 'z' };
    for (const [name, stop] of Object.entries(stops))
        await t.test(`a stop word: ${name}`, async () => {
            const a = await both(api, { stop });
            assert.equal(a.text, text.includes(stop) ? before(stop) : text);
            assert.equal(a.reason, text.includes(stop) ? 'stop' : 'length');
        });
    await t.test('the first of several stop words', async () => {
        const late = text.slice(-6), a = await both(api, { stop: [late, 'Zebra', stops['one word']] });
        assert.equal(a.text, before(stops['one word']));
        assert.equal(a.reason, 'stop');
    });
    await t.test('a beginning of a stop word is text when it does not go on', async () => {
        const a = await both(api, { stop: [`${text.slice(space, space + 4)}#`, `${text.slice(-3)}#`] });
        assert.equal(a.text, text);
        assert.equal(a.reason, 'length');
    });
    await t.test('max_tokens', async () => {
        for (const n of [1, 7]) {
            const a = await both(api, { max_tokens: n });
            assert.equal(a.usage.completion_tokens, n);
            assert.equal(a.reason, 'length');
            assert.equal(a.text, (await greedy(rig, prompt, n)).text);
        }
    });
    await t.test('the context is full', async () => {
        const a = await both(api, { max_tokens: -1, ignore_eos: true });
        const { n_ctx } = await api.get('/props');
        assert.equal(a.reason, 'length');
        assert.ok(Math.abs(a.usage.total_tokens - n_ctx) <= 1, `${a.usage.total_tokens} of ${n_ctx}`);
    });
    await t.test('OpenAI\'s own limit when none is given', async () => {
        assert.equal((await both(api, { max_tokens: undefined })).usage.completion_tokens, 16);
    });
    await t.test('usage counts every token', async () => {
        const a = await both(api);
        assert.equal(a.usage.prompt_tokens,
            (await api.tokenize(prompt, { add_special: true })).length);
        assert.equal(a.usage.completion_tokens, N);
        assert.equal(a.usage.total_tokens, a.usage.prompt_tokens + N);
        assert.ok(a.usage.prompt_tokens_details.cached_tokens < a.usage.prompt_tokens);
        const fresh = await complete(api, { cache_prompt: false });
        assert.equal(fresh.usage.prompt_tokens_details.cached_tokens, 0);
        assert.equal(fresh.choices[0].text, a.text);
    });
}

async function chance(api, t) {
    await t.test('seeds', async () => {
        const ask = seed => both(api, { temperature: 1.2, seed }).then(a => a.text);
        const seven = await ask(7);
        assert.equal(await ask(7), seven);
        assert.notEqual(await ask(8), seven);
        same('seed 7', seven);
    });
    await t.test('three choices', async () => {
        const ask = () => both(api, { n: 3, temperature: 1.2, seed: 11 });
        const a = await ask();
        assert.deepEqual(a.choices.map(c => c.index), [0, 1, 2]);
        assert.ok(new Set(a.choices.map(c => c.text)).size > 1, 'all three are one');
        assert.equal(a.usage.prompt_tokens,
            (await api.tokenize(prompt, { add_special: true })).length, 'counted once');
        assert.ok(a.usage.completion_tokens <= 3 * N && a.usage.completion_tokens > N);
        assert.deepEqual((await ask()).choices.map(c => c.text), a.choices.map(c => c.text));
        same('three choices', a.choices.map(c => c.text));
    });
    await t.test('penalties change the text', async () => {
        const ask = more => complete(api, { max_tokens: 80, ...more }).then(a => a.choices[0].text);
        const none = await ask({});
        for (const more of [{ frequency_penalty: 2 }, { presence_penalty: 2 }, { repeat_penalty: 2 }]) {
            const text = await ask({ ...more, repeat_last_n: -1 });
            assert.notEqual(text, none, JSON.stringify(more));
            same(`penalty ${JSON.stringify(more)}`, text);
        }
        assert.equal(await ask({ frequency_penalty: 0, presence_penalty: 0, repeat_penalty: 1 }), none);
    });
    await t.test('logit_bias forbids and forces', async () => {
        const [first, other] = await api.tokenize(' dog', { with_pieces: true })
            .then(list => [list.at(-1).id, list.at(-1).piece]);
        const [usual] = (await complete(api, { max_tokens: 1, logprobs: 1 })).choices[0].logprobs.tokens;
        const [id] = (await api.get('/completion', { prompt, n_predict: 1, temperature: 0,
            return_tokens: true })).tokens;
        const forbidden = await complete(api, { max_tokens: 1, logprobs: 1, logit_bias: { [id]: -100 } });
        assert.notEqual(forbidden.choices[0].logprobs.tokens[0], usual);
        const forced = await both(api, { max_tokens: 5, logit_bias: { [first]: 100 } });
        assert.equal(forced.text.replaceAll(' ', ''), other.trim().repeat(5));
    });
}

async function probabilities(api, t) {
    await t.test('logprobs', async () => {
        const a = await complete(api, { logprobs: 5 }), p = a.choices[0].logprobs;
        assert.equal(p.tokens.length, N);
        assert.equal(p.token_logprobs.length, N);
        assert.equal(p.top_logprobs.length, N);
        assert.equal(p.tokens.join(''), a.choices[0].text);
        p.top_logprobs.forEach((map, i) => {
            const all = Object.values(map);
            assert.ok(all.reduce((sum, l) => sum + Math.exp(l), 0) <= 1 + 1e-4);
            assert.equal(Math.max(...all), p.token_logprobs[i], 'greedy takes the likeliest');
            assert.equal(map[p.tokens[i]], p.token_logprobs[i]);
            assert.ok(all.length <= 5 && all.length > 0);
            assert.ok(p.text_offset[i] >= (p.text_offset[i - 1] ?? 0));
        });
        assert.equal(p.text_offset.at(-1) - p.text_offset[0],
            a.choices[0].text.length - p.tokens.at(-1).length);
        same('logprobs', p.token_logprobs);
        const parts = await streamed(api, { logprobs: 5 });
        assert.deepEqual(parts.choices[0].probs, p.tokens);
    });
    await t.test('they are the model\'s own, whatever the settings', async () => {
        const ask = async more => (await complete(api, { logprobs: 3, max_tokens: 1, ...more }))
            .choices[0].logprobs.top_logprobs[0];
        assert.deepEqual(await ask({ temperature: 2, seed: 3, top_k: 1 }), await ask({}));
    });
}

// llama-server's own route.
async function native(api, t, rig) {
    const ask = { prompt, n_predict: N, temperature: 0 };
    const complete = async (more = {}) => shapes.fits(shapes.native,
        await api.get('/completion', { ...ask, ...more }));
    const { text, tokens } = await greedy(rig, prompt, N);
    await t.test('/completion', async () => {
        const a = await complete({ return_tokens: true });
        const n = (await api.tokenize(prompt, { add_special: true })).length;
        assert.equal(a.content, text);
        assert.deepEqual(a.tokens, tokens);
        assert.equal(a.stop_type, 'limit');
        assert.equal(a.tokens_predicted, N);
        assert.equal(a.tokens_evaluated, n);
        assert.equal(a.timings.predicted_n, N);
        assert.ok(a.timings.prompt_n <= n && a.timings.prompt_n > 0);
        assert.equal(a.generation_settings.temperature, 0);
        assert.equal(a.generation_settings.n_predict, N);
        const ids = await api.tokenize(prompt, { add_special: true });
        assert.equal((await complete({ prompt: ids })).content, text);
        assert.equal((await complete({ prompt: [...ids.slice(0, 2),
            await api.get('/detokenize', { tokens: ids.slice(2) }).then(d => d.content)] }))
            .tokens_predicted, N);
        const fresh = await complete({ cache_prompt: false });
        assert.equal(fresh.timings.prompt_n, n);
        assert.equal(fresh.content, text);
        assert.equal((await api.get('/completions', ask)).content, text);
    });
    await t.test('/completion: its ends', async () => {
        const word = text.slice(20, 25);
        const a = await complete({ stop: [word] });
        assert.equal(a.stop_type, 'word');
        assert.equal(a.stopping_word, word);
        assert.equal(a.content, text.slice(0, text.indexOf(word)));
        const choice = await complete({ grammar: 'root ::= "yes" | "no, never"' });
        assert.equal(choice.stop_type, 'eos');
        assert.match(choice.content, /^(yes|no, never)$/);
        const timed = await complete({ n_predict: -1, ignore_eos: true, t_max_predict_ms: 1 });
        assert.equal(timed.stop_type, 'limit');
        assert.ok(timed.tokens_predicted < 100);
        assert.equal((await complete({ id_slot: 2 })).id_slot, 2);
    });
    await t.test('/completion: n_probs', async () => {
        const a = await complete({ n_probs: 3 });
        shapes.fits(shapes.nativeProbs, a.completion_probabilities);
        assert.equal(a.completion_probabilities.length, N);
        assert.equal(a.completion_probabilities.map(p => p.token).join(''), text);
        for (const p of a.completion_probabilities) {
            assert.equal(p.top_logprobs.length, 3);
            assert.equal(p.top_logprobs[0].id, p.id);
        }
    });
    await t.test('/completion: a stream', async () => {
        const events = await api.stream('/completion', { ...ask, return_tokens: true });
        if (events.at(-1) === '[DONE]')
            events.pop();
        const last = shapes.fits(shapes.native, events.pop());
        events.forEach(e => shapes.fits(shapes.nativeChunk, e));
        assert.equal(events.map(e => e.content).join('') + last.content, text);
        assert.equal(last.tokens_predicted, N);
        assert.deepEqual(events.flatMap(e => e.tokens ?? []).concat(last.tokens ?? []), tokens);
    });
}

for (const [name, options] of clusters)
    test(name, withApi({ ...options, args: ['--slots', '8'] }, async (api, t, rig) => {
        await exactness(api, t, rig);
        await ends(api, t, rig);
        await chance(api, t);
        await probabilities(api, t);
        await native(api, t, rig);
        await t.test('any name of a model will do, and the real one is told', async () => {
            const { data: [{ id }] } = await api.client.models.list();
            assert.equal((await complete(api, { model: 'gpt-4o' })).model, id);
            assert.equal((await complete(api, { model: 'x/y z' })).model, id);
        });
    }));
