// A long prompt goes through the stages in chunks, one behind the other: at some time all three
// devices compute at once. Seen in the trace that lingua run --trace writes, which is also held
// against the Trace Event Format.
// usage: cluster_trace.mjs path/to/lingua path/to/lingua-test-model
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Loopback, Cluster, spans } from '../../bench/net/machines.mjs';

const [lingua, testModel] = process.argv.slice(2);
const CHUNK = 128, LETTERS = 1500; // a letter is one token to this model, a space three
const folder = mkdtempSync(join(tmpdir(), 'lingua-trace-'));
const model = join(folder, 'model.gguf'), file = join(folder, 'trace.json');
const c = new Cluster({
    lingua, net: new Loopback(3), model, work: join(folder, 'c'), serve: ['--no-announce', '--equal'],
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(1));
process.on('exit', () => {
    c.procs.forEach(p => p?.kill('SIGKILL'));
    rmSync(folder, { recursive: true, force: true });
});

// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: "JSON Object
// Format", complete events ("X") and metadata ("M").
function wellFormed(trace) {
    assert.ok(Array.isArray(trace.traceEvents) && trace.traceEvents.length > 0);
    assert.ok(['ms', 'ns'].includes(trace.displayTimeUnit));
    const named = new Set();
    for (const e of trace.traceEvents) {
        assert.equal(typeof e.name, 'string');
        assert.ok(Number.isInteger(e.pid) && Number.isInteger(e.tid));
        if (e.ph === 'M') {
            assert.ok(['process_name', 'thread_name'].includes(e.name));
            assert.equal(typeof e.args.name, 'string');
            if (e.name === 'thread_name')
                named.add(`${e.pid} ${e.tid}`);
        } else {
            assert.equal(e.ph, 'X', `an event of phase ${e.ph}`);
            assert.ok(Number.isFinite(e.ts) && Number.isFinite(e.dur) && e.dur >= 0);
            assert.ok(named.has(`${e.pid} ${e.tid}`), 'a track without a name');
        }
    }
}

// The most devices that compute at one time.
function mostAtOnce(compute) {
    const edges = compute.flatMap(s => [[s.begin, 1, s.device], [s.end, 0, s.device]]);
    const busy = new Set();
    let most = 0;
    edges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    for (const [, begins, device] of edges) {
        if (begins)
            busy.add(device);
        else
            busy.delete(device);
        most = Math.max(most, busy.size);
    }
    return most;
}

const made = spawnSync(testModel, ['llama-gqa:12:q8_0', model], { encoding: 'utf8' });
assert.equal(made.status, 0, made.stderr);
const prompt = 'abcdefghijklmnopqrstuvwxyz '.repeat(60).slice(0, LETTERS);
const ask = ['-p', prompt, '--temp', '0', '-n', '8'];
const alone = spawnSync(lingua, ['run', model, ...ask, '--threads', '1', '--json'],
    { encoding: 'utf8' });
assert.equal(alone.status, 0, alone.stderr);

const plan = await c.up();
const got = await c.run(ask, file);
assert.deepEqual(got.tokens, JSON.parse(alone.stdout).tokens, 'another text than alone');
const trace = JSON.parse(readFileSync(file, 'utf8'));
wellFormed(trace);
const names = trace.traceEvents.filter(e => e.name === 'process_name').map(e => e.args.name);
assert.deepEqual(names.sort(), ['m0', 'm1', 'm2']);

const all = spans(trace), compute = all.filter(s => s.cat === 'compute');
const prefill = compute.filter(s => s.rows > 1), chunks = new Set(prefill.map(s => s.step));
assert.ok(prefill.every(s => s.rows <= CHUNK));
assert.ok(chunks.size >= got.timings.prompt_tokens / CHUNK, `${chunks.size} chunks`);
for (const step of chunks) { // each chunk is run by every stage, in their order
    const stages = prefill.filter(s => s.step === step).sort((a, b) => a.stage - b.stage);
    assert.deepEqual(stages.map(s => s.stage), stages.map((_, i) => i));
    assert.equal(new Set(stages.map(s => s.device)).size, 3);
}
for (const device of [0, 1, 2]) { // and a device does one thing at a time
    const own = compute.filter(s => s.device === device).sort((a, b) => a.begin - b.begin);
    own.slice(1).forEach((s, i) => assert.ok(s.begin >= own[i].end, 'two steps at once'));
}
for (const cat of ['compute', 'queue', 'wire'])
    assert.ok(all.some(s => s.cat === cat), `no ${cat} in the trace`);
const most = mostAtOnce(prefill);
for (const d of plan.devices)
    console.log(`${d.name} holds ${d.modules}`);
console.log(`${chunks.size} chunks, ${got.timings.prompt_tokens} tokens; ${most} devices at once`);
assert.equal(most, 3, 'the three devices never compute at the same time');
await c.close();
process.exit(0);
