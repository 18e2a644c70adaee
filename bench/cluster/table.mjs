// The results as text: all rows, the worst first, and whether the claims hold.
import { STREAMS } from './cluster.mjs';

const NEVER_BELOW = 0.98, ONE = 1.6, MANY = 2.6, NEAR = 0.15;

const num = (v, digits) => v === undefined || !Number.isFinite(v) ? '-' : v.toFixed(digits);
const percent = v => v === undefined || !Number.isFinite(v) ? '-'
    : `${v < 0 ? '' : '+'}${(100 * v).toFixed(0)} %`;
// How much longer a token takes than predicted.
const missOf = s => s.predicted ? s.predicted / s.rate - 1 : undefined;
// The same with what the head has learnt from the answers before.
const learntMiss = s => s.learnt ? s.learnt / s.then - 1 : undefined;
const ttftMiss = s => s.predictedTtft ? s.ttft / s.predictedTtft - 1 : undefined;

export function tableText(rows, llamas) {
    const head = ['mix', 'link', 'streams', 'equal t/s', 'plan t/s', 'ratio', 'ceiling',
        'equal off', 'then', 'plan off', 'then', 'TTFT equal', 'plan', 'TTFT off', 'llama.cpp'];
    const lines = [...rows].sort((a, b) => a.ratio / a.ceiling - b.ratio / b.ceiling).map(r => {
        const l = llamas.find(x => x.mix === r.mix && x.link === r.link);
        return [r.mix, r.link, String(r.streams), num(r.equal.rate, 2), num(r.plan.rate, 2),
            num(r.ratio, 2), num(r.ceiling, 2), percent(missOf(r.equal)), percent(learntMiss(r.equal)),
            percent(missOf(r.plan)), percent(learntMiss(r.plan)),
            num(r.equal.ttft / 1000, 2), num(r.plan.ttft / 1000, 2),
            r.plan.ttft ? `${percent(ttftMiss(r.equal))}, ${percent(ttftMiss(r.plan))}` : '-',
            num(r.streams === 1 ? l?.one : l?.many, 2)];
    });
    const width = head.map((h, i) => Math.max(h.length, ...lines.map(l => l[i].length)));
    const text = l => l.map((v, i) => i < 2 ? v.padEnd(width[i]) : v.padStart(width[i])).join('  ');
    return ['', '== tokens/s, those farthest below the ceiling first; "off": how much longer a ' +
        'token takes than predicted, "then": once the head has learnt from an answer; TTFT of 256 ' +
        'tokens in s', text(head), ...lines.map(text)].join('\n');
}

const verdict = (holds, what, words) =>
    `  ${what}: ${holds ? 'holds' : 'DOES NOT HOLD'} (${words})`;

// Of the worst among the rows that a claim is about.
export function claimsText(rows) {
    const lines = ['', '== claims'];
    const name = r => `${r.mix} ${r.link}, ${r.streams} stream${r.streams > 1 ? 's' : ''}`;
    const uneven = rows.length && rows.reduce((a, b) => b.uneven > a.uneven ? b : a).mix;
    for (const [streams, least] of [[1, ONE], [STREAMS, MANY]]) {
        const list = rows.filter(r => r.mix === uneven && r.streams === streams);
        if (!list.length)
            continue;
        const worst = list.reduce((a, b) => b.ratio < a.ratio ? b : a);
        const what = `plan at least ${least} times equal on ${uneven}, ${streams} ` +
            `stream${streams > 1 ? 's' : ''}`;
        lines.push(verdict(worst.ratio >= least, what, list
            .map(r => `${r.link} ${num(r.ratio, 2)} of at most ${num(r.ceiling, 2)}`).join('; ')));
    }
    const bad = rows.filter(r => r.ratio < NEVER_BELOW);
    const worst = rows.length && rows.reduce((a, b) => b.ratio < a.ratio ? b : a);
    if (worst)
        lines.push(verdict(!bad.length, `never below ${NEVER_BELOW}`,
            (bad.length ? bad : [worst]).map(r => `${num(r.ratio, 3)} at ${name(r)}`).join('; ')));
    const sides = rows.flatMap(r => ['equal', 'plan'].map(k =>
        ({ words: `${name(r)}, ${k}`, miss: missOf(r[k]) }))).filter(s => s.miss !== undefined);
    const off = sides.filter(s => Math.abs(s.miss) > NEAR);
    const most = sides.length &&
        sides.reduce((a, b) => Math.abs(b.miss) > Math.abs(a.miss) ? b : a);
    if (most)
        lines.push(verdict(!off.length, `predicted within ${100 * NEAR} %`,
            (off.length ? off : [most]).map(s => `${percent(s.miss)} at ${s.words}`).join('; ')));
    const then = rows.flatMap(r => ['equal', 'plan'].map(k => learntMiss(r[k])))
        .filter(m => m !== undefined);
    if (then.length) {
        const worst = then.reduce((a, b) => Math.abs(b) > Math.abs(a) ? b : a);
        lines.push(verdict(Math.abs(worst) <= NEAR, `predicted within ${100 * NEAR} % ` +
            'once the head has learnt from answers', `at worst ${percent(worst)}`));
    }
    return lines.join('\n');
}
