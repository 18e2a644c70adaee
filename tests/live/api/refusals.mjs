// What is asked wrongly is refused with the right status, in OpenAI's shape, by a message that names
// the field; and nobody else notices.
import test from 'node:test';
import assert from 'node:assert/strict';
import * as shapes from './shapes.mjs';
import { chatModel, openApi, withApi } from './rig.mjs';
import { withRig } from '../cluster/rig.mjs';

const user = [{ role: 'user', content: 'hi' }];
const chat = '/v1/chat/completions', text = '/v1/completions', embed = '/v1/embeddings';
const deep = (n, open = '[', close = ']') => open.repeat(n) + close.repeat(n);
const nested = n => n ? { type: 'object', properties: { a: nested(n - 1) } } : { type: 'string' };
const schema = s => ({ messages: user, response_format: { type: 'json_schema',
    json_schema: { name: 'x', schema: s } } });
const tool = (name, parameters) => ({ type: 'function', function: { name, parameters } });

// [what, path, body, what the message (or param) has to name]
const wrong = [
    ['no messages', chat, {}, /messages/],
    ['empty messages', chat, { messages: [] }, /messages/],
    ['messages as a string', chat, { messages: 'hi' }, /messages/],
    ['a message that is none', chat, { messages: [5] }, /messages\[0\]/],
    ['an unknown role', chat, { messages: [{ role: 'king', content: 'x' }] }, /messages\[0\]\.role/],
    ['no role', chat, { messages: [{ content: 'x' }] }, /messages\[0\]\.role/],
    ['no content', chat, { messages: [{ role: 'user' }] }, /messages\[0\]\.content/],
    ['content of a wrong type', chat, { messages: [{ role: 'user', content: 5 }] }, /content/],
    ['a picture', chat, { messages: [{ role: 'user', content: [{ type: 'image_url',
        image_url: { url: 'data:' } }] }] }, /messages\[0\]\.content\[0\]/],
    ['temperature as a word', chat, { messages: user, temperature: 'hot' }, /temperature/],
    ['temperature too low', chat, { messages: user, temperature: -1 }, /temperature/],
    ['top_p too high', text, { prompt: 'a', top_p: 1.5 }, /top_p/],
    ['max_tokens as a word', text, { prompt: 'a', max_tokens: 'many' }, /max_tokens/],
    ['max_tokens with a fraction', text, { prompt: 'a', max_tokens: 1.5 }, /max_tokens/],
    ['max_tokens below -1', text, { prompt: 'a', max_tokens: -5 }, /max_tokens/],
    ['n too large', chat, { messages: user, n: 1000 }, /\bn\b/],
    ['n of 0', chat, { messages: user, n: 0 }, /\bn\b/],
    ['stream as a word', text, { prompt: 'a', stream: 'yes' }, /stream/],
    ['stream_options of a wrong type', text, { prompt: 'a', stream: true, stream_options: 3 },
        /stream_options/],
    ['stop of a wrong type', text, { prompt: 'a', stop: 5 }, /stop/],
    ['too many stop words', text, { prompt: 'a', stop: Array(33).fill('x') }, /stop/],
    ['a stop word that is too long', text, { prompt: 'a', stop: 'x'.repeat(2000) }, /stop/],
    ['logit_bias out of range', text, { prompt: 'a', logit_bias: { 5: 101 } }, /logit_bias/],
    ['logit_bias of no token', text, { prompt: 'a', logit_bias: { 999999: 1 } }, /logit_bias/],
    ['logit_bias of a wrong type', text, { prompt: 'a', logit_bias: 'all' }, /logit_bias/],
    ['too many top_logprobs', chat, { messages: user, logprobs: true, top_logprobs: 65 },
        /top_logprobs/],
    ['top_logprobs without logprobs', chat, { messages: user, logprobs: false, top_logprobs: 2 },
        /top_logprobs/],
    ['an unknown response_format', chat, { messages: user, response_format: { type: 'xml' } },
        /response_format/],
    ['json_schema without a schema', chat, { messages: user, response_format:
        { type: 'json_schema' } }, /response_format/],
    ['a schema of an unknown type', chat, schema({ type: 'wombat' }), /schema|wombat/],
    ['a schema with a reference to nothing', chat, schema({ $ref: '#/definitions/none' }),
        /schema|none|ref/],
    ['a schema that is too deep', chat, schema(nested(20)), /deep|nested/],
    ['a schema that is too large', chat, schema({ enum: Array(9000).fill('a long value') }),
        /schema/],
    ['a schema with an evil pattern', chat, schema({ type: 'string',
        pattern: `^${'('.repeat(5000)}a${')'.repeat(5000)}$` }), /pattern|schema|deep|nested/],
    ['a grammar that cannot be read', text, { prompt: 'a', grammar: 'root ::= (' }, /grammar/],
    ['a grammar without a root', text, { prompt: 'a', grammar: 'x ::= "a"' }, /grammar|root/],
    ['a grammar and a schema', text, { prompt: 'a', grammar: 'root ::= "a"', json_schema: {} },
        /grammar/],
    ['tools of a wrong type', chat, { messages: user, tools: {} }, /tools/],
    ['a tool without a name', chat, { messages: user, tools: [{ type: 'function', function: {} }] },
        /tools\[0\]/],
    ['a tool of another type', chat, { messages: user, tools: [{ type: 'web' }] }, /tools\[0\]\.type/],
    ['an unknown tool_choice', chat, { messages: user, tools: [tool('a', {})], tool_choice: 'maybe' },
        /tool_choice/],
    ['tool_choice without tools', chat, { messages: user, tool_choice: 'required' }, /tool_choice/],
    ['tool_choice of another tool', chat, { messages: user, tools: [tool('a', {})],
        tool_choice: { type: 'function', function: { name: 'b' } } }, /tool_choice/],
    ['no prompt', text, {}, /prompt/],
    ['a prompt of a wrong type', text, { prompt: 5 }, /prompt/],
    ['a prompt of no token', text, { prompt: [1, 99999999] }, /prompt|token/],
    ['suffix', text, { prompt: 'a', suffix: 'b' }, /suffix/],
    ['no input', embed, {}, /input/],
    ['empty input', embed, { input: '' }, /input/],
    ['no inputs', embed, { input: [] }, /input/],
    ['input of a wrong type', embed, { input: { a: 1 } }, /input/],
    ['one empty input of two', embed, { input: ['a', ''] }, /input\[1\]/],
    ['other dimensions', embed, { input: 'a', dimensions: 3 }, /dimensions/],
    ['an unknown encoding', embed, { input: 'a', encoding_format: 'hex' }, /encoding_format/],
    ['no labels', '/v1/classify', { input: 'a' }, /labels/],
    ['labels twice the same', '/v1/classify', { input: 'a', labels: ['x', 'x'] }, /label/],
    ['a template without a label', '/v1/classify', { input: 'a', labels: ['x'], template: '{input}' },
        /template|label/],
    ['no content', '/tokenize', {}, /content/],
    ['tokens of a wrong type', '/detokenize', { tokens: 'a' }, /tokens/],
    ['no such token', '/detokenize', { tokens: [-1] }, /tokens|token/],
    ['no messages', '/apply-template', {}, /messages/],
    ['no prompt', '/completion', {}, /prompt/],
    ['n_predict as a word', '/completion', { prompt: 'a', n_predict: 'x' }, /n_predict/],
    ['no such slot', '/completion', { prompt: 'a', n_predict: 1, id_slot: 200 }, /slot/],
];

const bytes = [
    ['no body', '', /empty|body/],
    ['no JSON', 'hello', /JSON/],
    ['JSON that ends early', '{"messages": [', /JSON/],
    ['JSON that goes on', '{"a": 1} x', /JSON/],
    ['no object', '[1, 2]', /object/],
    ['deep arrays', `{"a": ${deep(5000)}}`, /nested|deep/],
    ['deep objects', `{"a": ${deep(100000, '{"a":', '}').replace(':}', ':1}')}}`, /nested|deep/],
    ['bytes that are no UTF-8', Buffer.from('7b2261223a2022ff fe22 7d'.replaceAll(' ', ''), 'hex'),
        /UTF-8|JSON/],
    ['a number too large', '{"messages": [], "seed": 1e999}', /JSON|seed/],
    ['too many values', `{"a": [${'1,'.repeat(1 << 20)}1]}`, /values/],
];

function judge(r, status, names) {
    assert.equal(r.status, status, r.text.slice(0, 300));
    assert.match(r.headers.get('content-type'), /^application\/json/);
    const { error } = r.json;
    assert.match(`${error.param ?? ''} ${error.message}`, names);
    assert.ok(error.message.length < 600);
    return error;
}

test('bad requests', withApi({ model: chatModel() }, async (api, t) => {
    for (const [what, where, body, names] of wrong)
        await t.test(`${where}: ${what}`, async () => {
            const r = await api.ask(where, body);
            assert.equal(judge(r, 400, names).type, 'invalid_request_error');
            shapes.fits(where.startsWith('/v1/') ? shapes.error : shapes.nativeError, r.json);
        });
    for (const [what, body, names] of bytes)
        for (const where of [chat, '/completion'])
            await t.test(`${where}: ${what}`, async () => {
                judge(await api.ask(where, body, { method: 'POST' }), 400, names);
            });
    await t.test('the client throws what it should', async () => {
        const { BadRequestError } = (await import('openai')).default;
        const asked = api.client.chat.completions.create({ model: 'x', messages: user, n: 99 });
        await assert.rejects(asked, e => e instanceof BadRequestError && e.param === 'n' &&
            e.type === 'invalid_request_error');
    });
    await t.test('longer than the context', async () => {
        const { n_ctx } = await api.get('/props'), long = 'word '.repeat(n_ctx);
        for (const [where, body] of [[chat, { messages: [{ role: 'user', content: long }] }],
            [text, { prompt: long }], [text, { prompt: long, stream: true }],
            [embed, { input: ['a', long] }], ['/v1/classify', { input: long, labels: ['a', 'b'] }]]) {
            const error = judge(await api.ask(where, body), 400, new RegExp(`\\b${n_ctx}\\b`));
            assert.equal(error.code, 'context_length_exceeded', where);
            assert.match(error.message, /\d{4,}\D+\d{4,}/, 'both numbers');
        }
    });
    await t.test('a body that is too large', async () => {
        const r = await api.ask(text, `{"prompt": "${'a'.repeat(17 << 20)}"}`).catch(e => e);
        assert.ok(r instanceof Error || r.status === 413, `${r.status}`);
    });
    await t.test('no such path, no such method', async () => {
        const none = await api.ask('/v1/nothing');
        assert.equal(judge(none, 404, /nothing|path|url|route/i).type, 'invalid_request_error');
        assert.equal((await api.ask('/v1/models/none')).json.error.code, 'model_not_found');
        const got = await api.ask(chat);
        judge(got, 405, /POST|method/);
        assert.match(got.headers.get('allow'), /POST/);
        assert.equal((await api.ask('/v1/models', {})).status, 405);
        assert.ok([404, 405].includes((await api.ask('/v1/models', undefined,
            { method: 'DELETE' })).status));
    });
    await t.test('nobody was hurt', async () => {
        await api.alive();
        await api.idle();
    });
}));

test('a model without a template has no chats', withApi({}, async api => {
    judge(await api.ask(chat, { messages: user }), 400, /template/);
    await api.alive();
}));

test('the queue is full', withApi({ model: chatModel(), args: ['--slots', '1', '--queue', '2'] },
    async (api, t) => {
        const answers = await Promise.all(Array.from({ length: 8 }, (_, i) =>
            api.ask(text, { prompt: `${i}`, max_tokens: 300 })));
        const full = answers.filter(r => r.status === 503), served = answers.filter(r => r.status === 200);
        assert.equal(full.length + served.length, 8);
        assert.ok(served.length >= 3 && full.length >= 1, `${served.length} served`);
        full.forEach(r => {
            assert.equal(r.json.error.code, 'server_busy');
            assert.ok(Number(r.headers.get('retry-after')) >= 1);
        });
        await api.alive();
    }));

test('a port in use', withRig(async rig => {
    const api = await openApi(rig, { model: chatModel() });
    const p = rig.start('second', ['serve', chatModel(), '--state', rig.state('second'), '--listen',
        '127.0.0.1:0', '--no-announce', '--port', String(api.port)]);
    assert.equal(await p.end(60000), 1);
    assert.match(p.err, new RegExp(`${api.port}[^]*--port`), 'what to do');
    await api.alive();
    const none = rig.start('none', ['serve', chatModel(), '--state', rig.state('none'), '--listen',
        '127.0.0.1:0', '--no-announce', '--no-api']);
    await none.says(/reached at/);
    assert.doesNotMatch(none.err, /\/v1\b/);
}));
