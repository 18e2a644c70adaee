// Real vocabularies (LINGUA_VOCABS names a folder of ggml-vocab-*.gguf): tokens there and back, and
// grammars over a hundred thousand tokens, whose edges are not those of JSON.
import test from 'node:test';
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { wrong } from './schema.mjs';
import { template } from './template.mjs';
import { skipFile, withApi } from './rig.mjs';
import { withKey, writeModelWithVocabulary } from '../cluster/gguf.mjs';

const folder = process.env.LINGUA_VOCABS, work = process.env.LINGUA_TEST_DIR;
if (!folder)
    skipFile('LINGUA_VOCABS names no folder of vocabularies');
const files = existsSync(folder) ? readdirSync(folder).filter(f => f.endsWith('.gguf')) : [];
if (!files.length)
    skipFile(`there is no vocabulary in LINGUA_VOCABS, ${folder}`);

const args = { type: 'object', additionalProperties: false, required: ['city', 'days'],
    properties: { city: { type: 'string', maxLength: 12 },
        days: { type: 'array', minItems: 1, maxItems: 3, items: { enum: ['Monday', 'Friday'] } } } };
const tools = [{ type: 'function', function: { name: 'forecast', parameters: args } }];
const messages = [{ role: 'user', content: 'Wie wird das Wetter in Zürich? 🌦' }];

function modelOf(file) {
    mkdirSync(work, { recursive: true });
    const plain = path.join(work, `words-${file}`);
    writeModelWithVocabulary(plain, path.join(folder, file));
    return withKey(plain, plain.replace(/\.gguf$/, '-chat.gguf'), 'tokenizer.chat_template', template);
}

for (const file of files)
    test(file, { timeout: 60000 }, t => withApi({ model: modelOf(file) }, async api => {
        for (const text of ['Once upon a time', 'naïve café 猫🐈 ٣', '  two  spaces\n\t\ttabs', '{"a": [1]}']) {
            const tokens = await api.tokenize(text, { parse_special: false });
            const { content } = await api.get('/detokenize', { tokens });
            assert.equal(content.trimStart(), text.trimStart());
        }
        const usual = { messages, temperature: 1, max_tokens: 400 };
        for (const seed of [1, 2]) {
            const a = await api.get('/v1/chat/completions', { ...usual, seed,
                response_format: { type: 'json_schema', json_schema: { name: 'x', schema: args } } });
            const text = a.choices[0].message.content;
            assert.equal(a.choices[0].finish_reason, 'stop', text);
            assert.equal(wrong(args, JSON.parse(text)), '', text);
            const b = await api.get('/v1/chat/completions', { ...usual, seed, tools,
                tool_choice: 'required' });
            // Noise may go on calling until its tokens are used up, in the middle of a call.
            const calls = b.choices[0].message.tool_calls;
            if (b.choices[0].finish_reason === 'length')
                calls.pop();
            else
                assert.equal(b.choices[0].finish_reason, 'tool_calls');
            assert.ok(calls.length > 0);
            for (const { function: f } of calls)
                assert.equal(wrong(args, JSON.parse(f.arguments)), '', f.arguments);
        }
    })(t));
