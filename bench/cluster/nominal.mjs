// What the quotas say should come out: the bench's own arithmetic, independent of the program's. A
// module costs in proportion to the bytes it reads, a device takes that over its speed, and a hop
// takes the link's delay and its bytes' time. It gives the ceilings, the estimate of how long the
// bench takes, and --by-hand's placements.

// model: {modules: [{bytes, work}], work summing to 1}; whole: ms per token at speed 1.
export function nominal(model, whole, speeds, link, runs) {
    const work = runs.map(r => whole * model.modules.slice(r.first, r.end)
        .reduce((a, m) => a + m.work, 0) / speeds[r.device]);
    let ms = work.reduce((a, b) => a + b, 0);
    const air = link.air || link.rate;
    for (let i = 0; i < runs.length; i++)
        if (runs[i].device !== runs[(i + 1) % runs.length].device)
            ms += link.delay + 8 * (i + 1 < runs.length ? model.width * 4 : 4e3) / 1e3 / air;
    const busy = speeds.map((_, d) => runs.reduce((a, r, i) =>
        a + (r.device === d ? work[i] : 0), 0));
    return { ms, work, rate: streams => 1000 / Math.max(ms / streams, ...busy) };
}

// Equal numbers of modules, in order; the first ones take one more.
export function equalRuns(n, devices) {
    const runs = [];
    for (let d = 0, at = 0; d < devices; d++) {
        const end = at + Math.floor(n / devices) + (d < n % devices ? 1 : 0);
        runs.push({ device: d, first: at, end });
        at = end;
    }
    return runs;
}

// What modules [a, b) hold: weights, and the KV cache of so many positions.
export const heldBytes = (model, positions, a = 0, b = model.modules.length) =>
    model.modules.slice(a, b).reduce((s, m) => s + m.bytes + m.kvBytes * positions, 0);

// The best cuts between whole layers with the devices in order, each with room for a share of all
// bytes: every one of them is tried.
export function bestRuns(model, positions, whole, mix, speeds, link, streams) {
    const n = model.modules.length, total = heldBytes(model, positions);
    const bytes = (a, b) => heldBytes(model, positions, a, b);
    let best = null;
    const go = (d, at, runs) => {
        if (at === n) {
            const score = nominal(model, whole, speeds, link, runs).rate(streams);
            if (!best || score > best.score)
                best = { score, runs };
            return;
        }
        if (d === speeds.length)
            return;
        for (let end = d ? at : 1; end <= n; end += end === n - 1 ? 1 : 2)
            if (end === at)
                go(d + 1, at, runs);
            else if (bytes(at, end) <= mix.room * total)
                go(d + 1, end, [...runs, { device: d, first: at, end }]);
    };
    go(0, 0, []);
    return best.runs;
}

export const splitText = runs => runs.map(r => `${r.first}-${r.end - 1}`).join(',');

// No plan can be more than so many times as fast as equal parts: one stream is quickest where the
// fastest devices hold as much as they have room for; of many, no device can do more than compute
// all the time, and with equal parts the slowest does.
export function ceiling(speeds, room, streams) {
    const mean = list => list.reduce((a, b) => a + b, 0) / list.length;
    if (streams > 1)
        return mean(speeds) / Math.min(...speeds);
    let left = 1, least = 0;
    for (const s of [...speeds].sort((a, b) => b - a)) {
        const part = Math.min(left, room);
        least += part / s;
        left -= part;
    }
    return mean(speeds.map(s => 1 / s)) / least;
}
