// Emulated phones: each device of a mix gets a control group with a CPU quota and a memory limit
// (versions 1 and 2 of control groups; the wrapper puts a process into its group before exec).
//
// A quota is so much CPU time per period. Whatever a device begins after a pause runs at full speed
// until the period's share is used up, so a piece of work of W ms on a device of speed s takes
// W / s less (1 - s) periods at most: long periods make short pieces look fast. But where several devices
// want the same core, one may have to wait a whole tick of the kernel (4 ms) for its turn, and what
// it does not use in a period is lost: with periods of 2 ms three busy devices lost 5 to 15 %, with
// 5 ms nothing. So periods are 5 ms, and longer where 1 ms of CPU time, the least the kernel gives,
// makes them so. --calibrate measures all that.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync,
    writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { join } from 'node:path';

const RUN_US = 1000, PERIOD_US = 5000, PREFIX = 'lingua-bench-';
export const CORES = Math.min(1.6, 0.8 * cpus().length);

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
        new Phones().remove();
    } catch (e) {
        return `control groups cannot be made here (${e.message})`;
    }
    const has = spawnSync('setpriv', ['--version']).status === 0;
    return has ? '' : 'there is no setpriv (util-linux)';
}

export class Phones {
    constructor() {
        Object.assign(this, hierarchies());
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
    }

    write(root, name, file, value) {
        writeFileSync(join(root, this.base, name, file), String(value));
    }

    // speed: cores; memory: bytes, 0 = no limit.
    set(name, speed, memory = 0) {
        if (!this.names.includes(name)) {
            for (const root of this.roots)
                mkdirSync(join(root, this.base, name));
            this.names.push(name);
        }
        this.speed(name, speed);
        const limit = memory || (this.version === 1 ? -1 : 'max');
        if (this.version === 2) {
            this.write(this.memory, name, 'memory.max', limit);
            return;
        }
        this.write(this.memory, name, 'memory.limit_in_bytes', -1);
        this.write(this.memory, name, 'memory.limit_in_bytes', limit);
    }

    // periodUs: 0 = as usual.
    speed(name, speed, periodUs = 0) {
        const period = periodUs || Math.max(PERIOD_US, Math.ceil(RUN_US / speed));
        const quota = Math.max(RUN_US, Math.round(speed * period));
        if (this.version === 2) {
            this.write(this.cpu, name, 'cpu.max', `${speed >= 1 ? 'max' : quota} ${period}`);
            return;
        }
        this.write(this.cpu, name, 'cpu.cfs_quota_us', -1);
        this.write(this.cpu, name, 'cpu.cfs_period_us', period);
        this.write(this.cpu, name, 'cpu.cfs_quota_us', speed >= 1 ? -1 : quota);
    }

    // The command within the group; it dies with us, whatever ends us.
    wrap(name, argv) {
        const into = this.roots.map(r => `echo $$ > ${join(r, this.base, name)}/cgroup.procs`);
        return ['setpriv', '--pdeathsig', 'KILL', 'sh', '-c', `${into.join(' && ')} && exec "$@"`,
            'sh', ...argv];
    }

    // How often the kernel had to kill somebody in there for want of memory.
    kills(name) {
        const file = this.version === 1 ? 'memory.oom_control' : 'memory.events';
        const text = readFileSync(join(this.memory, this.base, name, file), 'utf8');
        return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
    }

    remove() {
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
