// A client of the API, of either server's, that looks at the clock: one completion as a stream of
// events, on a connection of its own.
import { request } from 'node:http';

// The streamed completion under way: {over: a promise of itself, stop()}. When it is over it has
// status, error (words, or null), at (when each token came, ms of performance.now()), began, usage,
// retry (seconds), stopped (by stop()). onToken(c) is called for each token; a body that asks for a
// token of one letter again and again gets one event for each.
export function stream(url, body, onToken = () => {}) {
    const c = { status: 0, error: null, at: [], began: performance.now(), usage: null, retry: 0,
        stopped: false };
    c.over = new Promise(done => {
        const text = JSON.stringify({ ...body, stream: true,
            stream_options: { include_usage: true } });
        const req = request(`${url}/v1/completions`, { method: 'POST', agent: false,
            headers: { 'content-type': 'application/json',
                'content-length': Buffer.byteLength(text) } }, res => {
            c.status = res.statusCode;
            c.retry = Number(res.headers['retry-after'] ?? 0);
            read(c, res, onToken, done);
        });
        req.setNoDelay(true);
        req.on('error', e => {
            c.error ??= c.stopped ? null : `${e.code ?? e.message}`;
            done(c);
        });
        c.stop = () => {
            c.stopped = true;
            req.destroy();
            done(c);
        };
        req.end(text);
    });
    return c;
}

function read(c, res, onToken, done) {
    let text = '', ended = false;
    res.setEncoding('utf8');
    res.on('data', piece => {
        text += piece;
        if (c.status !== 200)
            return;
        for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2))
            ended ||= event(c, text.slice(0, end), onToken);
    });
    res.on('end', () => {
        if (c.status !== 200)
            c.error = text.slice(0, 300);
        else if (!ended && !c.stopped)
            c.error ??= 'the stream ended without [DONE]';
        done(c);
    });
    res.on('error', () => {}); // the request says it, too
    res.on('close', () => done(c));
}

// True for the last one.
function event(c, text, onToken) {
    if (!text.startsWith('data: '))
        return false;
    if (text === 'data: [DONE]')
        return true;
    const doc = JSON.parse(text.slice(6));
    if (doc.error)
        c.error = doc.error.message;
    if (doc.usage)
        c.usage = doc.usage;
    if (doc.choices?.[0]?.text) {
        c.at.push(performance.now());
        onToken(c);
    }
    return false;
}

// Any value between 0 and 1 of a list.
export const quantile = (list, q) => {
    const s = [...list].sort((a, b) => a - b);
    return s.length ? s[Math.min(s.length - 1, Math.ceil(q * s.length) - 1)] : undefined;
};
export const gaps = at => at.slice(1).map((t, i) => t - at[i]);
