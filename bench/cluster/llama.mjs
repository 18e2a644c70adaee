// llama.cpp's RPC on the same machines, where its binaries are: a folder with ggml-rpc-server and
// llama-batched-bench, or the root of a system that has them installed (Debian's llama.cpp-tools,
// llama.cpp-tools-extra and libggml0-backend-rpc), which is entered with chroot.
//
// The head computes on its own CPU and offloads the rest: -ngl says how many layers go to the
// servers, --tensor-split shares them out evenly, so that every device has an equal part. One run
// of llama-batched-bench gives one sequence and STREAMS of them (which it decodes as one batch).
// Budgets do not hold for it: its groups have no memory limit.
import { closeSync, copyFileSync, existsSync, linkSync, openSync, readdirSync,
    rmSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { sleep } from '../net/machines.mjs';
import { STREAMS } from './cluster.mjs';

const PORT = 50052, HTTP_PORT = 8081, MODEL = 'lingua-bench-model.gguf', SECONDS = 300;

function serverIn(root) {
    const lib = join(root, 'usr/libexec');
    const folders = existsSync(lib) ? readdirSync(lib).map(t => `/usr/libexec/${t}/llama/bin`) : [];
    return [...folders, '/usr/bin'].map(f => `${f}/ggml-rpc-server`)
        .find(f => existsSync(join(root, f)));
}

export class Llama {
    constructor(folder) {
        this.words = 'llama.cpp: not present';
        this.there = false;
        const plain = ['ggml-rpc-server', 'rpc-server'].map(n => join(folder || '/', n))
            .find(f => folder && existsSync(f));
        if (plain && existsSync(join(folder, 'llama-batched-bench')))
            Object.assign(this, { there: true, enter: [], rpc: plain,
                bench: join(folder, 'llama-batched-bench'), server: join(folder, 'llama-server') });
        else if (folder && serverIn(folder) &&
            existsSync(join(folder, 'usr/bin/llama-batched-bench')))
            Object.assign(this, { there: true, root: folder, enter: ['chroot', folder],
                rpc: serverIn(folder), bench: '/usr/bin/llama-batched-bench',
                server: '/usr/bin/llama-server' });
        if (this.there)
            this.words = 'llama.cpp RPC beside it';
    }

    // Where the program sees the model; a second name for the file, as a chroot cannot look out.
    modelPath(path) {
        if (!this.root)
            return path;
        const inside = join(this.root, 'tmp', MODEL);
        rmSync(inside, { force: true });
        try {
            linkSync(path, inside);
        } catch {
            copyFileSync(path, inside);
        }
        return `/tmp/${MODEL}`;
    }

    start(env, i, argv, stdio) {
        const line = env.net.command(i, env.phones.wrap(`m${i}`, [...this.enter, ...argv]));
        const p = spawn(line[0], line.slice(1), { stdio });
        this.procs.push(p);
        return p;
    }

    // Starts the RPC servers; what a program on the head needs to compute on them.
    async cluster(env) {
        const n = env.mix.speeds.length, servers = [];
        const offloaded = Math.round((env.model.layers + 1) * (n - 1) / n);
        this.procs = [];
        for (let i = 1; i < n; i++) {
            servers.push(`${env.net.address(i)}:${PORT}`);
            this.start(env, i, [this.rpc, '-H', env.net.address(i), '-p', String(PORT), '-t',
                '1'], 'ignore');
        }
        await sleep(1000);
        return ['-m', this.modelPath(env.model.path), '--rpc', servers.join(','), '-ngl',
            String(offloaded), '-ts', servers.map(() => 1).join('/'), '-fit', 'off', '-t', '1'];
    }

    // llama-server on the head, with so many slots of ctx positions each: its URL.
    async serve(env, slots, ctx) {
        const host = env.net.address(0), log = openSync(env.log, 'a', 0o600);
        const p = this.start(env, 0, [this.server, ...await this.cluster(env), '--host', host,
            '--port', String(HTTP_PORT), '-np', String(slots), '-c',
            String(slots * ctx), '-cram', '0', '--no-webui'], ['ignore', log, log]);
        closeSync(log);
        p.on('exit', (code, signal) => { p.over = { code, signal }; });
        return { url: `http://${host}:${HTTP_PORT}`, process: p };
    }

    // {mix, link, one, many}: tokens/s of one sequence, of STREAMS together; or {why}.
    async run(env) {
        const row = { mix: env.mix.name, link: env.link.name };
        const p = this.start(env, 0, [this.bench, ...await this.cluster(env), '-c', '512', '-npp',
            '16', '-ntg', String(env.tokens), '-npl', `1,${STREAMS}`, '--output-format', 'jsonl'],
        ['ignore', 'pipe', 'pipe']);
        let out = '', err = '';
        p.stdout.on('data', d => { out += d; });
        p.stderr.on('data', d => { err += d; });
        const over = new Promise(done => p.on('close', done));
        const timer = setTimeout(() => p.kill('SIGKILL'), 1000 * SECONDS);
        await over;
        clearTimeout(timer);
        this.stop();
        const lines = out.split('\n').filter(l => l.startsWith('{')).map(l => JSON.parse(l));
        const of = pl => lines.find(l => l.pl === pl)?.speed_tg;
        const words = err.trim().split('\n').at(-1);
        return of(1) ? { ...row, one: of(1), many: of(STREAMS) } : { ...row, why: words };
    }
    stop() {
        this.procs?.forEach(p => p.kill('SIGKILL'));
        if (this.root)
            rmSync(join(this.root, 'tmp', MODEL), { force: true });
    }
}
