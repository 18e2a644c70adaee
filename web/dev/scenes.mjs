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
