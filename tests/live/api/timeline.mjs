// Where the time of the last answer went: the timeline's parts are what a client measured, its spans
// are in order, and the trace has all devices.
import test from 'node:test';
import assert from 'node:assert/strict';
import { endlessModel, eventsOf, until, withApi } from './rig.mjs';

const devices = ['one', 'two'];
const slow = { model: endlessModel(24), devices, args: ['--equal'] }; // so slow that HTTP is noise
const kinds = ['queue', 'head', 'wire', 'wait', 'compute'];
const sum = list => list.reduce((a, b) => a + b, 0);
const listed = p => sum([p.queue_ms, p.head_ms, p.other_ms, ...p.compute_ms, ...p.wait_ms,
    ...p.wire_ms]);
const near = (a, b, share, what) =>
    assert.ok(Math.abs(a - b) <= share * Math.max(a, b), `${what}: ${a} and ${b}`);

// Streams an answer; {ms, first_ms, tokens} as the client saw it.
async function answer(api, prompt, n) {
    const start = performance.now();
    const r = await api.fetch('/v1/completions',
        { prompt, max_tokens: n, temperature: 0, stream: true });
    let first;
    for await (const e of eventsOf(r))
        first ??= e.choices?.[0].text && performance.now() - start;
    return { ms: performance.now() - start, first_ms: first };
}

function check(t, tokens) {
    const total = t.ended_us / 1e3, n = t.lanes.length - 1;
    assert.equal(t.state, 'done');
    assert.equal(t.complete, true);
    assert.equal(t.tokens, tokens);
    assert.deepEqual(t.lanes[0], { name: 'head', device: 'head', stage: -1 });
    assert.deepEqual(t.lanes.slice(1).map(l => l.stage), [...Array(n).keys()]);
    assert.equal(new Set(t.lanes.map(l => l.device)).size, 3);
    for (const key of ['parts', 'first', 'rest']) {
        assert.equal(t[key].compute_ms.length, n);
        assert.equal(t[key].wire_ms.length, n + 1);
        near(listed(t[key]), t[key].total_ms, 1e-6, `${key} add up`);
    }
    near(t.first.total_ms + t.rest.total_ms, t.parts.total_ms, 1e-6, 'first and rest');
    near(t.first.total_ms, t.first_us / 1e3, 1e-6, 'first');
    near(t.parts.total_ms, total, 1e-6, 'the total');
    assert.ok(t.parts.other_ms < 0.05 * total, `${t.parts.other_ms} ms of ${total} unaccounted`);
    assert.ok(t.parts.compute_ms.every(ms => ms > 0));
    let last = 0;
    for (const [lane, kind, start, end, step, rows] of t.spans) {
        assert.ok(kinds.includes(kind) && lane >= 0 && lane <= n);
        assert.ok(lane > 0 ? ['wire', 'wait', 'compute'].includes(kind) : kind !== 'compute');
        assert.ok(start >= last && end > start && end <= t.ended_us, 'spans are in order');
        assert.ok(kind === 'queue' || (step > 0 && rows > 0));
        last = start;
    }
    for (let lane = 1; lane <= n; lane++) { // a device does one thing at a time
        const own = t.spans.filter(s => s[0] === lane && s[1] === 'compute');
        own.slice(1).forEach((s, i) => assert.ok(s[2] >= own[i][3], 'two steps at once'));
        assert.ok(own.length >= tokens);
    }
}

test('before anything was asked there is none', withApi({}, async api => {
    const t = await api.get('/cluster/timeline');
    assert.equal(t.state, 'none');
    assert.deepEqual([t.spans, t.parts.total_ms], [[], 0]);
    assert.equal((await api.ask('/cluster/trace')).status, 200);
}));

test('the parts are what the client measured', withApi(slow, async api => {
    const prompt = 'a b c d e f g h '.repeat(40), saw = await answer(api, prompt, 100);
    const t = await api.get('/cluster/timeline');
    check(t, 100);
    near(listed(t.parts), saw.ms, 0.05, 'the whole answer');
    near(t.first.total_ms, saw.first_ms, 0.05, 'the first token');
    assert.ok(t.prompt_tokens > 300 && t.cached_tokens === 0);
    console.log(`${saw.ms.toFixed(0)} ms: ${JSON.stringify(t.parts)}`);

    const again = await answer(api, prompt, 100); // what a slot holds is not computed twice
    const u = await api.get('/cluster/timeline');
    check(u, 100);
    near(listed(u.parts), again.ms, 0.05, 'the answer again');
    assert.ok(u.cached_tokens > 300 && u.first.total_ms < t.first.total_ms);
    assert.deepEqual(await api.get('/cluster/timeline'), u);
    const both = await Promise.all([...Array(8)].map(() => api.get('/cluster/timeline')));
    both.forEach(b => assert.deepEqual(b, u));
}));

test('the trace has complete events of every device', withApi(slow, async api => {
    await answer(api, 'one two three', 20);
    const r = await api.ask('/cluster/trace');
    assert.equal(r.status, 200);
    assert.equal(r.headers.get('content-disposition'), 'attachment; filename="lingua-trace.json"');
    const names = new Map(), seen = new Map();
    for (const e of r.json.traceEvents) {
        if (e.ph === 'M') {
            if (e.name === 'process_name')
                names.set(e.pid, e.args.name);
            continue;
        }
        assert.equal(e.ph, 'X');
        assert.ok(Number.isFinite(e.ts) && e.ts >= 0 && e.dur >= 0 && names.has(e.pid));
        if (e.cat === 'compute')
            seen.set(e.pid, (seen.get(e.pid) ?? 0) + 1);
    }
    assert.deepEqual([...names.values()].sort(), ['head', ...devices].sort());
    assert.equal(seen.size, 3);
    assert.ok([...seen.values()].every(n => n >= 20));
    assert.ok(r.json.traceEvents.some(e => e.cat === 'head'));
}));

test('an answer under way is said to be', withApi(slow, async api => {
    await answer(api, 'one two', 5);
    const stop = new AbortController();
    const r = await api.fetch('/v1/completions',
        { prompt: 'once', max_tokens: 1500, temperature: 0, stream: true }, { signal: stop.signal });
    await eventsOf(r).next();
    const t = await api.get('/cluster/timeline');
    assert.equal(t.state, 'running');
    assert.ok(t.spans.length > 0 && t.tokens < 1500);
    near(listed(t.parts), t.ended_us / 1e3, 1e-6, 'the parts of what there is');
    stop.abort();
    await api.idle();
    const u = await until(async () => {
        const now = await api.get('/cluster/timeline');
        return now.state === 'done' && now;
    }, 'it is over');
    assert.ok(u.tokens < 1500 && u.ended_us >= t.ended_us);
}));

// Others have their turns in between: each answer's own time still adds up.
test('of several answers at once it is the last that ended', withApi(slow, async api => {
    const lengths = [10, 20, 60], start = performance.now();
    await Promise.all(lengths.map(n => answer(api, `story ${n}`, n)));
    const ms = performance.now() - start;
    const t = await api.get('/cluster/timeline');
    check(t, 60);
    assert.ok(t.parts.total_ms <= ms && t.parts.total_ms > 0.5 * ms);
    const n2 = await api.get('/v1/completions', { prompt: 'twice', max_tokens: 8, n: 2 });
    assert.equal(n2.choices.length, 2);
    const u = await api.get('/cluster/timeline');
    assert.deepEqual([u.state, u.tokens, u.complete], ['done', 8, true]);
    near(listed(u.parts), u.ended_us / 1e3, 1e-6, 'the parts');
}));

test('a device that is stopped holds nobody up for long', withApi(slow, async (api, t, rig) => {
    await answer(api, 'one two', 5);
    rig.one.signal('SIGSTOP');
    const gone = new AbortController(); // who goes away is forgotten
    const lost = api.fetch('/cluster/timeline', undefined, { signal: gone.signal })
        .catch(() => 'gone');
    gone.abort();
    assert.equal(await lost, 'gone');
    const u = await api.get('/cluster/timeline');
    assert.equal(u.state, 'done');
    assert.equal(u.complete, false);
    near(listed(u.parts), u.parts.total_ms, 1e-6, 'the parts');
    rig.one.signal('SIGCONT');
    await api.alive();
}));
