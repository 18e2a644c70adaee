// Three devices, none of which could hold the model, each in a control group that ends it when it
// takes more than its --memory budget and 5 %. All load, answer a long prompt, and stay within;
// what each took at most is printed beside what the plan said.
//
// A control group counts file pages too, and keeps as many as fit, so its own peak says nothing
// once a file is larger than the limit. What counts is that nobody is killed (there is no swap to
// hide in, or it is off for the group), and the process's own peak, VmHWM: all its resident pages,
// those of mapped weights among them. That is measured with budgets alone, where nothing pushes
// pages out, and again under the control groups.
// usage: cluster_memory.mjs path/to/lingua path/to/lingua-test-model
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync,
    rmSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Loopback, Cluster, SKIP } from '../../bench/net/machines.mjs';

const [lingua, testModel] = process.argv.slice(2);
const N = 3, MB = 1e6, SLACK = 0.02, OVER = 0.05;
const folder = mkdtempSync(join(tmpdir(), 'lingua-memory-'));
const model = join(folder, 'model.gguf');

// ---- control groups ----

const v1 = existsSync('/sys/fs/cgroup/memory/memory.limit_in_bytes');
const root = v1 ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup';
const limitFile = v1 ? 'memory.limit_in_bytes' : 'memory.max';
const group = i => join(root, `lingua-test-${process.pid}-${i}`);

function groupsMake() {
    try {
        if (!v1 && !readFileSync(join(root, 'cgroup.subtree_control'), 'utf8').includes('memory'))
            writeFileSync(join(root, 'cgroup.subtree_control'), '+memory');
        for (let i = 0; i < N; i++) {
            mkdirSync(group(i));
            writeFileSync(join(group(i), limitFile), String(1 << 30));
        }
    } catch (e) {
        groupsRemove();
        console.log(`SKIPPED: no control groups for memory can be made here (${e.message})`);
        process.exit(SKIP);
    }
}

// Memory and, where it is counted, memory and swap together, in the order that lowering wants.
function limit(i, bytes) {
    const files = [limitFile, ...(v1 ? ['memory.memsw.limit_in_bytes'] : [])];
    for (const name of files)
        if (existsSync(join(group(i), name)))
            writeFileSync(join(group(i), name), String(bytes));
    if (!v1 && existsSync(join(group(i), 'memory.swap.max')))
        writeFileSync(join(group(i), 'memory.swap.max'), '0');
}

function kills(i) {
    const text = readFileSync(join(group(i), v1 ? 'memory.oom_control' : 'memory.events'), 'utf8');
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
}

function groupsRemove() {
    for (let i = 0; i < N; i++)
        for (let tries = 0; existsSync(group(i)) && tries < 100; tries++)
            try {
                rmdirSync(group(i));
            } catch {
                spawnSync('sleep', ['0.02']); // a process in it is not quite gone
            }
}

const inGroup = (i, argv) =>
    i < 0 ? argv : ['sh', '-c', 'echo $$ >"$0/cgroup.procs" && exec "$@"', group(i), ...argv];

// ---- a run ----

const ask = ['-p', 'a'.repeat(508), '--temp', '0', '-n', '64'];
let cluster = null;
process.on('exit', () => {
    cluster?.procs.forEach(p => p?.kill('SIGKILL'));
    groupsRemove();
    rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => process.exit(1));

const status = (p, key) =>
    1024 * Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm')
        .exec(readFileSync(`/proc/${p.pid}/status`, 'utf8'))[1]);

// Pages of the file that lie in memory already would be charged to nobody here.
function forgetPages(path) {
    spawnSync('dd', [`of=${path}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0'],
        { stdio: 'ignore' });
}

// Brings it up, asks, and gives what each device took; budgets null: no limits.
async function run(name, budgets, wrap) {
    const budget = i => budgets ? ['--memory', String(Math.ceil(budgets[i]))] : [];
    const c = cluster = new Cluster({
        lingua, model, net: new Loopback(N), work: join(folder, name), wrap,
        measure: budgets !== null,
        // Without budgets in equal parts, so that all have one.
        serve: i => ['--no-announce', '--ctx', '1024', '--slots', '1',
            ...budgets ? budget(i) : ['--equal']],
        join: budget,
    });
    forgetPages(model);
    await c.up();
    const got = await c.run(ask);
    assert.equal(got.timings.prompt_tokens, 512);
    const devices = c.devices().devices;
    const list = devices.map((d, i) => ({
        name: d.name, modules: d.modules, planned: d.planned_bytes,
        peak: status(c.procs[i], 'VmHWM'), anon: status(c.procs[i], 'RssAnon'),
    }));
    assert.equal(c.procs.filter(p => p.over).length, 0, 'all live');
    await c.close();
    rmSync(c.work, { recursive: true });
    return { list, tokens: got.tokens };
}

// Measuring the speed takes a large matrix where nothing forbids it: that run's peak says nothing.
const mb = v => (v / MB).toFixed(1).padStart(7);
function show(title, list, budgets) {
    console.log(`${title} (MB)\ndevice  budget planned    peak    anon  peak/budget`);
    list.forEach((d, i) => console.log(`${d.name}     ${mb(budgets[i])} ${mb(d.planned)} ` +
        `${mb(d.peak)} ${mb(d.anon)}  ${(d.peak / budgets[i]).toFixed(3)}  ${d.modules}`));
}

groupsMake();
const made = spawnSync(testModel, ['wide:6', model], { encoding: 'utf8' });
assert.equal(made.status, 0, made.stderr);
// What the plan says each device takes, with room to spare; the budgets are that and 2 %.
const free = await run('free', null, (i, argv) => argv);
const budgets = free.list.map(d => d.planned * (1 + SLACK));
show('without budgets', free.list, budgets);

const asked = await run('budget', budgets, (i, argv) => argv);
show('with budgets', asked.list, budgets);
for (let i = 0; i < N; i++)
    limit(i, Math.floor(budgets[i] * (1 + OVER)));
const held = await run('held', budgets, inGroup);
show('with budgets and control groups', held.list, budgets);
assert.deepEqual(held.tokens, free.tokens, 'another text');
for (let i = 0; i < N; i++) {
    assert.equal(kills(i), 0, `the kernel ended m${i}`);
    for (const r of [asked, held])
        assert.ok(r.list[i].peak <= budgets[i] * (1 + OVER),
            `m${i}: ${mb(r.list[i].peak)} MB resident with a budget of ${mb(budgets[i])} MB`);
}
process.exit(0);
