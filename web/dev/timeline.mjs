// The timeline of an answer that never was: a prompt, then tokens, over four stages.

export function timeline(state) {
    if (!state.last) return { state: 'none' };
    const lanes = [
        { name: 'head', stage: -1 },
        { name: 'laptop: embed..ffn.4', device: 'laptop', stage: 0 },
        { name: 'phone: attn.5..ffn.13', device: 'phone', stage: 1 },
        { name: 'board: attn.14..ffn.21', device: 'board', stage: 2 },
        { name: 'laptop: output', device: 'laptop', stage: 3 },
    ];
    const compute = [8400, 16900, 13100, 2200];
    const wire = [0, 2900, 2600, 500, 0];
    const spans = [[0, 'queue', 0, 400, 0, 0]];
    const sums = {
        queue: 0.4,
        head: 0,
        compute: [0, 0, 0, 0],
        wait: [0, 0, 0, 0],
        wire: [0, 0, 0, 0, 0],
    };
    let at = 400;
    const add = (lane, kind, length, step, rows, to, i) => {
        if (length <= 0) return;
        spans.push([lane, kind, Math.round(at), Math.round(at + length), step, rows]);
        at += length;
        if (i === undefined) sums[to] += length / 1000;
        else sums[to][i] += length / 1000;
    };
    let first = null;
    for (let step = 0; step < state.last; step++) {
        const rows = step === 0 ? 24 : 1;
        const wobble = step ? 1 + 0.12 * Math.sin(step * 1.7) : 7;
        for (let s = 0; s < 4; s++) {
            add(s + 1, 'wire', wire[s] * (step ? 1 : 3), step, rows, 'wire', s);
            add(s + 1, 'wait', s ? 180 : 40, step, rows, 'wait', s);
            add(s + 1, 'compute', compute[s] * wobble, step, rows, 'compute', s);
        }
        add(0, 'head', 350, step, rows, 'head');
        at += 90;
        if (step === 0) first = copy(sums, at);
    }
    const all = copy(sums, at);
    const rest = subtract(all, first);
    return {
        state: 'done',
        complete: true,
        tokens: state.last,
        prompt_tokens: 24,
        cached_tokens: 0,
        ended_us: Math.round(at),
        first_us: Math.round(first.total_ms * 1000),
        lanes,
        spans,
        parts: all,
        first,
        rest,
        predicted: null,
    };
}

const sum = list => list.reduce((a, b) => a + b, 0);

function copy(s, at) {
    const named = s.queue + s.head + sum(s.compute) + sum(s.wait) + sum(s.wire);
    const total = at / 1000;
    return {
        queue_ms: s.queue,
        head_ms: s.head,
        compute_ms: [...s.compute],
        wait_ms: [...s.wait],
        wire_ms: [...s.wire],
        other_ms: total - named,
        total_ms: total,
    };
}

function subtract(a, b) {
    const less = (x, y) => (Array.isArray(x) ? x.map((v, i) => v - y[i]) : x - y);
    return Object.fromEntries(Object.keys(a).map(k => [k, less(a[k], b[k])]));
}
