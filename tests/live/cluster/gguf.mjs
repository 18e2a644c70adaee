// GGUF files as these tests need them: where each tensor lies, which of them a device must have for
// its modules, and a model that is slow enough to be interrupted. Written from the format's
// description and not from the program under test, so that the two check each other.
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, renameSync, writeFileSync,
    writeSync } from 'node:fs';

const U8 = 0, I8 = 1, U16 = 2, I16 = 3, U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9;
const WIDTH = { [U8]: 1, [I8]: 1, [U16]: 2, [I16]: 2, [U32]: 4, [I32]: 4, [F32]: 4, [BOOL]: 1,
    10: 8, 11: 8, 12: 8 };

class Reader {
    constructor(bytes) { this.bytes = bytes; this.at = 0; }
    u32() { this.at += 4; return this.bytes.readUInt32LE(this.at - 4); }
    u64() { this.at += 8; return Number(this.bytes.readBigUInt64LE(this.at - 8)); }
    string() {
        const n = this.u64();
        this.at += n;
        return this.bytes.toString('utf8', this.at - n, this.at);
    }
    skip(type) {
        if (type === STRING)
            this.string();
        else if (type === ARRAY)
            for (let kind = this.u32(), n = this.u64(); n > 0; n--)
                this.skip(kind);
        else
            this.at += WIDTH[type];
    }
    value(type) {
        if (type === U32)
            return this.u32();
        this.skip(type);
        return undefined;
    }
}

// The parts of a file: {name, offset, size}; parts[0] is everything before the first tensor, and
// padding belongs to the tensor in front of it.
export function parts(path) {
    const fd = openSync(path, 'r');
    const bytes = Buffer.alloc(Math.min(fstatSync(fd).size, 8 << 20));
    readSync(fd, bytes, 0, bytes.length, 0);
    const end = fstatSync(fd).size;
    closeSync(fd);
    const r = new Reader(bytes);
    if (r.u32() !== 0x46554747)
        throw new Error(`${path} is no GGUF file`);
    r.u32();
    const nTensors = r.u64(), nKeys = r.u64();
    let alignment = 32;
    for (let i = 0; i < nKeys; i++) {
        const key = r.string(), value = r.value(r.u32());
        if (key === 'general.alignment')
            alignment = value;
    }
    const list = [];
    for (let i = 0; i < nTensors; i++) {
        const name = r.string();
        for (let d = r.u32(); d > 0; d--)
            r.u64();
        r.u32();
        list.push({ name, offset: r.u64() });
    }
    const data = Math.ceil(r.at / alignment) * alignment;
    list.sort((a, b) => a.offset - b.offset);
    const all = [{ name: 'header', offset: 0, size: data }];
    list.forEach((t, i) => {
        const next = i + 1 < list.length ? data + list[i + 1].offset : end;
        all.push({ name: t.name, offset: data + t.offset, size: next - data - t.offset });
    });
    return all;
}

function moduleNames(all) {
    const layers = new Set(all.map(p => /^blk\.(\d+)\./.exec(p.name)?.[1]).filter(Boolean));
    const names = ['embed'];
    for (let i = 0; i < layers.size; i++)
        names.push(`attn.${i}`, `ffn.${i}`);
    return [...names, 'output'];
}

// "embed..attn.1 + output": the names of its modules.
export function modulesOf(all, text) {
    const names = moduleNames(all), list = [];
    for (const run of text.split(' + ').filter(Boolean)) {
        const [first, last] = run.split('..');
        const a = names.indexOf(first), b = names.indexOf(last ?? first);
        if (a < 0 || b < a)
            throw new Error(`no modules: ${text}`);
        list.push(...names.slice(a, b + 1));
    }
    return list;
}

function belongs(all, tensor, module) {
    const [kind, layer] = module.split('.');
    if (kind === 'embed')
        return /^token_embd\./.test(tensor);
    if (kind === 'output')
        return /^output/.test(tensor) ||
            (tensor === 'token_embd.weight' && !all.some(p => p.name === 'output.weight'));
    return tensor.startsWith(`blk.${layer}.${kind}_`);
}

// Which parts a device with these modules needs: the header and the tensors of its modules.
export function needs(all, modules) {
    const names = modulesOf(all, modules);
    return all.map((p, i) => i === 0 || names.some(m => belongs(all, p.name, m)));
}

export function bytesNeeded(all, modules) {
    const need = needs(all, modules);
    return all.reduce((sum, p, i) => sum + (need[i] ? p.size : 0), 0);
}

// ---- a model of our own ----

class Writer {
    constructor() { this.pieces = []; this.size = 0; }
    add(b) { this.pieces.push(b); this.size += b.length; }
    u32(v) { const b = Buffer.alloc(4); b.writeUInt32LE(v); this.add(b); }
    f32(v) { const b = Buffer.alloc(4); b.writeFloatLE(v); this.add(b); }
    u64(v) { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(v)); this.add(b); }
    string(s) { const b = Buffer.from(s); this.u64(b.length); this.add(b); }
    key(name, type, put) { this.string(name); this.u32(type); put(); this.n = (this.n ?? 0) + 1; }
    keyString(name, s) { this.key(name, STRING, () => this.string(s)); }
    keyU32(name, v) { this.key(name, U32, () => this.u32(v)); }
    keyF32(name, v) { this.key(name, F32, () => this.f32(v)); }
    keyArray(name, type, list, put) {
        this.key(name, ARRAY, () => { this.u32(type); this.u64(list.length); list.forEach(put); });
    }
}

function vocabulary(w, n) {
    const ids = [...Array(n).keys()];
    const text = i => i < 3 ? ['<unk>', '<s>', '</s>'][i]
        : i < 259 ? `<0x${(i - 3).toString(16).toUpperCase().padStart(2, '0')}>` : `t${i}`;
    w.keyString('tokenizer.ggml.model', 'llama');
    w.keyArray('tokenizer.ggml.tokens', STRING, ids.map(text), s => w.string(s));
    w.keyArray('tokenizer.ggml.scores', F32, ids, i => w.f32(i < 259 ? 0 : -i));
    w.keyArray('tokenizer.ggml.token_type', I32, ids,
        i => w.u32(i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));
    w.keyU32('tokenizer.ggml.unknown_token_id', 0);
    w.keyU32('tokenizer.ggml.bos_token_id', 1);
    w.keyU32('tokenizer.ggml.eos_token_id', 2);
}

// Random numbers of variance 1, from a block that is made once.
const noise = (() => {
    const block = new Float32Array(1 << 18);
    let x = 1;
    for (let i = 0; i < block.length; i++) {
        x = Math.imul(x, 1664525) + 1013904223 >>> 0;
        block[i] = (x / 2 ** 32 - 0.5) * 3.4641;
    }
    return block;
})();

function matrix(seed, n, std) {
    const out = new Float32Array(n);
    for (let i = 0, at = seed * 7919; i < n; i++, at++)
        out[i] = std * noise[at % noise.length];
    return out;
}

// The tensors of a llama of random weights in F32.
function llama({ layers, width, ff, vocab }) {
    const tensors = [], add = (name, shape, data) => tensors.push({ name, shape, data });
    let seed = 1;
    const linear = (name, ne0, ne1) =>
        add(`${name}.weight`, [ne0, ne1], matrix(seed++, ne0 * ne1, 1 / Math.sqrt(ne0)));
    const norm = name => add(`${name}.weight`, [width], new Float32Array(width).fill(1));
    add('token_embd.weight', [width, vocab], matrix(seed++, width * vocab, 0.5));
    for (let i = 0; i < layers; i++) {
        norm(`blk.${i}.attn_norm`);
        for (const kind of ['q', 'k', 'v', 'output'])
            linear(`blk.${i}.attn_${kind}`, width, width);
        norm(`blk.${i}.ffn_norm`);
        linear(`blk.${i}.ffn_gate`, width, ff);
        linear(`blk.${i}.ffn_up`, width, ff);
        linear(`blk.${i}.ffn_down`, ff, width);
    }
    norm('output_norm');
    linear('output', width, vocab);
    return tensors;
}

function llamaKeys(w, name, { layers, width, ff, heads }) {
    w.keyString('general.architecture', 'llama');
    w.keyString('general.name', name);
    w.keyU32('llama.context_length', 4096);
    w.keyU32('llama.embedding_length', width);
    w.keyU32('llama.block_count', layers);
    w.keyU32('llama.feed_forward_length', ff);
    w.keyU32('llama.attention.head_count', heads);
    w.keyF32('llama.attention.layer_norm_rms_epsilon', 1e-5);
    w.keyU32('llama.rope.dimension_count', width / heads);
    w.keyF32('llama.rope.freq_base', 10000);
}

function writeFile(path, w, tensors) {
    const head = new Writer();
    head.u32(0x46554747);
    head.u32(3);
    head.u64(tensors.length);
    head.u64(w.n);
    w.pieces.forEach(b => head.add(b));
    let offset = 0;
    for (const t of tensors) {
        head.string(t.name);
        head.u32(t.shape.length);
        t.shape.forEach(n => head.u64(n));
        head.u32(0); // F32
        head.u64(offset);
        offset += t.data.byteLength; // all multiples of 32
    }
    head.add(Buffer.alloc((32 - head.size % 32) % 32));
    const fd = openSync(`${path}.new`, 'w');
    writeSync(fd, Buffer.concat(head.pieces));
    for (const t of tensors)
        writeSync(fd, Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength));
    closeSync(fd);
    renameSync(`${path}.new`, path);
    return path;
}

// A llama of random weights in F32 that never ends an answer: only words have a row in its output
// that is not zero. layers x 10.5 MB.
export function writeModel(path, layers) {
    if (existsSync(path))
        return path;
    const shape = { layers, width: 512, ff: 1024, heads: 8, vocab: 320 };
    const w = new Writer(), tensors = llama(shape);
    tensors.at(-1).data.fill(0, 0, 259 * shape.width);
    llamaKeys(w, 'endless', shape);
    vocabulary(w, shape.vocab);
    return writeFile(path, w, tensors);
}

// The tokenizer's keys of a file, as bytes, and how many tokens there are.
function vocabularyOf(file) {
    const r = new Reader(readFileSync(file)), keys = [];
    r.at = 16;
    let n = 0;
    for (let left = r.u64(); left > 0; left--) {
        const from = r.at, name = r.string(), type = r.u32(), at = r.at;
        r.skip(type);
        if (name === 'tokenizer.ggml.tokens')
            n = Number(r.bytes.readBigUInt64LE(at + 4));
        if (name.startsWith('tokenizer.') && name !== 'tokenizer.chat_template')
            keys.push(r.bytes.subarray(from, r.at));
    }
    return { n, keys };
}

// One narrow layer of random weights under a real vocabulary.
export function writeModelWithVocabulary(path, file) {
    if (existsSync(path))
        return path;
    const { n, keys } = vocabularyOf(file), w = new Writer();
    const shape = { layers: 1, width: 64, ff: 128, heads: 2, vocab: n };
    llamaKeys(w, 'words', shape);
    keys.forEach(bytes => w.add(bytes));
    w.n += keys.length;
    return writeFile(path, w, llama(shape));
}

// A copy with one more key, a text. Tensors keep their places: those are counted from where they all
// begin.
export function withKey(from, to, name, text) {
    if (existsSync(to))
        return to;
    const all = readFileSync(from), r = new Reader(all);
    const round = n => Math.ceil(n / 32) * 32; // the usual alignment
    r.at = 8;
    const nTensors = r.u64(), nKeys = r.u64(), first = r.at;
    for (let i = 0; i < nKeys; i++) {
        r.string();
        r.skip(r.u32());
    }
    const infos = r.at;
    for (let i = 0; i < nTensors; i++) {
        r.string();
        const dims = r.u32();
        r.at += 8 * dims + 12;
    }
    const w = new Writer();
    w.add(all.subarray(0, 16));
    w.u64(nKeys + 1);
    w.add(all.subarray(first, infos));
    w.keyString(name, text);
    w.add(all.subarray(infos, r.at));
    w.add(Buffer.alloc(round(w.size) - w.size));
    w.add(all.subarray(round(r.at)));
    const own = `${to}.${process.pid}`;
    writeFileSync(own, Buffer.concat(w.pieces));
    renameSync(own, to);
    return to;
}
