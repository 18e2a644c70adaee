// A real chat model (LINGUA_CHAT_MODEL names TinyLlama's chat, make chat-model): what it says makes
// sense.
import test from 'node:test';
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import * as shapes from './shapes.mjs';
import { wrong } from './schema.mjs';
import { skipFile, withApi } from './rig.mjs';

const model = process.env.LINGUA_CHAT_MODEL;
if (!model)
    skipFile('LINGUA_CHAT_MODEL does not name a chat model');
if (!existsSync(model))
    skipFile(`LINGUA_CHAT_MODEL names ${model}, which is not there`);

const usual = { model: 'x', temperature: 0, max_tokens: 60 };
const city = { type: 'object', additionalProperties: false, required: ['city', 'country'],
    properties: { city: { type: 'string', maxLength: 30 }, country: { type: 'string', maxLength: 30 } } };

test('a chat model', withApi({ model, args: ['--ctx', '1024'] }, async (api, t) => {
    const chat = more => api.client.chat.completions.create({ ...usual, ...more });
    const question = [{ role: 'user', content: 'What is the capital of France?' }];
    await t.test('knows Paris', async () => {
        const a = shapes.fits(shapes.chat, await chat({ messages: question }));
        assert.match(a.choices[0].message.content, /Paris/);
    });
    await t.test('streams the same', async () => {
        const whole = (await chat({ messages: question })).choices[0].message.content;
        let text = '';
        for await (const e of await chat({ messages: question, stream: true }))
            text += e.choices[0]?.delta.content ?? '';
        assert.equal(text, whole);
    });
    await t.test('remembers the turn before, and reads it once', async () => {
        const first = (await chat({ messages: question })).choices[0].message;
        const a = await chat({ messages: [...question, first,
            { role: 'user', content: 'In which country is it?' }] });
        assert.match(a.choices[0].message.content, /France/);
        assert.ok(a.usage.prompt_tokens_details.cached_tokens > 10);
    });
    await t.test('fills a schema', async () => {
        const a = await chat({ messages: [{ role: 'user',
            content: 'Give the capital of France as JSON with city and country.' }],
        response_format: { type: 'json_schema', json_schema: { name: 'city', schema: city } } });
        const value = JSON.parse(a.choices[0].message.content);
        assert.equal(wrong(city, value), '');
        assert.match(value.city, /Paris/);
    });
    const { chat_template_caps: caps } = await api.get('/props');
    const skip = caps.supports_tool_calls ? false : 'its template does not say how it calls tools';
    await t.test('calls the tool it is told to', { skip }, async () => {
        const a = await chat({ max_tokens: 120, messages: [{ role: 'user',
            content: 'What is the weather in Paris?' }],
        tools: [{ type: 'function', function: { name: 'weather', parameters: { type: 'object',
            additionalProperties: false, required: ['city'],
            properties: { city: { type: 'string', maxLength: 30 } } } } }], tool_choice: 'required' });
        const [call] = a.choices[0].message.tool_calls;
        assert.equal(call.function.name, 'weather');
        assert.match(JSON.parse(call.function.arguments).city, /Paris/);
    });
    await t.test('related texts lie closer', async () => {
        const { data } = await api.client.embeddings.create({ model: 'x', input: ['The cat sleeps.',
            'A kitten is sleeping.', 'Interest rates rose by two percent.'] });
        const [a, b, c] = data.map(d => d.embedding);
        const dot = (x, y) => x.reduce((sum, v, i) => sum + v * y[i], 0);
        assert.ok(dot(a, b) > dot(a, c), `${dot(a, b)} ${dot(a, c)}`);
    });
}));
