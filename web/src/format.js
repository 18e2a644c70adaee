// Numbers for people, as the plan's drawing and `lingua devices` write them.

// Three digits that matter.
export function ms(v) {
    if (v == null || !Number.isFinite(v)) return 'unknown';
    if (v < 0.005) return '0 ms';
    if (v < 999.5) return `${v.toFixed(v < 0.995 ? 2 : v < 99.95 ? 1 : 0)} ms`;
    return `${(v / 1000).toFixed(v < 9995 ? 2 : v < 99950 ? 1 : 0)} s`;
}

export function bytes(v) {
    const units = ['B', 'kB', 'MB', 'GB', 'TB'];
    let u = 0;
    for (; v >= 999.5 && u < 4; u++) v /= 1000;
    return `${v.toFixed(u && v < 9.95 ? 1 : 0)} ${units[u]}`;
}

export function bits(bytesPerS) {
    const v = (8 * bytesPerS) / 1e6;
    return v >= 999.5 ? `${(v / 1000).toFixed(1)} Gbit/s` : `${v.toFixed(v < 9.95 ? 1 : 0)} Mbit/s`;
}

export const rate = v => (v == null ? '' : v.toFixed(v > 0 && v < 9.95 ? 1 : 0));

export const signed = v => `${v < 0 ? '−' : '+'}${Math.abs(v).toFixed(Math.abs(v) < 9.95 ? 1 : 0)}`;

export const percent = (part, whole) => (whole > 0 ? `${Math.round((100 * part) / whole)} %` : '');

export function count(n, one, many = `${one}s`) {
    return `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
}

// "a", "a and b", "a, b and c"
export function listed(names) {
    if (names.length < 2) return names.join('');
    return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

// '' for today.
export function day(at) {
    const d = new Date(at);
    const today = d.toDateString() === new Date().toDateString();
    return today ? '' : d.toLocaleDateString([], { day: 'numeric', month: 'short' });
}
