// A cluster of real processes for one test: head and devices in state folders of their own, all of
// which go when the test is over. What they said is shown when it has failed.
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync,
    renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeModel } from './gguf.mjs';

const lingua = process.env.LINGUA_PROGRAM;
const models = process.env.LINGUA_MODELS;
const work = process.env.LINGUA_TEST_DIR;
const clusterNet = fileURLToPath(new URL('../../../bench/net/cluster-net', import.meta.url));
const machineAddress = i => `10.77.0.${i + 1}`;

// For ctest: the whole file cannot be run here.
export function skipFile(why) {
    console.log(`SKIPPED: ${why}`);
    process.exit(77);
}

for (const [name, value] of Object.entries({ LINGUA_PROGRAM: lingua, LINGUA_TEST_DIR: work }))
    if (!value)
        skipFile(`${name} is not set`);
if (!existsSync(lingua))
    skipFile(`${lingua} is not there`);

export const defaultModel = () => {
    const file = path.join(models ?? '', 'stories15M-q8_0.gguf');
    return existsSync(file) ? file : skipFile(`${file} is not there`);
};
// Made once for all tests: of random weights, an answer of it ends only where it is told to.
export const endlessModel = (layers = 6) => {
    mkdirSync(work, { recursive: true });
    return writeModel(path.join(work, `endless-${layers}.gguf`), layers);
};

export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

// Waits until what() is true (or truthy, which is returned).
export async function until(what, about, ms = 30000) {
    const end = Date.now() + ms;
    for (;;) {
        const value = await what();
        if (value)
            return value;
        if (Date.now() > end)
            throw new Error(`never came, in ${ms / 1000} s: ${about}`);
        await sleep(50);
    }
}

// Whatever becomes of the tests, what they started ends with them.
const living = new Set();
process.on('exit', () => living.forEach(p => p.process.kill('SIGKILL')));
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'])
    process.on(signal, () => process.exit(1));

// A running program. err: what it said so far; lines: the same with the time of each.
class Program {
    constructor(rig, name, args, env = {}, machine = undefined) {
        const on = machine === undefined ? [] : [clusterNet, 'exec', String(machine)];
        const [program, ...rest] = [...on, lingua, ...args];
        this.name = name;
        this.out = '';
        this.err = '';
        this.lines = [];
        this.code = undefined;
        this.began = Date.now();
        this.process = spawn(program, rest, { env: { ...rig.env, ...env },
            stdio: ['ignore', 'pipe', 'pipe'] });
        this.process.stdout.on('data', b => { this.out += b; });
        this.process.stderr.on('data', b => this.hear(String(b)));
        this.exited = new Promise(resolve => this.process.on('close', (code, signal) => {
            this.code = code ?? signal;
            this.ended = Date.now();
            resolve(this.code);
        }));
        rig.programs.push(this);
        living.add(this);
        this.exited.then(() => living.delete(this));
    }

    hear(text) {
        const whole = this.err.slice(this.err.lastIndexOf('\n') + 1) + text;
        this.err += text;
        whole.split('\n').slice(0, -1).forEach(line => this.lines.push({ at: Date.now(), line }));
    }

    get pid() { return this.process.pid; }
    get running() { return this.code === undefined; }
    signal(name) { this.process.kill(name); }
    async kill(name = 'SIGKILL') {
        if (this.running)
            this.signal(name);
        return this.exited;
    }
    // Its exit status, as soon as it has one.
    async end(ms = 30000) {
        await until(() => !this.running, `the end of ${this.name}`, ms);
        return this.code;
    }
    count(pattern) { return this.lines.filter(l => pattern.test(l.line)).length; }
    async says(pattern, ms) {
        await until(() => pattern.test(this.err) || !this.running, `${this.name}: ${pattern}`, ms);
        if (!pattern.test(this.err))
            throw new Error(`${this.name} ended (${this.code}) without saying ${pattern}`);
        return pattern.exec(this.err);
    }
    // Where it listens: "127.0.0.1:40123".
    get listens() {
        const fds = readdirSync(`/proc/${this.pid}/fd`).map(fd => {
            try {
                return readlinkSync(`/proc/${this.pid}/fd/${fd}`);
            } catch {
                return '';
            }
        });
        for (const line of readFileSync(`/proc/${this.pid}/net/tcp`, 'utf8').split('\n')) {
            const f = line.trim().split(/\s+/);
            if (f[3] === '0A' && fds.includes(`socket:[${f[9]}]`))
                return `127.0.0.1:${parseInt(f[1].split(':')[1], 16)}`;
        }
        throw new Error(`${this.name} listens nowhere`);
    }
    // Resident, in KiB.
    get resident() {
        const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
        return Number(/VmRSS:\s+(\d+)/.exec(status)[1]);
    }
}

class Rig {
    constructor() {
        mkdirSync(work, { recursive: true });
        this.folder = mkdtempSync(path.join(work, 't-'));
        this.programs = [];
        this.closers = [];
        this.env = { ...process.env, XDG_STATE_HOME: `${this.folder}/xdg-state`,
            XDG_CACHE_HOME: `${this.folder}/xdg-cache`, LINGUA_TOKEN: '' };
        delete this.env.LINGUA_TOKEN;
    }

    state(name) { return path.join(this.folder, name); }

    start(name, args, env, machine) { return new Program(this, name, args, env, machine); }

    // A network of n machines with a switch between them (bench/net); why not, when there can be
    // none here. After it serve and join take {machine}.
    network(n) {
        const net = (...args) => spawnSync(clusterNet, args, { env: this.env, encoding: 'utf8' });
        this.env.CLUSTER_NET = path.basename(this.folder);
        const up = net('up', String(n), '--owner', String(process.pid));
        if (up.status === 77)
            return up.stderr.trim();
        if (up.status !== 0)
            throw new Error(up.stderr);
        this.closers.push(() => net('down'));
        this.net = net;
        return '';
    }

    // Runs to the end.
    async lingua(...args) {
        const p = this.start(args[0], args);
        await p.end(60000);
        return p;
    }

    // plan: by what devices cost. Else in equal parts, so that everybody has one, whatever the
    // machine was doing while it was measured.
    async serve({ model, args = [], threads = 1, machine, 
        plan = args.some(a => /^--(split|private|memory)$/.test(a)),
        listen = machine === undefined ? '127.0.0.1:0' : `${machineAddress(machine)}:0` } = {}) {
        if (!plan)
            args = ['--equal', ...args];
        this.sameSpeed('head', `${work}/profile`);
        this.head = this.start('head', ['serve', model, '--state', this.state('head'), '--name',
            'head', '--listen', listen, '--port', '0', '--no-announce', '--threads', String(threads), '--verbose',
            ...args], {}, machine);
        await this.head.says(/reached at (\S+),/);
        await until(() => existsSync(`${this.state('head')}/head.sock`), 'the head\'s socket');
        this.address = /reached at (\S+),/.exec(this.head.err)[1];
        this.keepSpeed();
        return this.head;
    }

    async devices() {
        const p = await this.quiet('devices', '--json', '--state', this.state('head'));
        if (p.code !== 0)
            throw new Error(`devices: ${p.err}`);
        return JSON.parse(p.out);
    }

    // The folder of a device that no cluster knows: it has a key, and that is all.
    async stranger(name) {
        const p = this.start(name, ['join', '127.0.0.1:1', '--state', this.state(name)],
            { LINGUA_TOKEN: await this.invite() });
        await until(() => existsSync(`${this.state(name)}/identity.pem`), `${name}'s key`);
        await p.kill();
        return this.state(name);
    }

    async device(name) {
        return (await this.devices()).devices.find(d => d.name === name);
    }

    // As lingua(), but not among what is shown when the test fails.
    async quiet(...args) {
        const p = await this.lingua(...args);
        this.programs = this.programs.filter(q => q !== p);
        return p;
    }

    async invite() {
        const p = await this.quiet('devices', 'invite', '--state', this.state('head'));
        return p.out.trim();
    }

    // All run on one machine, so all are as fast as the head, whatever else the machine did while
    // each measured itself: so plans do not depend on luck. And measuring takes seconds: what one
    // test's head found out is kept for the others.
    sameSpeed(name, from = `${this.state('head')}/profile`) {
        if (existsSync(`${this.state(name)}/profile`) || !existsSync(from))
            return;
        mkdirSync(this.state(name), { recursive: true, mode: 0o700 });
        copyFileSync(from, `${this.state(name)}/profile`);
    }
    keepSpeed() {
        const own = `${work}/profile.${process.pid}`;
        copyFileSync(`${this.state('head')}/profile`, own);
        renameSync(own, `${work}/profile`);
    }

    // Pairs the device when it has no token yet; address: another way to the head.
    async join(name, { address = this.address, args = [], token, machine } = {}) {
        const env = {};
        this.sameSpeed(name);
        if (token || !existsSync(`${this.state(name)}/cluster`))
            env.LINGUA_TOKEN = token ?? await this.invite();
        return this.start(name, ['join', ...(address ? [address] : []), '--state',
            this.state(name), '--name', name, '--listen',
            machine === undefined ? '127.0.0.1:0' : `${machineAddress(machine)}:0`, '--threads',
            '1', '--verbose', ...args], env, machine);
    }

    // Until exactly these devices (beside the head) do the work.
    async ready(names, ms = 40000) {
        return until(async () => {
            const all = await this.devices();
            const at = all.devices.filter(d => d.state === 'ready' && d.modules && !d.head);
            const right = at.length === names.length &&
                names.every(n => at.some(d => d.name === n));
            return all.state === 'running' && right && all;
        }, `ready: ${names.join(', ') || 'the head alone'}`, ms);
    }

    ask(prompt, n, ...more) {
        return this.start('run', ['run', '--cluster', '--state', this.state('head'), '-p', prompt,
            '--temp', '0', '-n', String(n), ...more]);
    }

    // The tokens of an answer; model: by this program alone, without the cluster.
    async tokens(prompt, n, model) {
        const p = model ? this.start('alone', ['run', model, '-p', prompt, '--temp', '0', '-n',
            String(n), '--threads', '1', '--ctx', '4096', '--json'])
            : this.ask(prompt, n, '--json');
        await p.end(90000);
        if (p.code !== 0)
            throw new Error(`run: exit status ${p.code}: ${p.err}`);
        return JSON.parse(p.out).tokens;
    }

    async close(failed) {
        for (const p of this.programs)
            if (p.running) {
                p.signal('SIGCONT');
                p.signal('SIGKILL');
            }
        await Promise.all(this.programs.map(p => p.exited));
        for (const close of this.closers.reverse())
            await close();
        if (failed || process.env.LINGUA_TEST_SHOW)
            for (const p of this.programs)
                console.log(`---- ${p.name} (${p.code})\n${tail(p, 60)}`);
        rmSync(this.folder, { recursive: true, force: true });
    }
}

function tail(p, n) {
    const text = l => `${((l.at - p.began) / 1000).toFixed(2)} ${l.line}`;
    return p.lines.slice(-n).map(text).join('\n');
}

// A test with a rig of its own.
export function withRig(body) {
    return async t => {
        const rig = new Rig();
        let failed = true;
        try {
            await body(rig, t);
            failed = false;
        } finally {
            await rig.close(failed);
        }
    };
}

// ---- the cache of a device, as it lies on its disk (src/device/mirror.h) ----

export function cacheModels(rig, name) {
    const folder = `${rig.state(name)}/cache`;
    const entries = existsSync(folder) ? readdirSync(folder).map(f => `${folder}/${f}`) : [];
    return entries.filter(f => statSync(f).isDirectory());
}

// {file: the mirror, received: the bytes that came of each part}
export function cacheOf(rig, name) {
    const models = cacheModels(rig, name);
    if (models.length !== 1)
        throw new Error(`${name} has ${models.length} models in its cache`);
    const bytes = readFileSync(`${models[0]}/state`), received = [];
    for (let at = 0; at + 24 <= bytes.length; at += 24)
        received.push(Number(bytes.readBigUInt64LE(at)));
    return { file: `${models[0]}/model.gguf`, received };
}
