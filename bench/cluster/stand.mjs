// What every bench on emulated phones stands on: a folder, the phones, the network, the model; all
// of it is gone with the program, whatever ends it.
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Net } from '../net/machines.mjs';
import { Phones, missing } from './phones.mjs';

// What a program needs beside its weights, and what its group may use over its budget.
export const MB = 1e6, OVERHEAD = 96 * MB, SLACK = 64 * MB;

// Says why and ends well where devices cannot be emulated.
export function needPhones(name) {
    const reason = missing();
    if (!reason)
        return;
    console.log(`${name} is left out: ${reason}`);
    process.exit(0);
}

export class Stand {
    // build: where the programs are. opts: keep (the folder), jitter and loss (of every link).
    constructor(build, opts = {}) {
        Object.assign(this, { build, lingua: join(build, 'lingua'), opts, net: null, current: null,
            store: null, llama: null });
        // On a disk: memory limits count files that are kept in memory.
        this.folder = mkdtempSync('/var/tmp/lingua-bench-');
        this.phones = new Phones(build);
        this.ready = this.phones.hold();
        process.on('exit', () => this.end());
        for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
            process.on(signal, () => {
                console.log(`ended by ${signal}`);
                process.exit(1);
            });
    }

    end() {
        for (const c of [this.current, this.store?.filling])
            c?.procs.forEach(p => p?.kill('SIGKILL'));
        this.llama?.stop();
        this.net?.down();
        this.phones.remove();
        if (this.opts.keep)
            console.log(`${this.folder} is kept`);
        else
            rmSync(this.folder, { recursive: true, force: true });
    }

    machines(n) {
        this.net = new Net(n, join(this.build, 'lingua-netswitch'));
    }

    linkSet(link) {
        this.net.ctl('delay', link?.delay ?? 0);
        this.net.ctl('jitter', link ? this.opts.jitter ?? 0 : 0);
        this.net.ctl('loss', link ? this.opts.loss ?? 0 : 0);
        this.net.ctl('rate', link?.rate ?? 0);
        this.net.ctl('air', link?.air ?? 0);
    }

    // A model of lingua-test-model, written once: its path and its modules, each with its share of
    // the work of a token, which is taken to go by bytes.
    model(name) {
        const where = join(this.build, 'bench');
        const path = join(where, `${name.replaceAll(':', '-')}.gguf`);
        const writer = join(this.build, 'lingua-test-model');
        mkdirSync(where, { recursive: true });
        if (!existsSync(path) && spawnSync(writer, [name, path], { stdio: 'inherit' }).status !== 0)
            throw new Error(`no model ${name}`);
        const r = spawnSync(this.lingua, ['inspect', path, '--json'], { encoding: 'utf8' });
        if (r.status !== 0)
            throw new Error(r.stderr);
        const doc = JSON.parse(r.stdout), sum = doc.modules.reduce((a, m) => a + m.decode_bytes, 0);
        return { path, width: doc.width, layers: doc.layers, vocabulary: doc.vocabulary,
            kvBytes: doc.kv_bytes_per_position,
            bytes: doc.modules.reduce((a, m) => a + m.bytes, 0),
            modules: doc.modules.map(m => ({ bytes: m.bytes, kvBytes: m.kv_bytes_per_position,
                work: m.decode_bytes / sum })) };
    }
}
