// A cluster on machines of its own, for benches and live tests: `lingua serve` on machine 0 and
// `lingua join` on the others, each in a network namespace behind the switch (cluster-net says
// how), or all on this machine's loopback. Everything it writes is below one folder, and everything it
// started ends with close().
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, openSync, closeSync, readFileSync, existsSync, copyFileSync } from 'node:fs';
import { join, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

const clusterNet = join(dirname(fileURLToPath(import.meta.url)), 'cluster-net');
export const SKIP = 77;

export { sleep };

// Waits until what() gives something true, which is returned; dies with words when it never does.
export async function until(words, what, seconds = 60) {
    for (const end = Date.now() + 1000 * seconds; ;) {
        const got = await what();
        if (got)
            return got;
        if (Date.now() > end)
            throw new Error(`${words}: not within ${seconds} s`);
        await sleep(20);
    }
}

// The switch and its namespaces.
export class Net {
    constructor(n, switchPath) {
        this.n = n;
        // Into our own environment: commands of its machines are run from everywhere.
        process.env.CLUSTER_NET = `lg${process.pid}`;
        process.env.LINGUA_NETSWITCH = switchPath;
        const r = spawnSync(clusterNet, ['up', String(n), '--owner', String(process.pid)],
            { stdio: ['ignore', 'inherit', 'inherit'] });
        if (r.status === SKIP) {
            console.log('SKIPPED: needs root and /dev/net/tun');
            process.exit(SKIP);
        }
        if (r.status !== 0)
            throw new Error(`cluster-net up ended with ${r.status}`);
    }
    address(i) { return `10.77.0.${i + 1}`; }
    command(i, argv) { return [clusterNet, 'exec', String(i), ...argv]; }
    ctl(...words) {
        const r = spawnSync(clusterNet, ['ctl', ...words.map(String)]);
        if (r.status !== 0)
            throw new Error(`cluster-net ctl ${words.join(' ')}: ${r.stderr}`);
    }
    down() { spawnSync(clusterNet, ['down']); }
}

// The same without machines: every process on this one, over loopback.
export class Loopback {
    constructor(n) { this.n = n; }
    address() { return '127.0.0.1'; }
    command(i, argv) { return argv; }
    down() {}
}

const of = (list, i) => typeof list === 'function' ? list(i) : list;

export class Cluster {
    // opts: lingua (path), net, model (path or ''), work (folder), serve and join (more arguments;
    // join may be functions of the machine), wrap (a function (i, argv) => argv around each
    // process; i is -1 for programs that use the cluster).
    constructor(opts) {
        Object.assign(this, { serve: [], join: [], wrap: (i, argv) => argv }, opts);
        this.procs = [];
        mkdirSync(this.work, { recursive: true });
    }
    state(i) { return join(this.work, `m${i}`); }
    log(i) { return readFileSync(join(this.work, `m${i}.log`), 'utf8'); }

    start(i, args, env = {}) {
        const log = openSync(join(this.work, `m${i}.log`), 'a', 0o600);
        const argv = this.net.command(i, this.wrap(i, [this.lingua, ...args]));
        const p = spawn(argv[0], argv.slice(1),
            { env: { ...process.env, ...env }, stdio: ['ignore', log, log] });
        closeSync(log);
        p.on('exit', (code, signal) => { p.over = { code, signal }; });
        this.procs[i] = p;
        return p;
    }

    // Without the API, which costs memory and a port, unless `serve` says where it listens.
    startHead(more = []) {
        const serve = of(this.serve, 0), api = serve.includes('--port') ? [] : ['--no-api'];
        return this.start(0, ['serve', ...(this.model ? [this.model] : []), '--name', 'm0',
            '--state', this.state(0), '--listen', `${this.net.address(0)}:0`, '--threads', '1',
            ...api, ...serve, ...more]);
    }

    // Joins by the address, or (address null) by looking for a head on the network. The head's own
    // speed is what every device is said to have, so that the plan is the same each time; with
    // `measure` set each finds its own.
    startDevice(i, address) {
        if (!existsSync(this.state(i)) && !this.measure) {
            mkdirSync(this.state(i), { mode: 0o700 });
            copyFileSync(join(this.state(0), 'profile'), join(this.state(i), 'profile'));
        }
        const known = existsSync(`${this.state(i)}/cluster`);
        const env = known ? {} : { LINGUA_TOKEN: this.ask(['devices', 'invite']).trim() };
        return this.start(i, ['join', ...(address ? [address] : []), '--name', `m${i}`, '--state',
            this.state(i), '--listen', `${this.net.address(i)}:0`, '--threads', '1',
            ...of(this.join, i)], env);
    }

    // Runs lingua to its end, on machine 0; what it wrote to stdout.
    ask(args) {
        const r = spawnSync(this.lingua, [...args, '--state', this.state(0)],
            { maxBuffer: 1 << 28, encoding: 'utf8' });
        if (r.status !== 0)
            throw new Error(`lingua ${args.join(' ')}: status ${r.status}: ${r.stderr}`);
        return r.stdout;
    }
    devices() {
        try {
            return JSON.parse(this.ask(['devices', '--json']));
        } catch {
            return null;
        }
    }
    device(name) { return this.devices()?.devices.find(d => d.name === name); }

    // Until n devices hold a part and the cluster answers.
    async ready(n, seconds = 120) {
        return until(`${n} devices ready`, async () => {
            this.procs.forEach((p, i) => {
                if (p?.over && !p.ending)
                    throw new Error(`m${i} ended:\n${this.log(i).slice(-600)}`);
            });
            const d = this.devices();
            const nReady = d?.devices.filter(x => x.state === 'ready').length;
            return d?.state === 'running' && nReady === n && d;
        }, seconds);
    }

    // All of it, without waiting for a plan.
    async begin(n = this.net.n) {
        this.startHead();
        const address = (await until('the head', () => this.devices())).address;
        this.address = address;
        for (let i = 1; i < n; i++) {
            this.startDevice(i, address);
            await until(`m${i} here`, () => (this.device(`m${i}`)?.address ?? '') !== '');
        }
    }
    async up(n = this.net.n) {
        await this.begin(n);
        return this.ready(n);
    }
    // A plan that has held for a while, with all devices or without some.
    async settled() {
        let epoch = 0, since = 0;
        return until('a plan', () => {
            const d = this.devices();
            const calm = d?.state === 'running' &&
                d.devices.every(x => /^(ready|idle)$/.test(x.state));
            if (!calm || d.epoch !== epoch)
                since = Date.now();
            epoch = d?.epoch;
            return calm && Date.now() - since > 1500 && d;
        }, 120);
    }

    // A generation by the cluster that is under way: {out, err, status, process, over: a promise of
    // itself}.
    launch(args) {
        const argv = this.wrap(-1,
            [this.lingua, 'run', '--cluster', '--state', this.state(0), ...args]);
        const p = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
        const run = { out: '', err: '', status: undefined, process: p };
        p.stdout.on('data', d => { run.out += d; });
        p.stderr.on('data', d => { run.err += d; });
        run.over = new Promise(done => p.on('close', status => {
            run.status = status;
            done(run);
        }));
        return run;
    }
    // And to its end: {text, tokens, timings, ...}; the trace goes to that file.
    async run(args, trace) {
        const more = trace ? ['--trace', trace] : [];
        const run = await this.launch(['--json', ...args, ...more]).over;
        if (run.status !== 0)
            throw new Error(`lingua run --cluster: status ${run.status}: ${run.err}`);
        return JSON.parse(run.out);
    }

    async stop(i, signal = 'SIGTERM') {
        const p = this.procs[i];
        if (!p || p.over)
            return;
        p.ending = true;
        p.kill(signal);
        await until(`the end of m${i}`, () => p.over, 20);
    }
    async close() {
        for (const p of this.procs)
            if (p && !p.over) {
                p.ending = true;
                p.kill('SIGKILL');
            }
        await until('the end', () => this.procs.every(p => !p || p.over), 20);
    }
}

// The spans of a trace of ours: [{cat, device, step, stage, rows, begin, end}], in ms.
export function spans(trace) {
    return trace.traceEvents.filter(e => e.ph === 'X').map(e => ({
        cat: e.cat, device: e.pid, ...e.args, begin: e.ts / 1000, end: (e.ts + e.dur) / 1000,
    }));
}

export const median = list => {
    const s = [...list].sort((a, b) => a - b), n = s.length;
    return n % 2 ? s[(n - 1) / 2] : (s[n / 2 - 1] + s[n / 2]) / 2;
};
