// What the fake head pretends: clusters in all their states, answers, a timeline.

// wantsKey, stranger (no session), gone, plain (no chat template), refuse, breaks: see fake.mjs.
// change: what is different of the three devices' document.
export const scenes = {
    three: {},
    quick: { quick: true },
    plain: { plain: true },
    alone: { change: alone },
    fetching: { change: fetching },
    joining: { change: joining },
    lost: { change: lost },
    drained: { change: drained },
    many: { change: many },
    full: {
        refuse: [
            503,
            'the queue is full (256 requests wait)',
            'server_busy',
            { 'Retry-After': '12' },
        ],
    },
    unready: {
        change: fetching,
        refuse: [
            503,
            'waits for board to fetch its part',
            'model_not_ready',
            { 'Retry-After': '9' },
        ],
    },
    refused: { refuse: [400, 'the prompt has 2310 tokens, the context room for 2048', null] },
    breaks: { breaks: 'phone was lost: it does not answer any more' },
    stranger: { stranger: true },
    key: { wantsKey: true, stranger: true },
    gone: { gone: true },
};

const MB = 1e6;
const moves = (t, period, by) => 1 + by * Math.sin((2 * Math.PI * t) / period);

function device(name, kind, more) {
    return {
        name,
        key: `${name}-key`,
        head: false,
        mine: false,
        drained: false,
        state: 'ready',
        trouble: '',
        kind,
        threads: 4,
        rtt_ms: 4.4,
        ...more,
    };
}

function three(t) {
    const laptop = device('laptop', 'x86_64 Linux, 8 cores', {
        head: true,
        mine: true,
        threads: 6,
        memory_bytes: 524 * MB,
        resident_bytes: 301 * MB,
    });
    const phone = device('phone', 'arm64 Android, 8 cores', {
        memory_bytes: 1070 * MB,
        resident_bytes: 418 * MB,
        temperature_c: 39 + 2 * Math.sin(t / 9),
        battery_percent: 81,
        charging: true,
    });
    const board = device('board', 'arm64 Linux, Raspberry Pi 5', {
        memory_bytes: 700 * MB,
        resident_bytes: 352 * MB,
        temperature_c: 55 + 3 * Math.sin(t / 7),
        rtt_ms: 0.6,
    });
    const stage = (name, first, last, text, predicted, measured) => ({
        device: name,
        first,
        last,
        text,
        weight_bytes: (last - first + 1) * 13.8 * MB,
        predicted_ms: predicted,
        measured_ms: measured * moves(t, 11 + first, 0.03),
    });
    const hop = (from, to, latency, rate, predicted, measured) => ({
        from,
        to,
        via: 'direct',
        latency_ms: latency,
        bytes_per_s: rate * MB,
        bytes: Math.round(8344 * t * 20),
        frames: Math.round(t * 20),
        bytes_per_token: 8344,
        predicted_ms: predicted,
        measured_ms: measured * moves(t, 7, 0.1),
    });
    return {
        head: 'laptop',
        state: 'running',
        waiting_for: '',
        address: '192.168.1.5:41300',
        epoch: 3,
        n_ctx: 2048,
        time_ms: Date.now(),
        model: {
            name: 'TinyLlama 1.1B Chat',
            alias: 'tinyllama-chat',
            arch: 'llama',
            quantisation: 'q4_0',
            path: '/home/ada/models/tinyllama-chat.gguf',
            weight_bytes: 636 * MB,
            n_modules: 46,
        },
        devices: [laptop, phone, board],
        stages: [
            stage('laptop', 0, 10, 'embed..ffn.4', 8.1, 8.4),
            stage('phone', 11, 28, 'attn.5..ffn.13', 15.2, 16.9),
            stage('board', 29, 44, 'attn.14..ffn.21', 13.6, 13.1),
            stage('laptop', 45, 45, 'output', 2.1, 2.2),
        ],
        hops: [
            { from: 'laptop', to: 'laptop', via: 'direct', bytes: 0, frames: 0, predicted_ms: 0 },
            hop('laptop', 'phone', 2.2, 25, 2.4, 2.9),
            hop('phone', 'board', 2.3, 24, 2.5, 2.6),
            hop('board', 'laptop', 0.3, 118, 0.4, 0.5),
            { from: 'laptop', to: 'laptop', via: 'direct', bytes: 0, frames: 0, predicted_ms: 0 },
        ],
        predicted: { token_ms: 44.6, head_ms: 0.3, tokens_per_s: 22.4, ttft_ms: 910 },
        measured: { head_ms: 0.35, tokens: 412 },
        plan: {
            concurrency: 1,
            ms_per_token: 44.6,
            tokens_per_s: 22.4,
            ttft_ms: 910,
            prompt: 256,
            limit: 'one answer: the sum of computing and hops',
            left_out: [],
        },
        slots: { n: 4, busy: 0, waiting: 0 },
    };
}

function alone(doc) {
    doc.devices.length = 1;
    doc.state = 'alone';
    doc.stages = [
        { ...doc.stages[0], last: 45, text: 'embed..output', predicted_ms: 41, measured_ms: 43 },
    ];
    doc.hops = [doc.hops[0], doc.hops[0]];
}

function fetching(doc, t) {
    const [, phone, board] = doc.devices;
    doc.state = 'fetching';
    doc.stages = [];
    doc.hops = [];
    doc.measured = doc.predicted = doc.plan = null;
    doc.waiting_for = 'waits for phone and board to fetch their parts';
    Object.assign(phone, { state: 'fetching', total: 248 * MB, resident_bytes: 31 * MB });
    phone.done = phone.total * ((0.43 + t / 80) % 1);
    Object.assign(board, { state: 'loading', resident_bytes: 222 * MB });
}

function joining(doc) {
    const tablet = device('tablet', 'arm64 Android', { state: 'measuring', battery_percent: 34 });
    doc.devices.push({
        ...tablet,
        charging: false,
        memory_bytes: 900 * MB,
        resident_bytes: 28 * MB,
    });
    doc.devices.push(device('old-pc', 'x86_64 Linux', { state: 'offline', kind: undefined }));
}

function lost(doc) {
    const board = doc.devices[2];
    doc.state = 'loading';
    doc.waiting_for = 'laptop and phone take over what board held';
    Object.assign(board, {
        state: 'lost',
        trouble: 'it does not answer any more (3 s without a word)',
    });
    doc.devices[1].state = 'loading';
    doc.stages = [];
    doc.hops = [];
    doc.measured = null;
}

function drained(doc) {
    const [first, second, , last] = doc.stages;
    Object.assign(doc.devices[2], { state: 'idle', drained: true, resident_bytes: 21 * MB });
    second.last = 44;
    second.text = 'attn.5..ffn.21';
    second.predicted_ms = 29;
    second.measured_ms = null;
    doc.stages = [first, second, last];
    doc.hops = [doc.hops[0], doc.hops[1], { ...doc.hops[3], from: 'phone' }, doc.hops[4]];
    doc.hops.forEach(h => delete h.measured_ms);
}

function many(doc) {
    joining(doc);
    doc.slots = { n: 4, busy: 4, waiting: 7 };
    doc.plan.concurrency = 8;
    doc.plan.left_out = [
        {
            name: 'old-phone',
            why: 'with it 185 instead of 197 tokens/s; --use old-phone forces it',
        },
    ];
    doc.hops[2].via = 'head';
    const failed = { state: 'failed', trouble: 'its disk is full: 12 MB free, 248 MB wanted' };
    doc.devices.push(device('old-phone', 'arm64 Android', { ...failed, temperature_c: 44 }));
}

export function sceneDocument(state) {
    const t = (Date.now() - state.began) / 1000 + 100;
    const doc = three(t);
    const n = state.streams;
    const busy = scenes[state.scene].change === many;
    doc.slots.busy = n;
    doc.speed = {
        tokens_per_s: n ? 21.4 * moves(t, 5, 0.08) : 0,
        streams: n,
        prefill_tokens_per_s: 0,
    };
    if (busy)
        doc.speed = { tokens_per_s: 38 * moves(t, 9, 0.1), streams: 4, prefill_tokens_per_s: 61 };
    if (scenes[state.scene].plain) {
        Object.assign(doc.model, { name: 'stories15M', alias: 'stories15M', quantisation: 'q8_0' });
        doc.model.weight_bytes = 26 * MB;
    }
    scenes[state.scene].change?.(doc, t);
    return doc;
}

// ---- a timeline: a prompt in two chunks, then tokens ----

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

// ---- what the model says ----

const code = `Here is one way: cross out what is a multiple, and keep the rest.

\`\`\`python
def primes_below(n: int) -> list[int]:
    """All primes smaller than n, by the sieve of Eratosthenes."""
    sieve = [True] * max(n, 2)
    sieve[0] = sieve[1] = False
    for i in range(2, int(n**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = [False] * len(sieve[i * i :: i])
    return [i for i, is_prime in enumerate(sieve[:n]) if is_prime]


def test_primes_below():
    assert primes_below(20) == [2, 3, 5, 7, 11, 13, 17, 19]
    assert primes_below(2) == []
\`\`\`

The inner line crosses out **all multiples at once**. It begins at \`i * i\`, since smaller multiples have a smaller factor that crossed them out already.`;

const table = `Both wake you up, each in its own way.

| | tea | coffee |
|---|---|---|
| caffeine per cup | 30 to 50 mg | 80 to 120 mg |
| comes on | slowly | quickly |
| water | 70 to 100 °C | 92 to 96 °C |

1. For a long afternoon, take tea.
2. For a short night, coffee.

> Neither is good an hour before bed.`;

const rainbow = `Imagine sunlight as a big bunch of coloured threads, all twisted together so tightly that it looks white.

When it rains, the air is full of tiny round drops. A sunbeam that goes *into* a drop is bent a little, bounces off the back like a ball, and is bent again as it comes out. Red is bent the least and violet the most, so that the threads come apart.

Each drop sends you only one colour. Drops higher up send you red, lower ones violet, and all of them together make the arc.`;

const hostile = `Some HTML: <b>bold</b> <img src=x onerror="document.title='hacked'"> <script>document.title = 'hacked'</script>

![a picture](https://example.com/pixel.png) and [a link](javascript:document.title='hacked').`;

export const answers = {
    story:
        ', there was a little girl named Lily. She loved to play outside in the sunshine. One day, she ' +
        'saw a big, red ball in the sky. It was the sun! She thought it was so pretty.\nLily wanted to ' +
        'play with the ball, but it was too high up in the sky. She tried to jump and reach it, but she ' +
        'could not. Then, she had an idea. She would use a stick to get the ball down.',
    pick: question =>
        /html/i.test(question)
            ? hostile
            : /python|code/i.test(question)
              ? code
              : /table|tea/i.test(question)
                ? table
                : rainbow,
};

// Not a code that says something: its look is enough here.
export const qr = Array.from({ length: 29 }, (_, y) =>
    Array.from({ length: 29 }, (_, x) => {
        const corner = [
            [0, 0],
            [22, 0],
            [0, 22],
        ].find(([a, b]) => x >= a && x < a + 7 && y >= b && y < b + 7);
        if (corner) {
            const ring = Math.max(Math.abs(x - corner[0] - 3), Math.abs(y - corner[1] - 3));
            return ring === 2 ? 0 : 1;
        }
        if ((x < 8 && y < 8) || (x > 20 && y < 8) || (x < 8 && y > 20)) return 0;
        return (x * 7 + y * 13 + x * y) % 5 < 2 ? 1 : 0;
    }).join(''),
);
