// The cluster as the head sees it now: one stream of events, taken up again whenever it breaks.
import { ApiError, GoneError, ask, events, isAbort } from '../api.js';
import { refreshSession, session } from '../session.js';
import { makeStore } from '../store.js';

const quietMax = 40000; /* the head pings every 15 s */
const historyMs = 60000;
const restMs = 10000;

// link: connecting, open, lost or denied (a key or a session is wanted).
export const cluster = makeStore({ link: 'connecting', since: Date.now(), doc: null, history: [] });
// template: whether the model has a chat template; null as long as we do not know.
export const model = makeStore({ template: null, nCtx: 0, alias: '' });

let wake = () => {};
let stop = () => {};
let resting = false;
let restTimer;

// A browser lends a site six connections for all its tabs together; one that nobody looks at gives its
// own back, or the seventh could not even send a message.
document.addEventListener('visibilitychange', () => {
    clearTimeout(restTimer);
    if (document.hidden) {
        restTimer = setTimeout(() => {
            resting = true;
            stop();
        }, restMs);
    } else if (resting) {
        resting = false;
        wake();
    }
});

function move(link) {
    if (cluster.get().link !== link) cluster.set({ link, since: Date.now() });
}

function take(doc) {
    const now = Date.now();
    const speed = doc.speed?.tokens_per_s ?? 0;
    const history = cluster.get().history.filter(h => h.at > now - historyMs);
    cluster.set({ doc, history: [...history, { at: now, speed }] });
    move('open');
}

export async function refreshModel() {
    const props = await ask('/props');
    model.set({
        template: Boolean(props.chat_template),
        nCtx: props.n_ctx ?? props.default_generation_settings?.n_ctx ?? 0,
        alias: props.model_alias ?? '',
    });
}

async function listen() {
    const abort = new AbortController();
    let timer;
    const heard = () => {
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), quietMax);
    };
    stop = () => abort.abort();
    heard();
    try {
        const stream = events('/cluster/events', {
            signal: abort.signal,
            onBytes: heard,
            onOpen: () => refreshModel().catch(() => {}) /* chat finds out by itself, then */,
        });
        for await (const e of stream) if (e.event === 'cluster') take(JSON.parse(e.data));
    } finally {
        clearTimeout(timer);
    }
}

// Until the stream ends. While a key is wanted and we have none, we only ask whether that is still so:
// that question is never refused.
async function attempt() {
    await refreshSession();
    if (session.get().keyWanted) return move('denied');
    await listen();
    move('lost');
}

// Until wake() is called, or so long.
function pause(time) {
    return new Promise(resolve => {
        const timer = time && setTimeout(resolve, time);
        wake = () => {
            clearTimeout(timer);
            resolve();
        };
    });
}

// For as long as the page lives. Waits longer after each failure, but never long: a head that comes
// back is seen within some seconds.
export async function follow() {
    for (let failures = 0; ; failures++) {
        const before = cluster.get().doc;
        try {
            await attempt();
        } catch (e) {
            if (resting) {
                await pause();
                continue;
            }
            const refused = e instanceof ApiError && (e.status === 401 || e.status === 403);
            move(refused ? 'denied' : 'lost');
            if (!(e instanceof ApiError || e instanceof GoneError || isAbort(e))) console.error(e);
        }
        if (cluster.get().doc !== before) failures = 0;
        await pause(Math.min(500 * 1.6 ** failures, 4000));
    }
}

// Tries again now: something was done that may help.
export function reconnect() {
    stop();
    wake();
}
