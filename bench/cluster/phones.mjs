// Emulated phones: each device of a mix gets a control group with a CPU quota and a memory limit
// (versions 1 and 2 of control groups; the wrapper puts a process into its group before exec).
//
// All devices share one core, and their quotas sum to less than it has, so that never two of them
// compute at the same time: cores of one machine share its memory (and often what computes), and would
// slow each other as devices of their own do not. When several have work, the kernel shares the core
// out in proportion to the quotas, so that each has at any time at least what its quota says.
//
// A phone has more cores than the one that computes here: what else a device's program does (its sockets, the
// head's part) is a thread of its own, which is put into a group without a quota, on the machine's
// other cores, and so are the programs that ask. Else each step would wait in front of a thread that has
// used up its quota, for a period at worst. (With version 2 of control groups they stay together.)
//
// A quota is so much CPU time per period. Whatever begins after a pause would run at full speed until the
// share of this period is used up, and what the kernel kept of the last one: two periods' worth for
// nothing, a quarter of a short stage. So in each group an idler (idler.c) computes when nothing else does,
// at idle priority, and uses up what a phone at rest would not be owed later. Periods are 5 ms, and longer
// where 1 ms of CPU time, the least the kernel gives, makes them so. The kernel itself looks after quotas
// every 4 ms only: a pacer (pacer.c) makes it look twice per millisecond.
//
// A quota is CPU time, and what a core does in that changes by half on a machine that strangers share:
// lingua-bench-steady (steady.c) sees how quick the core is at the moment, and sets the quotas so that
// devices keep their speeds. Speed 1 is a core somewhat slower than this one at its best.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync,
    writeFileSync } from 'node:fs';
import { spawn, spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { join } from 'node:path';

const RUN_US = 1000, PERIOD_US = 5000, SHARES = 10000, FASTEST = 2; // steady.c's SLACK
const PREFIX = 'lingua-bench-';
export const CORES = 0.9; // of one: what is left over is for what the kernel does itself
const CORE = cpus().length - 1, OTHERS = CORE ? `0-${CORE - 1}` : '0';
const COMPUTES = 'compute'; // what that thread of lingua is called (src/device/worker.c)
const IO = '.io', SORT_MS = 100, HOLDER = 'steady';

// Speeds are relative; memory is the share of the model's bytes for which each device has room.
// None can hold the model alone, two or three can, and an equal split fits in all. The head, which
// has the model file, is the first. 1:1:1:0.2 is the most uneven: for many streams no plan can be
// more than 4 times as fast as the equal split. (Less than a tenth of a core, which is what its last
// device gets, no quota can emulate: each millisecond begins with cold caches.)
export const MIXES = [
    { name: 'equal', speeds: [1, 1, 1], room: 0.6 },
    { name: 'one-slow', speeds: [1, 1, 0.25], room: 0.6 },
    { name: 'falling', speeds: [1, 0.5, 0.25], room: 0.6 },
    { name: 'straggler', speeds: [1, 1, 1, 0.2], room: 0.5 },
    { name: 'five', speeds: [1, 0.7, 0.5, 0.3, 0.2], room: 0.4 },
];
export const LINKS = [
    { name: 'lan', words: '1 Gbit, 0.2 ms', rate: 1000, air: 0, delay: 0.2 },
    { name: 'wifi', words: '200 Mbit of shared air, 2 ms', rate: 0, air: 200, delay: 2 },
];

// Scaled to what this machine has.
export const quotas = mix => {
    const scale = Math.min(1, CORES / mix.speeds.reduce((a, b) => a + b, 0));
    return mix.speeds.map(s => s * scale);
};

// {version, cpu, memory}: where controllers are mounted; or a sentence.
function hierarchies() {
    const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n').map(l => l.split(' '));
    const v1 = what => mounts.find(m => m[2] === 'cgroup' && m[3].split(',').includes(what))?.[1];
    const v2 = mounts.find(m => m[2] === 'cgroup2')?.[1];
    if (v1('cpu') && v1('memory'))
        return { version: 1, cpu: v1('cpu'), memory: v1('memory') };
    const has = v2 ? readFileSync(join(v2, 'cgroup.controllers'), 'utf8').trim().split(' ') : [];
    if (has.includes('cpu') && has.includes('memory'))
        return { version: 2, cpu: v2, memory: v2 };
    return 'control groups here have no CPU and memory controllers';
}

// Why devices cannot be emulated here; '' when they can.
export function missing() {
    if (process.getuid() !== 0)
        return 'network namespaces and control groups need root';
    if (!existsSync('/dev/net/tun'))
        return 'there is no /dev/net/tun';
    const h = hierarchies();
    if (typeof h === 'string')
        return h;
    try {
        new Phones('').remove();
    } catch (e) {
        return `control groups cannot be made here (${e.message})`;
    }
    const lacks = ['setpriv', 'taskset'].find(p => spawnSync(p, ['--version']).status !== 0);
    return lacks ? `there is no ${lacks} (util-linux)` : '';
}

export class Phones {
    // build: the folder that has the programs which emulate (steady.c, idler.c, pacer.c).
    constructor(build) {
        Object.assign(this, hierarchies());
        this.idler = join(build, 'lingua-bench-idler');
        this.holds = join(build, 'lingua-bench-steady');
        this.paces = join(build, 'lingua-bench-pacer');
        this.roots = [...new Set([this.cpu, this.memory])];
        for (const root of this.roots)
            this.stale(root);
        this.base = `${PREFIX}${process.pid}`;
        for (const root of this.roots) {
            if (this.version === 2)
                writeFileSync(join(root, 'cgroup.subtree_control'), '+cpu +memory');
            mkdirSync(join(root, this.base));
            if (this.version === 2)
                writeFileSync(join(root, this.base, 'cgroup.subtree_control'), '+cpu +memory');
        }
        // What else this machine does must wait: it is no part of anybody's speed.
        this.write(this.cpu, '', ...(this.version === 1 ? ['cpu.shares', '262144']
            : ['cpu.weight', '10000']));
        this.names = [];
        this.idlers = new Map();
        this.sorter = setInterval(() => this.sort(), SORT_MS);
        this.sorter.unref();
    }

    // Threads into the groups they belong to: the one that computes under the quota, the others of
    // its program beside it. A program that has no such thread (yet) computes itself.
    sort() {
        for (const name of this.version === 2 ? [] : this.names) {
            for (const id of this.threads(name))
                if (comm(id) !== COMPUTES && hasCompute(id))
                    this.moveThread(id, name + IO);
            for (const id of this.threads(name + IO))
                if (comm(id) === COMPUTES)
                    this.moveThread(id, name);
        }
    }
    threads(name) {
        try {
            return readFileSync(join(this.cpu, this.base, name, 'tasks'), 'utf8').split('\n')
                .filter(Boolean);
        } catch {
            return []; // made a moment later, or gone
        }
    }
    moveThread(id, to) {
        try {
            this.write(this.cpu, to, 'tasks', id);
            spawnSync('taskset', ['-pc', to.endsWith(IO) ? OTHERS : `${CORE}`, id]);
        } catch {
            // it has just ended
        }
    }

    write(root, name, file, value) {
        writeFileSync(join(root, this.base, name, file), String(value));
    }

    // speed: cores; memory: bytes, 0 = no limit.
    set(name, speed, memory = 0) {
        if (!this.names.includes(name)) {
            for (const root of this.roots)
                mkdirSync(join(root, this.base, name));
            if (this.version === 1)
                mkdirSync(join(this.cpu, this.base, name + IO), { recursive: true });
            this.names.push(name);
        }
        if (name !== HOLDER && !this.idlers.has(name))
            this.idle(name);
        this.speed(name, speed);
        const limit = memory || (this.version === 1 ? -1 : 'max');
        if (this.version === 2) {
            this.write(this.memory, name, 'memory.max', limit);
            return;
        }
        this.write(this.memory, name, 'memory.limit_in_bytes', -1);
        this.write(this.memory, name, 'memory.limit_in_bytes', limit);
    }

    idle(name) {
        const argv = this.wrap(name, [this.idler]);
        this.idlers.set(name, spawn(argv[0], argv.slice(1), { stdio: 'ignore' }));
    }
    // The phones are put away, and leave the core to others, until they are set again.
    rest() {
        this.idlers.forEach(p => p.kill('SIGKILL'));
        this.idlers.clear();
    }

    // Starts the programs that keep quotas and hold the speeds; resolves when the core is known.
    async hold() {
        this.set(HOLDER, 1);
        this.pacer = spawn('setpriv', ['--pdeathsig', 'KILL', 'taskset', '-c', `${CORE}`, this.paces],
            { stdio: ['ignore', 'ignore', 'inherit'] });
        const argv = this.wrap(HOLDER, [this.holds]);
        this.holder = spawn(argv[0], argv.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
        await new Promise((done, fail) => {
            this.holder.stdout.once('data', done);
            this.holder.once('close', () => fail(new Error(`${this.holds} ended`)));
        });
        this.holder.stdout.on('data', d => { this.held = String(d).trim(); });
    }
    // Ends it; what it has to say about the time.
    async letGo() {
        const over = new Promise(done => this.holder.once('close', done));
        this.holder.stdin.end();
        await over;
        return this.held;
    }

    // periodUs: 0 = as usual.
    speed(name, speed, periodUs = 0) {
        const period = periodUs || Math.max(PERIOD_US, Math.ceil(FASTEST * RUN_US / speed));
        const quota = Math.max(RUN_US, Math.round(speed * period));
        const share = Math.max(2, Math.round(SHARES * Math.min(1, speed)));
        const file = join(this.cpu, this.base, name);
        if (this.version === 2) {
            this.write(this.cpu, name, 'cpu.weight', share);
            this.write(this.cpu, name, 'cpu.max', `${quota} ${period}`);
            this.holder?.stdin.write(`${file}/cpu.max ${speed} ${period} ${period}\n`);
            return;
        }
        this.write(this.cpu, name, 'cpu.shares', share);
        this.write(this.cpu, name, 'cpu.cfs_quota_us', -1);
        this.write(this.cpu, name, 'cpu.cfs_period_us', period);
        this.write(this.cpu, name, 'cpu.cfs_quota_us', quota);
        this.holder?.stdin.write(`${file}/cpu.cfs_quota_us ${speed} ${period}\n`);
    }

    // The command within the group, on the devices' core; it dies with us, whatever ends us.
    wrap(name, argv) { return this.wrapIn(name, name, `${CORE}`, argv); }
    // A program of the device's owner, beside what computes.
    wrapBeside(name, argv) {
        return this.version === 2 ? this.wrap(name, argv)
            : this.wrapIn(name, name + IO, OTHERS, argv);
    }
    wrapIn(name, group, cores, argv) {
        const into = this.roots.map(r => 'echo $$ > ' +
            `${join(r, this.base, r === this.cpu ? group : name)}/cgroup.procs`);
        return ['setpriv', '--pdeathsig', 'KILL', 'taskset', '-c', cores, 'sh', '-c', `${into.join(' && ')} && exec "$@"`,
            'sh', ...argv];
    }

    // How often the kernel had to kill somebody in there for want of memory.
    kills(name) {
        const file = this.version === 1 ? 'memory.oom_control' : 'memory.events';
        const text = readFileSync(join(this.memory, this.base, name, file), 'utf8');
        return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
    }

    remove() {
        clearInterval(this.sorter);
        this.pacer?.kill('SIGKILL');
        this.rest();
        for (const root of this.roots)
            removeTree(join(root, this.base));
    }

    // Of a bench that was killed.
    stale(root) {
        for (const name of readdirSync(root))
            if (name.startsWith(PREFIX) && !existsSync(`/proc/${name.slice(PREFIX.length)}`))
                removeTree(join(root, name));
    }
}

function comm(id) {
    try {
        return readFileSync(`/proc/${id}/comm`, 'utf8').trim();
    } catch {
        return '';
    }
}

function hasCompute(id) {
    try {
        return readdirSync(`/proc/${id}/task`).some(t => comm(t) === COMPUTES);
    } catch {
        return false;
    }
}

// A group can go when its processes have: those that are left are ended.
function removeTree(path) {
    if (!existsSync(path))
        return;
    for (const e of readdirSync(path, { withFileTypes: true }))
        if (e.isDirectory())
            removeTree(join(path, e.name));
    for (let tries = 0; ; tries++) {
        try {
            rmdirSync(path);
            return;
        } catch (e) {
            if (e.code === 'ENOENT' || tries > 100)
                return;
        }
        const left = readFileSync(join(path, 'cgroup.procs'), 'utf8');
        for (const pid of left.split('\n').filter(Number))
            try {
                process.kill(Number(pid), 'SIGKILL');
            } catch {
                // it has just ended
            }
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    }
}
