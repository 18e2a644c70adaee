// Plan against equal split on emulated phones; README.md beside this file says what is measured and
// how. Needs root, /dev/net/tun and control groups; says so and ends well without.
//
// usage: bench-cluster.mjs BUILD [--calibrate] [--mix NAME]... [--link NAME]... [--rounds N]
//     [--tokens N] [--model NAME] [--quick] [--jitter MS] [--loss PERCENT] [--json FILE]
//     [--no-llama] [--llama FOLDER] [--no-forced] [--by-hand] [--keep]
import { execFile } from 'node:child_process';
import { join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { median } from '../net/machines.mjs';
import { LINKS, MIXES, quotas } from './phones.mjs';
import { MB, OVERHEAD, SLACK, Stand, needPhones } from './stand.mjs';
import { PROMPT, CTX, STREAMS, PhoneCluster, Store, jsonSave } from './cluster.mjs';
import { bestRuns, ceiling, equalRuns, heldBytes, nominal, splitText } from './nominal.mjs';
import { calibrate } from './calibrate.mjs';
import { Llama } from './llama.mjs';
import { tableText, claimsText } from './table.mjs';

const { values: opt, positionals } = parseArgs({
    allowPositionals: true,
    options: {
        calibrate: { type: 'boolean' }, mix: { type: 'string', multiple: true },
        link: { type: 'string', multiple: true }, rounds: { type: 'string' },
        tokens: { type: 'string' }, model: { type: 'string', default: 'slim' },
        quick: { type: 'boolean' }, jitter: { type: 'string', default: '0' },
        loss: { type: 'string', default: '0' }, json: { type: 'string' },
        'no-llama': { type: 'boolean' }, 'no-forced': { type: 'boolean' },
        llama: { type: 'string', default: process.env.LLAMA_CPP ?? '' },
        'by-hand': { type: 'boolean' }, keep: { type: 'boolean' }, help: { type: 'boolean' },
    },
});

function chosen(all, names, what) {
    for (const n of names ?? [])
        if (!all.some(x => x.name === n))
            throw new Error(`there is no ${what} "${n}"; there are ` +
                all.map(x => x.name).join(', '));
    return all.filter(x => !names || names.includes(x.name));
}

const build = resolve(positionals[0] ?? 'build'), lingua = join(build, 'lingua');
const rounds = Number(opt.rounds ?? 1), tokens = Number(opt.tokens ?? (opt.quick ? 8 : 16));
const mixes = chosen(MIXES, opt.mix ?? (opt.quick ? ['one-slow', 'straggler'] : undefined), 'mix');
const links = chosen(LINKS, opt.link ?? (opt.quick ? ['lan'] : undefined), 'link');
needPhones('bench-cluster');

const stand = new Stand(build, opt), { phones, folder } = stand;
const note = words => console.error(`  ${words}`);

// ---- what is measured on ----

// Tokens per second of the whole model in a group of that speed, on one thread: [decode, prefill].
async function alone(speed, decode, prefill, { periodUs = 0, name = 'alone' } = {}) {
    phones.set(name, 1);
    phones.speed(name, speed, periodUs);
    const argv = phones.wrap(name, [lingua, 'bench', model.path, '-t', '1', '-r', '2', '-n',
        String(decode), '-p', String(prefill), '--json']);
    const { stdout } = await promisify(execFile)(argv[0], argv.slice(1));
    phones.rest();
    const of = key => JSON.parse(stdout).find(t => t[key])?.median_tokens_per_second;
    return [of('n_gen'), of('n_prompt')];
}

// A cluster of a mix on a link, placed as `how` says: {equal}, {streams} or {runs}, and {use}.
async function up(mix, link, how) {
    const speeds = quotas(mix);
    const budget = Math.round(mix.room * held + OVERHEAD);
    const byHand = how.runs && splitText(how.runs);
    speeds.forEach((s, i) => phones.set(`m${i}`, s, budget + SLACK));
    stand.linkSet(link);
    const memory = ['--memory', String(budget)];
    const c = new PhoneCluster({
        lingua, net: stand.net, model: model.path, phones, store: stand.store, speeds: mix.name,
        work: join(folder, 'cluster'), join: memory,
        machines: how.runs ? how.runs.map(r => r.device) : speeds.map((_, i) => i),
        serve: ['--no-announce', '--ctx', String(CTX), '--slots', String(STREAMS), ...memory,
            ...(byHand ? ['--split', byHand] : how.equal ? ['--equal'] : []),
            ...(how.streams && !byHand ? ['--concurrency', String(how.streams)] : []),
            ...(how.use ? ['--use', how.use] : [])],
    });
    stand.current = c;
    await c.begin();
    await c.settled();
    c.mix = mix;
    // Before anything is measured, from which the head would learn.
    c.docs = {};
    c.questions = streams => streams === (how.streams ?? 1) && !how.equal ? []
        : ['--concurrency', String(streams), ...(how.equal ? ['--equal'] : [])];
    for (const streams of byHand ? [] : [1, STREAMS])
        c.docs[streams] = c.planned(...c.questions(streams));
    await c.ask1('a', 2); // pages are touched, graphs built
    return c;
}

async function down(c) {
    const killed = c.machines.filter(i => phones.kills(`m${i}`));
    await c.close();
    stand.current = null;
    phones.rest();
    if (killed.length)
        throw new Error(`m${killed} took more memory than its limit`);
}

// ---- one row ----

const records = [], forced = [], llamas = [], profiles = [];

// What a document of `lingua plan` says, in short.
function said(doc, streams, c) {
    if (!doc)
        return {};
    const p = doc.prediction;
    const parts = doc.devices.filter(d => d.modules).map(d => `${d.name} ${d.modules}`).join(', ');
    return { predicted: streams === 1 ? 1000 / p.ms_per_token : p.tokens_per_s,
        predicted_ttft_ms: p.ttft_ms, predicted_for: parts,
        predicted_other: parts === c.parts() ? undefined : true, prediction: p, limit: doc.limit };
}

// Measures c with so many streams and keeps the record.
async function measure(c, row, streams) {
    const r = { ...row, streams, parts: c.parts(), ...said(c.docs[streams], streams, c) };
    if (streams === 1) {
        r.ttft_ms = await c.ttft();
        r.tokens_per_s = 1000 / await c.single(tokens);
        r.measured = c.devices().measured ?? undefined;
        if (c.docs[1]) { // and once more, with what the head has learnt
            r.learnt = 1000 / c.planned().prediction.ms_per_token;
            r.tokens_per_s_then = 1000 / await c.single(tokens);
        }
    } else {
        r.tokens_per_s = await c.together(tokens);
        r.measured = c.devices().measured ?? undefined;
        const doc = c.docs[streams] && c.planned(...c.questions(streams));
        if (doc && !said(doc, streams, c).predicted_other) {
            r.learnt = doc.prediction.tokens_per_s;
            r.tokens_per_s_then = await c.together(tokens);
        }
    }
    r.nominal = row.runs && nominal(model, fullMs, quotas(c.mix), row.linkIs, row.runs)
        .rate(streams);
    delete r.linkIs;
    records.push(r);
    note(`${row.mix} ${row.link} ${row.kind}, ${streams} stream${streams > 1 ? 's' : ''}: ` +
        `${r.tokens_per_s.toFixed(3)} tokens/s` +
        (r.predicted ? ` (predicted ${r.predicted.toFixed(3)})` : '') +
        (r.nominal ? ` (by quotas ${r.nominal.toFixed(3)})` : '') +
        (r.predicted_other ? ` for ${r.predicted_for}` : '') +
        (r.ttft_ms ? `, first token in ${(r.ttft_ms / 1000).toFixed(2)} s` : '') + `: ${r.parts}`);
    if (opt.json)
        jsonSave(opt.json, document());
}

// What each device's profile makes of its equal part, against the quotas: 1 where it is right, some
// hundredths beside it, for modules' work does not quite go by their bytes.
function profilesNote(mix, link, runs, computeMs) {
    if (!computeMs)
        return;
    const { work } = nominal(model, fullMs, quotas(mix), link, runs);
    const list = computeMs.map((ms, i) => ms / work[i]);
    profiles.push({ mix: mix.name, link: link.name, list });
    note(`${mix.name} ${link.name}: profiles say ${list.map(x => x.toFixed(2)).join(', ')} of ` +
        'what the quotas do');
}

async function equalLeg(mix, link, round) {
    const runs = equalRuns(model.modules.length, mix.speeds.length);
    const row = { mix: mix.name, link: link.name, kind: 'equal', round, linkIs: link,
        runs: opt['by-hand'] && runs };
    const c = await up(mix, link, opt['by-hand'] ? { runs } : { equal: true });
    profilesNote(mix, link, runs, c.docs[1]?.prediction.compute_ms);
    for (const streams of [1, STREAMS])
        await measure(c, row, streams);
    await down(c);
}

// A plan is made for so many streams; where it is the same for one and for several, one cluster
// does for both.
async function planLeg(mix, link, round) {
    let last = null;
    for (const streams of [1, STREAMS]) {
        const runs = opt['by-hand'] &&
            bestRuns(model, POSITIONS, fullMs, mix, quotas(mix), link, streams);
        const other = last && (runs ? splitText(runs) !== last.split
            : said(last.docs[streams], streams, last).predicted_other);
        if (other) {
            await down(last);
            last = null;
        }
        last ??= await up(mix, link, runs ? { runs } : { streams });
        last.split = runs && splitText(runs);
        await measure(last, { mix: mix.name, link: link.name, kind: 'plan', round, linkIs: link,
            runs }, streams);
    }
    await down(last);
}

// A device that was left out, forced in: what was predicted of that, and what comes of it.
async function forcedRow(mix, link) {
    let c = await up(mix, link, { streams: 1 });
    const doc = c.docs[1], out = doc?.devices.filter(d => !d.modules)
        .sort((a, b) => a.other_tokens_per_s - b.other_tokens_per_s)[0];
    if (!out) {
        await down(c);
        console.log(`no device is left out of ${mix.name} ${link.name}`);
        return;
    }
    const row = { mix: mix.name, link: link.name, name: out.name, why: out.why,
        without_predicted: doc.prediction.tokens_per_s, with_predicted: out.other_tokens_per_s,
        without_measured: 1000 / await c.single(tokens) };
    await down(c);
    c = await up(mix, link, { streams: 1, use: out.name });
    row.parts = c.parts();
    row.with_predicted_then = c.docs[1].prediction.tokens_per_s;
    row.with_measured = 1000 / await c.single(tokens);
    await down(c);
    forced.push(row);
    const f = v => v.toFixed(3);
    console.log(`\n== ${out.name} of ${mix.name} ${link.name} was left out (${out.why})\n` +
        '  without it ' +
        `${f(row.without_measured)} tokens/s (predicted ${f(row.without_predicted)}), with it ` +
        `${f(row.with_measured)} (predicted ${f(row.with_predicted)}): ${row.parts}`);
}

// ---- the whole ----

const document = () => ({ model: opt.model, tokens, prompt: PROMPT, context: CTX, full_ms: fullMs,
    mixes: MIXES.map(m => ({ ...m, quotas: quotas(m) })), links: LINKS, rows: rows(), records, profiles,
    forced, llama: llamas });

const uneven = mix => ceiling(mix.speeds, mix.room, STREAMS);

// Medians over the rounds, one row per mix, link and number of streams.
function rows() {
    const list = [];
    for (const mix of mixes)
        for (const link of links)
            for (const streams of [1, STREAMS]) {
                const of = (kind, key) => {
                    const l = records.filter(r => r.mix === mix.name && r.link === link.name &&
                        r.kind === kind && r.streams === streams && r[key] > 0).map(r => r[key]);
                    return l.length ? median(l) : undefined;
                };
                const side = kind => ({ rate: of(kind, 'tokens_per_s'),
                    predicted: of(kind, 'predicted'), learnt: of(kind, 'learnt'),
                    then: of(kind, 'tokens_per_s_then'), ttft: of(kind, 'ttft_ms'),
                    predictedTtft: of(kind, 'predicted_ttft_ms') });
                const row = { mix: mix.name, link: link.name, streams, equal: side('equal'),
                    plan: side('plan'), uneven: uneven(mix),
                    ceiling: ceiling(mix.speeds, mix.room, streams) };
                row.ratio = row.plan.rate / row.equal.rate;
                if (row.ratio)
                    list.push(row);
            }
    return list;
}

// Seconds, by the quotas: what a token, a prompt and a start take of each leg.
function estimate(prefill) {
    let seconds = 0;
    for (const mix of mixes)
        for (const link of links) {
            const speeds = quotas(mix), share = 1 / speeds.length;
            const plan = bestRuns(model, POSITIONS, fullMs, mix, speeds, link, 1);
            const legs = [equalRuns(model.modules.length, speeds.length), plan, plan];
            for (const runs of legs) {
                const n = nominal(model, fullMs, speeds, link, runs);
                const slowest = Math.max(...runs.map(r => share / speeds[r.device]));
                seconds += 20 + tokens * n.ms / 1000 + PROMPT / prefill * slowest +
                    STREAMS * (tokens + 12) / n.rate(STREAMS);
            }
            seconds += llama.there ? 30 + 4 * tokens * 2 * fullMs / 1000 : 0;
        }
    return rounds * seconds + (opt['no-forced'] ? 0 : 60);
}

if (opt.help) {
    console.log('bench/cluster/README.md says how; the head of bench/cluster/bench-cluster.mjs ' +
        'has the options');
    process.exit(0);
}
const llama = stand.llama = new Llama(opt['no-llama'] ? null : opt.llama);
const model = stand.model(opt.model);
const POSITIONS = CTX * STREAMS, held = heldBytes(model, POSITIONS);
stand.machines(Math.max(...mixes.map(m => m.speeds.length), opt.calibrate ? 5 : 0));
await stand.ready;
const [decode, prefill] = await alone(1, 8, 64);
const fullMs = 1000 / decode;
stand.store = new Store(folder, lingua, model.path);
await stand.store.fill(stand.net.n);
stand.store.filling = null;
if (opt.calibrate) {
    await calibrate({ alone, phones, net: stand.net, linkSet: l => stand.linkSet(l), up, down,
        model, fullMs, prefill, layers: model.layers });
    process.exit(0);
}
console.log(`${opt.model}: ${(held / MB).toFixed(0)} MB with its KV cache, ${fullMs.toFixed(1)} ms/token on ` +
    `one core here; ${mixes.length} mixes x ${links.length} links x ${rounds} rounds, about ` +
    `${Math.ceil(estimate(prefill) / 60)} minutes; ${llama.words}`);
for (const m of mixes)
    console.log(`  ${m.name}: ${m.speeds.join(' : ')} as ` +
        `${quotas(m).map(q => q.toFixed(3)).join(', ')} cores, each with room for ` +
        `${100 * m.room} % of it`);
for (let round = 0; round < rounds; round++)
    for (const link of links)
        for (const mix of mixes) {
            // In turns, so that what changes with time is on neither side.
            for (const leg of round % 2 ? [planLeg, equalLeg] : [equalLeg, planLeg])
                await leg(mix, link, round);
            if (llama.there && round === 0) {
                speedsSet(mix);
                llamas.push(await llama.run({ mix, link, net: stand.net, phones, model, tokens }));
                phones.rest();
                note(`llama.cpp: ${JSON.stringify(llamas.at(-1))}`);
            }
        }

function speedsSet(mix) {
    quotas(mix).forEach((s, i) => phones.set(`m${i}`, s, 0));
}

console.log(tableText(rows(), llamas));
if (!opt['no-forced'] && !opt['by-hand'])
    await forcedRow(mixes.reduce((a, b) => uneven(b) > uneven(a) ? b : a), links[0]);
console.log(claimsText(rows()));
console.log(`\nthe core, while its speed was held: ${await phones.letGo()}`);
if (opt.json)
    jsonSave(opt.json, document());
process.exit(0);
