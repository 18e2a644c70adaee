// Asking the head: JSON there and back, streams of events, and errors that carry what the API said.

const keyName = 'lingua.api-key';

// An API key that was typed in, for as long as the tab lives.
export const apiKey = {
    get: () => sessionStorage.getItem(keyName) ?? '',
    set: key => (key ? sessionStorage.setItem(keyName, key) : sessionStorage.removeItem(keyName)),
};

export class ApiError extends Error {
    constructor(status, said, retryAfter) {
        super(said?.message || `the head answered with status ${status}`);
        this.status = status;
        this.code = said?.code ?? null;
        this.retryAfter = retryAfter;
    }
}

// Nobody answered: the head is not there, or went away in the middle.
export class GoneError extends Error {}

export const isAbort = e => e?.name === 'AbortError';

function request(body, { signal, method } = {}) {
    const key = apiKey.get();
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    return {
        method: method ?? (body === undefined ? 'GET' : 'POST'),
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        cache: 'no-store',
        credentials: 'same-origin',
    };
}

// The response of a request that went well; throws ApiError, GoneError or an AbortError.
async function open(path, body, options) {
    let r, said;
    try {
        r = await fetch(path, request(body, options));
    } catch (e) {
        throw isAbort(e) ? e : new GoneError('it does not answer');
    }
    if (r.ok) return r;
    try {
        said = (await r.json()).error;
    } catch {
        said = null; /* some proxy's page, or nothing: the status has to do */
    }
    const after = Number(r.headers.get('Retry-After'));
    throw new ApiError(r.status, said, after > 0 ? after : 0);
}

export async function ask(path, body, options) {
    const r = await open(path, body, options);
    try {
        return await r.json();
    } catch (e) {
        throw isAbort(e) ? e : new GoneError('it broke off in the middle of its answer');
    }
}

// One event of a stream, of the lines that make it: {event, data}, or null for a mere comment.
function eventOf(lines) {
    let event = 'message';
    const data = [];
    for (const line of lines.split('\n')) {
        if (line.startsWith('data:')) data.push(line.slice(line[5] === ' ' ? 6 : 5));
        else if (line.startsWith('event:')) event = line.slice(6).trim();
    }
    return data.length ? { event, data: data.join('\n') } : null;
}

// Server-sent events as they come. We read them ourselves, not by EventSource: it cannot send a key
// or a body, and hides the status when it is refused. onBytes hears of comments, too.
export async function* events(path, { body, signal, onOpen, onBytes } = {}) {
    const r = await open(path, body, { signal });
    const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    onOpen?.();
    try {
        for (;;) {
            const { done, value } = await reader.read();
            if (done) return;
            onBytes?.();
            text = (text + value).replace(/\r\n?/g, '\n');
            for (let at; (at = text.indexOf('\n\n')) >= 0; text = text.slice(at + 2)) {
                const e = eventOf(text.slice(0, at));
                if (e) yield e;
            }
        }
    } catch (e) {
        if (isAbort(e) || signal?.aborted) throw e;
        throw new GoneError('the connection broke off');
    } finally {
        reader.cancel().catch(() => {});
    }
}
