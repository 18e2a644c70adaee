// Has the model answer: asks the API, takes the stream, and keeps the conversation as it grows.
//
// A model without a chat template cannot answer, only continue text: such a conversation is one text,
// written by the user and the model in turns, and goes to /v1/completions as a whole.
import { ApiError, GoneError, ask, events, isAbort } from '../api.js';
import { cluster, model } from '../cluster/live.js';
import { announce, announceEnd } from '../ui/announce.js';
import { conversations, newId, update, updateMessage } from './conversations.js';
import { settings } from './settings.js';

const drawEveryMs = 50;
const triesMax = 8;
const textTokens = 256; /* a text without an end is written so much at a time */

// The browser ends what is under way when the page is left or loaded anew: not the head's fault.
let leaving = false;
addEventListener('beforeunload', () => {
    leaving = true;
    setTimeout(() => (leaving = false), 2000); /* it stayed, after all */
});

const running = new Map(); /* conversation -> {abort, wake} */

export const isRunning = id => running.has(id);

// The seam of two parts of a text: a blank, unless one is there or the next goes on with the word.
export function joined(before, text) {
    if (!before || /\s$/.test(before) || /^[\s.,;:!?'")\]]/.test(text)) return text;
    return ` ${text}`;
}

// As much of a text's end as leaves room to go on: models that only continue texts often have small
// contexts, and a story need not end there.
async function promptOf(text, room, signal) {
    const { nCtx } = model.get();
    if (!nCtx || 3 * text.length < nCtx) return text; /* no token is less than a byte */
    const { tokens } = await ask('/tokenize', { content: text, add_special: true }, { signal });
    const most = Math.max(nCtx - room, Math.floor(nCtx / 2));
    return tokens.length > most ? tokens.slice(-most) : text;
}

async function bodyOf(c, upTo, signal) {
    const s = settings.get();
    const before = c.messages.slice(0, upTo);
    const common = {
        model: 'any',
        stream: true,
        stream_options: { include_usage: true },
        temperature: s.temperature,
        top_p: s.topP,
    };
    if (c.mode === 'text') {
        const room = s.maxTokens || textTokens;
        const prompt = await promptOf(before.map(m => m.content).join(''), room, signal);
        return { ...common, prompt, max_tokens: room };
    }
    const said = before.map(({ role, content }) => ({ role, content }));
    if (s.system) said.unshift({ role: 'system', content: s.system });
    return { ...common, messages: said, ...(s.maxTokens ? { max_tokens: s.maxTokens } : {}) };
}

// What the API measured; what we did, where an answer was stopped before it could say.
function statsOf(got) {
    const t = got.timings;
    if (t)
        return {
            tokensPerS: t.predicted_per_second,
            ttftMs: t.ttft_ms ?? t.prompt_ms,
            tokens: t.predicted_n,
            promptTokens: t.prompt_n,
            cachedTokens: t.cache_n ?? 0,
            queueMs: t.queue_ms ?? 0,
        };
    if (!got.first) return null;
    const s = (got.last - got.first) / 1000;
    return {
        about: true,
        tokens: got.parts,
        ttftMs: got.first - got.asked,
        tokensPerS: got.parts > 1 && s > 0 ? (got.parts - 1) / s : null,
    };
}

function takeEvent(data, got) {
    if (data === '[DONE]') {
        got.done = true;
        return;
    }
    const e = JSON.parse(data);
    if (e.error) throw new ApiError(e.error.status ?? 500, e.error);
    if (e.timings) got.timings = e.timings;
    const choice = e.choices?.[0];
    if (!choice) return;
    const text = choice.text ?? choice.delta?.content ?? '';
    const thought = choice.delta?.reasoning_content ?? '';
    if (text || thought) {
        got.first ||= performance.now();
        got.last = performance.now();
        got.parts++;
    }
    got.content += text;
    got.thinking += thought;
    got.finish = choice.finish_reason ?? got.finish;
    announce(text);
}

// One request, to its end. got: what has come, also when it throws.
async function stream(id, messageId, got, signal) {
    const c = conversations.get().all.get(id);
    const upTo = c.messages.findIndex(m => m.id === messageId);
    let drawn = 0;
    const draw = state => {
        drawn = performance.now();
        const { content, thinking } = got;
        updateMessage(id, messageId, { state, content, ...(thinking ? { thinking } : {}) });
    };
    got.asked = performance.now();
    const path = c.mode === 'text' ? '/v1/completions' : '/v1/chat/completions';
    for await (const e of events(path, { body: await bodyOf(c, upTo, signal), signal })) {
        takeEvent(e.data, got);
        if (got.parts && performance.now() - drawn > drawEveryMs) draw('streaming');
    }
    if (!got.done) throw new GoneError('the answer broke off');
}

// How long the head wants us to wait before we ask again; 0: asking again would not help.
function waitOf(e, got) {
    if (got.parts || !(e instanceof ApiError) || e.status !== 503) return 0;
    return Math.min(Math.max(e.retryAfter || 2, 1), 60);
}

async function waitFor(seconds, id, messageId, e) {
    const { abort } = running.get(id);
    const until = Date.now() + 1000 * seconds;
    const wait = { until, code: e.code, message: e.message };
    updateMessage(id, messageId, { state: 'waiting', wait });
    await new Promise(resolve => {
        const end = () => {
            clearTimeout(timer);
            resolve();
        };
        const timer = setTimeout(end, 1000 * seconds);
        running.get(id).wake = end;
        abort.signal.addEventListener('abort', end, { once: true });
    });
    updateMessage(id, messageId, { wait: undefined });
}

function failureOf(e) {
    const { status = 0, code = null } = e;
    return { message: e.message, status, code, gone: e instanceof GoneError };
}

// The model turned out to have no template: the conversation is a text from here on.
function turnIntoText(id, e) {
    const c = conversations.get().all.get(id);
    const is = e instanceof ApiError && e.status === 400 && /no chat template/i.test(e.message);
    if (!is || c.mode === 'text') return false;
    model.set({ template: false });
    update(id, { mode: 'text' });
    return true;
}

async function attempt(id, messageId, got, abort) {
    for (let tries = 1; ; tries++) {
        try {
            return await stream(id, messageId, got, abort.signal);
        } catch (e) {
            const seconds = waitOf(e, got);
            if (turnIntoText(id, e)) continue;
            if (!seconds || tries === triesMax) throw e;
            await waitFor(seconds, id, messageId, e);
            if (abort.signal.aborted) throw new DOMException('stopped', 'AbortError');
        }
    }
}

async function run(id, messageId) {
    const abort = new AbortController();
    const got = { content: '', thinking: '', parts: 0, first: 0, finish: null };
    let end = { state: 'done' };
    running.set(id, { abort, wake: () => {} });
    try {
        await attempt(id, messageId, got, abort);
    } catch (e) {
        if (abort.signal.aborted) end = { state: 'stopped' };
        else if (isAbort(e) || leaving) end = { state: 'cut' };
        else end = { state: got.parts ? 'cut' : 'failed', error: failureOf(e) };
        if (!(e instanceof ApiError || e instanceof GoneError || isAbort(e))) console.error(e);
    }
    running.delete(id);
    const { content, thinking, finish } = got;
    updateMessage(id, messageId, {
        ...end,
        content,
        thinking: thinking || undefined,
        finish,
        stats: statsOf(got),
        wait: undefined,
    });
    announceEnd(
        end.error
            ? `The answer failed: ${end.error.message}`
            : end.state === 'stopped'
              ? 'Stopped.'
              : 'The answer is complete.',
    );
}

// Answers what stands in front: everything up to `messages`, a list that ends with the user's.
function answer(id, messages) {
    const m = { id: newId(), role: 'assistant', content: '', state: 'waiting', at: Date.now() };
    update(id, { messages: [...messages, m] });
    return run(id, m.id);
}

export function send(id, text) {
    const c = conversations.get().all.get(id);
    const empty = !c.messages.length;
    const mode = empty ? (model.get().template === false ? 'text' : 'chat') : c.mode;
    const before = c.messages.map(m => m.content).join('');
    const content = mode === 'text' ? joined(before, text) : text;
    update(id, { mode, model: cluster.get().doc?.model?.alias ?? model.get().alias });
    return answer(id, [...c.messages, { id: newId(), role: 'user', content, at: Date.now() }]);
}

// The text goes on where it ends.
export const goOn = id => answer(id, conversations.get().all.get(id).messages);

// The answer anew; what followed it goes.
export function regenerate(id, messageId) {
    const { messages } = conversations.get().all.get(id);
    return answer(
        id,
        messages.slice(
            0,
            messages.findIndex(m => m.id === messageId),
        ),
    );
}

// What the user said becomes something else, and the conversation goes on from there.
export function edit(id, messageId, content) {
    const { messages } = conversations.get().all.get(id);
    const at = messages.findIndex(m => m.id === messageId);
    return answer(id, [...messages.slice(0, at), { ...messages[at], content }]);
}

export function stop(id) {
    running.get(id)?.abort.abort();
}

// Ends the wait for a free place early.
export function retryNow(id) {
    running.get(id)?.wake();
}
