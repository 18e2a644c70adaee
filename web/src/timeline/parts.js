// What an answer's time went into: the sums of /cluster/timeline, and its spans lane by lane. Pure.

export const kinds = {
    compute: 'computing',
    wire: 'on the way',
    wait: 'waiting at a device',
    head: 'at the head',
    queue: 'in the queue',
    other: 'other',
};

const listSum = list => (list ?? []).reduce((a, b) => a + (b ?? 0), 0);

// {compute: ms, wire, wait, head, queue, other}; their sum is what is shown as the total.
export function partsOf(p) {
    return {
        compute: listSum(p.compute_ms),
        wire: listSum(p.wire_ms),
        wait: listSum(p.wait_ms),
        head: p.head_ms ?? 0,
        queue: p.queue_ms ?? 0,
        other: p.other_ms ?? 0,
    };
}

export const total = parts => listSum(Object.values(parts));

// Computing by stage: [{name, device, stage, ms}].
export function stagesOf(doc, p) {
    const lanes = doc.lanes.filter(l => l.stage >= 0);
    return lanes.map(l => ({ ...l, ms: p.compute_ms?.[l.stage] ?? 0 }));
}

export function spansOf(doc) {
    const n = doc.lanes.length;
    const own = s => s[0] >= 0 && s[0] < n && s[3] >= s[2] && kinds[s[1]];
    return doc.spans
        .filter(own)
        .map(([lane, kind, start, end, step, rows]) => ({ lane, kind, start, end, step, rows }))
        .sort((a, b) => a.start - b.start);
}

// What the drawing says, for those who do not see it: per lane how often and how long of each kind.
export function laneSums(doc, spans) {
    const sums = doc.lanes.map(l => ({ name: l.name, n: 0, ms: {} }));
    for (const s of spans) {
        const of = sums[s.lane];
        of.ms[s.kind] = (of.ms[s.kind] ?? 0) + (s.end - s.start) / 1000;
        of.n++;
    }
    return sums;
}
