// What the document of /cluster means, in words and places. Pure; components draw it.
import { ms, percent } from '../format.js';

export const nColours = 12; /* as in the plan's drawing (src/head/plan_svg.c) */

// A device has the same colour wherever it shows: by its place among the devices.
export function colourOf(doc, name) {
    const i = doc.devices.findIndex(d => d.name === name);
    return { '--c': `var(--d${Math.max(i, 0) % nColours})` };
}

export function moduleName(i, n) {
    if (i === 0) return 'embed';
    if (i === n - 1) return 'output';
    return `${i % 2 ? 'attn' : 'ffn'}.${Math.floor((i - 1) / 2)}`;
}

// Modules [first, last] of a stage; their number.
export const size = stage => stage.last - stage.first + 1;

export const stagesOf = (doc, name) => (doc.stages ?? []).filter(s => s.device === name);

// Devices that hold a part of what runs now, in the order a token meets them.
export function workers(doc) {
    return [...new Set((doc.stages ?? []).map(s => s.device))];
}

export const runs = doc => (doc.stages ?? []).length > 0;

const words = {
    ready: 'ready',
    loading: 'loading its part',
    measuring: 'joining: measuring its speed',
    failed: 'failed',
    lost: 'lost',
    offline: 'not here',
    draining: 'draining',
};

export function stateText(d) {
    if (d.state === 'fetching') {
        const part = percent(d.done, d.total);
        return part ? `fetching ${part}` : 'fetching';
    }
    if (d.state === 'idle') return d.drained ? 'drained' : 'holds no part';
    return words[d.state] ?? d.state;
}

// How much it should catch the eye.
export function stateTone(d) {
    if (d.state === 'ready') return 'good';
    if (d.state === 'failed' || d.state === 'lost') return 'bad';
    if (['fetching', 'loading', 'measuring', 'draining'].includes(d.state)) return 'busy';
    return 'off';
}

// Computing per token of all stages of a device, and whether that was measured.
export function timeOf(doc, name) {
    const stages = stagesOf(doc, name);
    const sum = key => stages.reduce((s, x) => s + (x[key] ?? 0), 0);
    const measured = stages.length > 0 && stages.every(s => s.measured_ms != null);
    return { predicted: sum('predicted_ms'), measured: measured ? sum('measured_ms') : null };
}

export function timeText({ predicted, measured }) {
    if (measured != null) return `${ms(measured)} (${ms(predicted)} predicted)`;
    return predicted > 0 ? `${ms(predicted)} predicted` : '';
}

// A token's time in parts, in the order they happen: hop, stage, hop, ..., hop home, head.
// which: 'predicted_ms' or 'measured_ms'; null when a stage's is not known.
export function tokenParts(doc, which) {
    const stages = doc.stages ?? [];
    const hops = doc.hops ?? [];
    const parts = [];
    const head = which === 'predicted_ms' ? doc.predicted?.head_ms : doc.measured?.head_ms;
    const hop = h =>
        parts.push({
            kind: 'hop',
            name: `${h.from} to ${h.to}`,
            here: h.from === h.to,
            ms: h[which],
        });
    stages.forEach((s, i) => {
        if (hops[i]) hop(hops[i]);
        parts.push({ kind: 'stage', name: s.device, text: s.text, ms: s[which] });
    });
    if (hops[stages.length]) hop(hops[stages.length]);
    parts.push({ kind: 'head', name: 'head', ms: head });
    if (!stages.length || parts.some(p => p.kind === 'stage' && p.ms == null)) return null;
    return parts.map(p => ({ ...p, ms: p.ms ?? 0, known: p.ms != null }));
}

export const sumOf = parts => parts.reduce((s, p) => s + p.ms, 0);
