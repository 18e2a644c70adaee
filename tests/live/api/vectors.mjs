// Embeddings, classification and tokens.
import test from 'node:test';
import assert from 'node:assert/strict';
import * as shapes from './shapes.mjs';
import { clusters, sameEverywhere, withApi } from './rig.mjs';

const same = sameEverywhere();
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const floats = base64 => {
    const bytes = Buffer.from(base64, 'base64');
    return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
};

async function embed(api, input, more = {}) {
    const a = await api.get('/v1/embeddings', { input, ...more });
    return shapes.fits(more.encoding_format === 'base64' ? shapes.embeddings64 : shapes.embeddings, a);
}

async function embeddings(api, t) {
    const texts = ['a small cat', 'a big red fire engine', 'a small cat'];
    const whole = await embed(api, texts), [cat, engine, again] = whole.data.map(d => d.embedding);
    await t.test('one text, one vector of length 1', async () => {
        assert.deepEqual(whole.data.map(d => d.index), [0, 1, 2]);
        for (const v of [cat, engine])
            assert.ok(Math.abs(dot(v, v) - 1) < 1e-4, `${dot(v, v)}`);
        assert.deepEqual(again, cat);
        assert.ok(dot(cat, engine) < 0.9999, 'another text, another vector');
        const meta = (await api.get('/v1/models')).data[0].meta;
        assert.equal(cat.length, meta.n_embd);
        same('vectors', [cat, engine]);
    });
    await t.test('a text alone, as tokens, in base64 and by the client', async () => {
        assert.deepEqual((await embed(api, texts[0])).data[0].embedding, cat);
        const ids = await api.tokenize(texts[0], { add_special: true });
        assert.deepEqual((await embed(api, ids)).data[0].embedding, cat);
        const two = await embed(api, [ids, await api.tokenize(texts[1], { add_special: true })]);
        assert.deepEqual(two.data.map(d => d.embedding), [cat, engine]);
        const packed = (await embed(api, texts, { encoding_format: 'base64' })).data;
        packed.forEach((d, i) => floats(d.embedding).forEach((x, k) =>
            assert.ok(Math.abs(x - whole.data[i].embedding[k]) < 1e-6)));
        // The client asks for base64 by itself.
        const client = await api.client.embeddings.create({ model: 'any', input: texts });
        client.data[1].embedding.forEach((x, k) => assert.ok(Math.abs(x - engine[k]) < 1e-6));
        assert.deepEqual((await embed(api, texts[0], { dimensions: cat.length })).data[0].embedding, cat);
    });
    await t.test('usage', async () => {
        let n = 0;
        for (const text of texts)
            n += (await api.tokenize(text, { add_special: true })).length;
        assert.deepEqual(whole.usage, { prompt_tokens: n, total_tokens: n });
    });
    await t.test('llama-server\'s /embedding', async () => {
        for (const where of ['/embedding', '/embeddings']) {
            const [a] = await api.get(where, { content: texts[0] });
            assert.equal(a.index, 0);
            assert.deepEqual(a.embedding, [cat]);
        }
        const [raw] = await api.get('/embedding', { content: texts[0], embd_normalize: -1 });
        const length = Math.sqrt(dot(raw.embedding[0], raw.embedding[0]));
        assert.ok(Math.abs(length - 1) > 1e-3);
        raw.embedding[0].forEach((x, k) => assert.ok(Math.abs(x / length - cat[k]) < 1e-4));
    });
    await t.test('many at once', async () => {
        const many = Array.from({ length: 40 }, (_, i) => `${i} ${texts[i % 3]}`);
        const a = await embed(api, many);
        assert.equal(a.data.length, 40);
        const alone = (await embed(api, many[29])).data[0].embedding;
        assert.deepEqual(a.data[29].embedding, alone, 'mates change nothing');
    });
}

async function classify(api, t) {
    const ask = { input: 'Lily lost her toy and cried.', labels: ['happy', 'sad', 'very happy'],
        template: '{input} She felt {label}.' };
    await t.test('likelihoods', async () => {
        const a = shapes.fits(shapes.classification, await api.get('/v1/classify', ask));
        assert.deepEqual(a.labels.map(l => l.label), ask.labels);
        assert.ok(Math.abs(a.labels.reduce((sum, l) => sum + l.probability, 0) - 1) < 1e-6);
        const best = a.labels.reduce((x, y) => x.probability > y.probability ? x : y);
        assert.equal(a.label, best.label);
        assert.equal(a.label, 'sad', 'the stories know');
        a.labels.forEach(l => assert.ok(Math.abs(l.mean_logprob * l.tokens - l.logprob) < 1e-3));
        same('likelihoods', a.labels);
    });
    await t.test('they are those of the tokens', async () => {
        const a = await api.get('/v1/classify', ask);
        const ids = await api.tokenize(`${ask.input} She felt sad.`, { add_special: true });
        const sad = a.labels[1];
        let sum = 0;
        for (let i = ids.length - sad.tokens; i < ids.length; i++) {
            const one = await api.get('/completion', { prompt: ids.slice(0, i), n_predict: 1,
                logit_bias: [[ids[i], 100]], temperature: 0, n_probs: 1 });
            sum += one.completion_probabilities[0].logprob;
        }
        assert.ok(Math.abs(sum - sad.logprob) < 1e-3, `${sum} and ${sad.logprob}`);
    });
    await t.test('the usual template, and the other way round', async () => {
        const usual = await api.get('/v1/classify', { input: ask.input, labels: ['good', 'bad'] });
        shapes.fits(shapes.classification, usual);
        const turned = await api.get('/v1/classify', { ...ask, template: 'A {label} story: {input}' });
        shapes.fits(shapes.classification, turned);
        assert.equal((await api.get('/v1/classify', { input: 'x', labels: ['only'] })).labels[0]
            .probability, 1);
    });
}

async function tokens(api, t) {
    await t.test('there and back', async () => {
        for (const text of ['Once upon a time', 'naïve café 猫🐈', 'two  spaces\n\ttab', 'ünï']) {
            const ids = await api.tokenize(text);
            const { content } = await api.get('/detokenize', { tokens: ids });
            assert.equal(content.trimStart(), text);
            const pieces = await api.tokenize(text, { with_pieces: true });
            assert.deepEqual(pieces.map(p => p.id), ids);
            const bytes = Buffer.concat(pieces.map(p => Buffer.from(p.piece)));
            assert.equal(bytes.toString().trimStart(), text);
        }
        assert.deepEqual(await api.tokenize(''), []);
    });
    await t.test('special tokens', async () => {
        const plain = await api.tokenize('hello'), [bos, ...rest] =
            await api.tokenize('hello', { add_special: true });
        assert.deepEqual(rest, plain);
        assert.equal((await api.get('/detokenize', { tokens: [bos] })).content,
            (await api.get('/props')).bos_token);
        assert.deepEqual(await api.tokenize('<s>'), [bos]);
        assert.notDeepEqual(await api.tokenize('<s>', { parse_special: false }), [bos]);
    });
}

for (const [name, options] of clusters)
    test(name, withApi(options, async (api, t) => {
        await embeddings(api, t);
        await classify(api, t);
        await tokens(api, t);
    }));
