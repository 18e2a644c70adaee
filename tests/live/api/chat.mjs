// Conversations, tool calls and answers of a JSON schema, by /v1/chat/completions. The weights are
// random, so what is right comes from the grammar and not from the model.
import test from 'node:test';
import assert from 'node:assert/strict';
import * as shapes from './shapes.mjs';
import { wrong } from './schema.mjs';
import { chatModel, clusters, sameEverywhere, storyChatModel, withApi } from './rig.mjs';

const messages = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Hello there' }];
const person = { type: 'object', additionalProperties: false, required: ['name', 'age', 'tags', 'kind'],
    properties: { name: { type: 'string', minLength: 1, maxLength: 8 },
        age: { type: 'integer', minimum: 0, maximum: 120 }, kind: { enum: ['cat', 'dog', 'bird'] },
        tags: { type: 'array', minItems: 1, maxItems: 3, items: { type: 'string', maxLength: 4 } },
        inner: { type: 'object', additionalProperties: false, required: ['ok'],
            properties: { ok: { type: 'boolean' } } } } };
const weather = { type: 'object', additionalProperties: false, required: ['city', 'unit'],
    properties: { city: { type: 'string', maxLength: 12 }, unit: { enum: ['C', 'F'] } } };
const addition = { type: 'object', additionalProperties: false, required: ['a', 'b'],
    properties: { a: { type: 'integer', minimum: 0, maximum: 99 }, b: { type: 'boolean' } } };
const tool = (name, parameters) =>
    ({ type: 'function', function: { name, description: `${name} it`, parameters } });
const tools = [tool('get_weather', weather), tool('add', addition)];
const schemas = { get_weather: weather, add: addition };

const same = sameEverywhere();
const usual = { model: 'any', messages, max_tokens: 24, temperature: 0 };

async function chat(api, more = {}) {
    return shapes.fits(shapes.chat,
        await api.client.chat.completions.create({ ...usual, ...more }));
}

// What the deltas of a stream add up to: the choices of a whole answer.
async function streamed(api, more = {}) {
    const events = await api.stream('/v1/chat/completions', { ...usual, ...more,
        stream_options: { include_usage: true } });
    assert.equal(events.pop(), '[DONE]');
    events.forEach(e => shapes.fits(shapes.chunk, e, 'an event'));
    const last = events.at(-1), choices = [];
    assert.deepEqual(last.choices, []);
    for (const e of events) {
        assert.equal(e.id, last.id);
        for (const c of e.choices)
            add(choices[c.index] ??= { role: '', content: '', calls: [], probs: [], reason: null }, c);
    }
    choices.forEach(c => assert.equal(c.role, 'assistant'));
    return { choices, usage: last.usage, n: events.length };
}

function add(to, c) {
    assert.equal(to.reason, null, 'more comes after the end');
    to.role += c.delta.role ?? '';
    to.content += c.delta.content ?? '';
    to.probs.push(...c.logprobs?.content ?? []);
    to.reason = c.finish_reason;
    for (const part of c.delta.tool_calls ?? []) {
        const call = to.calls[part.index] ??= { id: '', name: '', arguments: '' };
        call.id += part.id ?? '';
        call.name += part.function?.name ?? '';
        call.arguments += part.function?.arguments ?? '';
    }
}

// Both ways, which have to agree; ids of calls are random.
async function both(api, more = {}) {
    const whole = await chat(api, more), parts = await streamed(api, more);
    const calls = c => (c.message.tool_calls ?? []).map(({ function: f }) =>
        ({ name: f.name, arguments: f.arguments }));
    whole.choices.forEach((c, i) => {
        assert.equal(parts.choices[i].content, c.message.content ?? '');
        assert.equal(parts.choices[i].reason, c.finish_reason);
        assert.deepEqual(parts.choices[i].calls.map(({ id, ...call }) => call), calls(c));
        assert.ok(parts.choices[i].calls.every(call => call.id));
    });
    assert.equal(parts.usage.total_tokens, whole.usage.total_tokens);
    return { ...whole, ...whole.choices[0], message: whole.choices[0].message };
}

function callsFit(a, names) {
    assert.equal(a.finish_reason, 'tool_calls');
    assert.ok(a.message.tool_calls.length >= 1);
    assert.equal(new Set(a.message.tool_calls.map(c => c.id)).size, a.message.tool_calls.length);
    for (const { function: f } of a.message.tool_calls) {
        assert.ok(names.includes(f.name), f.name);
        assert.equal(wrong(schemas[f.name], JSON.parse(f.arguments)), '', f.arguments);
    }
}

async function talks(api, t) {
    await t.test('an answer, and its usage', async () => {
        const a = await both(api);
        const { prompt } = await api.get('/apply-template', { messages });
        assert.match(prompt, /Be brief\.[^]*Hello there[^]*assistant\n$/);
        const n = (await api.tokenize(prompt, { add_special: true })).length;
        assert.equal(a.usage.prompt_tokens, n);
        assert.equal(a.usage.completion_tokens, 24);
        assert.equal(a.usage.total_tokens, n + 24);
        assert.equal(a.finish_reason, 'length');
        const text = await api.get('/completion', { prompt, n_predict: 24, temperature: 0 });
        assert.equal(a.message.content, text.content, 'a chat is its prompt continued');
        same('a chat', a.message.content);
    });
    await t.test('developer is system; parts are text; turns and tool results', async () => {
        const render = more => api.get('/apply-template', { messages: more }).then(a => a.prompt);
        const usualPrompt = await render(messages);
        assert.equal(await render([{ ...messages[0], role: 'developer' }, messages[1]]), usualPrompt);
        const parts = { role: 'user', content: [{ type: 'text', text: 'Hello there' }] };
        assert.equal(await render([messages[0], parts]), usualPrompt);
        const long = [messages[1], { role: 'assistant', content: null, tool_calls: [{ id: 'call1',
            type: 'function', function: { name: 'add', arguments: '{"a": 1, "b": true}' } }] },
        { role: 'tool', tool_call_id: 'call1', content: 'two' }, { role: 'user', content: 'Thanks' }];
        const prompt = await render(long);
        assert.match(prompt, /Hello there[^]*add[^]*"a"[^]*two[^]*Thanks/);
        await chat(api, { messages: long });
    });
    await t.test('seeds, choices, stop words, names', async () => {
        const ask = more => both(api, { temperature: 1, seed: 5, ...more });
        const a = await ask({ n: 3 });
        assert.deepEqual(a.choices.map(c => c.index), [0, 1, 2]);
        assert.ok(new Set(a.choices.map(c => c.message.content)).size > 1);
        same('three choices', a.choices.map(c => c.message.content));
        const text = (await ask({})).message.content, stop = text.slice(9, 12);
        const short = await ask({ stop });
        assert.equal(short.message.content ?? '', text.slice(0, text.indexOf(stop)));
        assert.equal(short.finish_reason, 'stop');
        const limited = await ask({ max_tokens: undefined, max_completion_tokens: 3 });
        assert.equal(limited.usage.completion_tokens, 3);
        assert.equal(a.model, (await api.client.models.list()).data[0].id);
    });
    await t.test('logprobs', async () => {
        const a = await chat(api, { logprobs: true, top_logprobs: 4 });
        const list = a.choices[0].logprobs.content;
        assert.equal(list.length, 24);
        const bytes = Buffer.from(list.flatMap(p => p.bytes));
        assert.equal(bytes.toString(), a.choices[0].message.content);
        for (const p of list) {
            assert.equal(p.top_logprobs.length, 4);
            assert.ok(p.top_logprobs.reduce((sum, o) => sum + Math.exp(o.logprob), 0) <= 1 + 1e-4);
            assert.ok(p.top_logprobs.some(o => o.token === p.token && o.logprob === p.logprob));
            assert.equal(p.top_logprobs[0].logprob, p.logprob, 'greedy takes the likeliest');
        }
        const parts = await streamed(api, { logprobs: true, top_logprobs: 4 });
        assert.deepEqual(parts.choices[0].probs, list);
        const own = await chat(api, { logprobs: true });
        assert.deepEqual(own.choices[0].logprobs.content.map(p => p.top_logprobs), list.map(() => []));
        assert.equal((await chat(api)).choices[0].logprobs, null);
    });
}

async function schemasHold(api, t) {
    await t.test('json_schema', async () => {
        for (const seed of [1, 2]) {
            const a = await both(api, { temperature: 1, seed, max_tokens: 800,
                response_format: { type: 'json_schema',
                    json_schema: { name: 'person', strict: true, schema: person } } });
            assert.equal(a.finish_reason, 'stop', a.message.content);
            assert.equal(wrong(person, JSON.parse(a.message.content)), '', a.message.content);
            same(`json_schema ${seed}`, a.message.content);
        }
    });
    await t.test('json_object', async () => {
        // Noise seldom ends a string or an object by itself.
        const close = [['"', 6], ['}', 6], ['t', -100]];
        for (const seed of [1, 2, 3]) {
            const a = await both(api, { temperature: 1, seed, max_tokens: 1500, logit_bias: close,
                response_format: { type: 'json_object' } });
            const text = a.message.content;
            if (a.finish_reason === 'stop')
                assert.equal(wrong({ type: 'object' }, JSON.parse(text)), '', text);
            else
                assert.match(text, /^\s*\{/);
            same(`json_object ${seed}`, text);
        }
    });
    await t.test('llama-server\'s json_schema, and a grammar', async () => {
        const a = await both(api, { temperature: 1, seed: 4, max_tokens: 200, json_schema: addition });
        assert.equal(wrong(addition, JSON.parse(a.message.content)), '', a.message.content);
        const b = await both(api, { grammar: 'root ::= ("red" | "blue") " " [0-9]{3}' });
        assert.match(b.message.content, /^(red|blue) \d{3}$/);
        const c = await api.get('/completion', { prompt: 'x', n_predict: 200, seed: 4,
            json_schema: addition });
        assert.equal(wrong(addition, JSON.parse(c.content)), '', c.content);
    });
}

async function toolsHold(api, t) {
    // Noise likes blanks, which the grammar allows between all words of JSON.
    const logit_bias = [[' ', -100], ['\n', -100], ['\t', -100]];
    const ask = more => both(api, { temperature: 1, max_tokens: 900, tools, logit_bias, ...more });
    await t.test('tool_choice: required', async () => {
        for (const seed of [1, 2]) {
            const a = await ask({ seed, tool_choice: 'required' });
            callsFit(a, ['get_weather', 'add']);
            same(`required ${seed}`, a.message.tool_calls.map(c => c.function));
        }
    });
    await t.test('tool_choice: a function by name', async () => {
        for (const name of ['add'])
            callsFit(await ask({ seed: 9, tool_choice: { type: 'function', function: { name } } }),
                [name]);
    });
    await t.test('one call only', async () => {
        const a = await ask({ seed: 2, tool_choice: 'required', parallel_tool_calls: false });
        callsFit(a, ['get_weather', 'add']);
        assert.equal(a.message.tool_calls.length, 1, 'parallel_tool_calls is false');
    });
    await t.test('tool_choice: none and auto', async () => {
        for (const tool_choice of ['none', 'auto', undefined]) {
            const a = await both(api, { tools, tool_choice });
            assert.equal(a.finish_reason, 'length', 'noise calls no function');
            assert.equal(a.message.tool_calls, undefined);
        }
    });
    await t.test('a call cut off by max_tokens', async () => {
        const a = await chat(api, { tools, tool_choice: 'required', max_tokens: 6 });
        assert.equal(a.choices[0].finish_reason, 'length');
    });
    await t.test('the openai client runs a tool and goes on', async () => {
        const seen = [];
        const runner = api.client.chat.completions.runTools({ ...usual, max_tokens: 900, seed: 3,
            temperature: 1, tool_choice: { type: 'function', function: { name: 'add' } },
            tools: [{ type: 'function', function: { ...tools[1].function, parse: JSON.parse,
                function: args => { seen.push(args); return 'done'; } } }] },
        { maxChatCompletions: 2 });
        await runner.done().catch(() => {});
        assert.ok(seen.length >= 1);
        seen.forEach(args => assert.equal(wrong(addition, args), ''));
    });
}

for (const [name, options] of clusters)
    test(name, withApi({ ...options, model: chatModel() }, async (api, t) => {
        await talks(api, t);
        await schemasHold(api, t);
        await toolsHold(api, t);
    }));

test('a vocabulary of words', withApi({ model: storyChatModel() }, async (api, t) => {
    const short = { messages: [messages[1]] };
    await t.test('talks', async () => {
        assert.ok((await both(api, short)).message.content.length > 10);
    });
    await t.test('json_schema', async () => {
        const a = await both(api, { ...short, temperature: 1, seed: 1, max_tokens: 180,
            response_format: { type: 'json_schema', json_schema: { name: 'x', schema: addition } } });
        assert.equal(wrong(addition, JSON.parse(a.message.content)), '', a.message.content);
    });
}));
