// A cluster of emulated phones, and what is measured on it.
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync,
    writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Cluster, Loopback, spans, until } from '../net/machines.mjs';

export const PROMPT = 256, STREAMS = 4, CTX = 8192;
const LETTERS = 8, TEXT_EXTRA = 4; // to these models a letter is a token, and the text's begin four

// Weights are fetched once: every device has a full copy in its cache, of its own, so that its
// memory limit is charged for it. Between clusters the caches lie in `store`.
export class Store {
    constructor(folder, lingua, model) {
        Object.assign(this, { folder, lingua, model });
    }
    cache(i) { return join(this.folder, `cache${i}`); }
    profile(mix, i) { return join(this.folder, `profile-${mix}-${i}`); }

    // By a head with `embed` and a device with all the rest, without limits.
    async fill(n) {
        const c = new Cluster({
            lingua: this.lingua, net: new Loopback(2), model: this.model,
            work: join(this.folder, 'fill'), measure: true,
            serve: ['--no-announce', '--ctx', '64', '--slots', '1', '--split', '0-0,1-'],
        });
        this.filling = c;
        await c.up();
        await c.close();
        for (let i = 1; i < n; i++)
            if (spawnSync('cp', ['-a', '--sparse=always', join(c.state(1), 'cache'),
                this.cache(i)]).status !== 0)
                throw new Error(`cannot copy a cache to ${this.cache(i)}`);
        rmSync(c.work, { recursive: true });
    }
}

export class PhoneCluster extends Cluster {
    // opts: as Cluster has them, and phones, store, machines (those of the mix that are started;
    // the first is the head), speeds (a name for the devices' speeds, under which profiles are kept).
    constructor(opts) {
        super({ measure: true, wrap: (i, argv) => i < 0 ? opts.phones.wrapBeside('m0', argv)
            : opts.phones.wrap(`m${i}`, argv), ...opts });
        rmSync(this.work, { recursive: true, force: true });
        mkdirSync(this.work, { recursive: true });
    }

    async begin() {
        this.recall(0);
        this.startHead();
        this.address = (await until('the head', () => this.devices())).address;
        for (const i of this.machines.slice(1)) {
            this.recall(i);
            renameSync(this.store.cache(i), join(this.state(i), 'cache'));
            this.startDevice(i, this.address);
            await until(`m${i} here`, () => (this.device(`m${i}`)?.address ?? '') !== '');
        }
    }
    // A device's profile is measured once for each mix: it is the same code at the same speed.
    recall(i) {
        mkdirSync(this.state(i), { mode: 0o700 });
        if (existsSync(this.store.profile(this.speeds, i)))
            copyFileSync(this.store.profile(this.speeds, i), join(this.state(i), 'profile'));
    }
    async close() {
        await super.close();
        for (const i of this.machines)
            if (this.speeds && existsSync(join(this.state(i), 'profile')))
                copyFileSync(join(this.state(i), 'profile'), this.store.profile(this.speeds, i));
        for (const i of this.machines)
            if (existsSync(join(this.state(i), 'cache')))
                renameSync(join(this.state(i), 'cache'), this.store.cache(i));
    }

    // A plan that has held for a while.
    async settled() {
        let seen = '', since = 0;
        return until('a plan', () => {
            const over = this.procs.findIndex(p => p?.over && !p.ending);
            if (over >= 0)
                throw new Error(`m${over} ended:\n${this.log(over).slice(-900)}`);
            const d = this.devices();
            const calm = d?.state === 'running' && d.devices.length === this.machines.length &&
                d.devices.every(x => /^(ready|idle)$/.test(x.state));
            const now = `${d?.epoch} ${calm}`;
            if (!calm || now !== seen)
                since = Date.now();
            seen = now;
            return calm && Date.now() - since > 2500 && d;
        }, 240);
    }

    // Who holds what: "m0 embed..ffn.7, m1 attn.8..output".
    parts() {
        return this.devices().devices.filter(d => d.modules)
            .map(d => `${d.name} ${d.modules}`).join(', ');
    }

    // The document of `lingua plan`; without questions it is about the placement that runs. null
    // where there is no such command.
    planned(...questions) {
        try {
            return JSON.parse(this.ask(['plan', '--json', ...questions]));
        } catch (e) {
            if (/unknown command plan/.test(e.message))
                return null;
            throw e;
        }
    }

    async ask1(letters, n) {
        const got = await this.run(['-p', letters, '--temp', '0', '-n', String(n)]);
        const t = got.timings;
        if (got.finish_reason !== 'length' || t.generated_tokens !== n || t.cached_tokens)
            throw new Error(`an answer of ${t.generated_tokens} tokens with ${t.cached_tokens} ` +
                `kept, ended by ${got.finish_reason}`);
        return t;
    }

    // One stream: ms per token, after the first.
    async single(tokens) {
        const t = await this.ask1('a'.repeat(LETTERS), tokens);
        return t.generate_ms / (t.generated_tokens - 1);
    }

    // ms to the first token of a prompt of PROMPT tokens.
    async ttft() {
        const t = await this.ask1('b'.repeat(PROMPT - TEXT_EXTRA), 1);
        if (t.prompt_tokens !== PROMPT)
            throw new Error(`a prompt of ${t.prompt_tokens} tokens instead of ${PROMPT}`);
        return t.ttft_ms;
    }

    // Tokens per second of STREAMS programs together, while all of them decode: the trace tells
    // when the last stage was through with each row. Counting begins a round after the last prompt
    // was read and ends with the first of the programs; the others are asked for more than they
    // will get, and are then stopped. So neither reading prompts nor stragglers count, and no
    // stream's rate is taken from a time in which it had the cluster to itself.
    async together(tokens) {
        const file = join(this.work, 'trace.json');
        const runs = [...'wxyz'].slice(0, STREAMS).map((letter, i) => this.launch(['--json', '-p',
            letter.repeat(LETTERS), '--temp', '0', '-n', String(i ? 20 * tokens : tokens),
            ...(i ? [] : ['--trace', file])]));
        const first = await runs[0].over;
        if (first.status !== 0)
            throw new Error(`lingua run --cluster: status ${first.status}: ${first.err}`);
        for (const r of runs.slice(1)) {
            if (r.status !== undefined)
                throw new Error(`a stream ended before the first did: ${r.err}`);
            r.process.kill('SIGKILL');
            await r.over;
        }
        return rate(spans(JSON.parse(readFileSync(file, 'utf8'))));
    }
}

function rate(list) {
    const compute = list.filter(s => s.cat === 'compute');
    const last = compute.reduce((most, s) => Math.max(most, s.stage), 0);
    const done = compute.filter(s => s.stage === last).sort((a, b) => a.end - b.end);
    // A step carries a row of each of some streams; more rows than streams are a prompt's.
    const prompts = done.reduce((at, s, i) => s.rows > STREAMS ? i : at, -1);
    const steps = done.slice(prompts + 1 + STREAMS);
    if (steps.length < STREAMS)
        throw new Error(`only ${steps.length} steps while all streams decoded; --tokens is small`);
    const rows = steps.slice(1).reduce((sum, s) => sum + s.rows, 0);
    return rows / (steps.at(-1).end - steps[0].end) * 1000;
}

export function jsonSave(path, what) {
    writeFileSync(`${path}.new`, `${JSON.stringify(what, null, 1)}\n`);
    renameSync(`${path}.new`, path);
}
