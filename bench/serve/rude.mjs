// A client that breaks the rules in the ways that servers die of. What it gets does not matter;
// that the others do not feel it does.
import { connect } from 'node:net';
import { sleep } from '../net/machines.mjs';
import { random } from './polite.mjs';

const HOLD_MS = 4000, FLOOD_BYTES = 4 << 20;

const post = (path, body, length = body.length) => `POST ${path} HTTP/1.1\r\nHost: a\r\n` +
    `Content-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${body}`;
const LONG = JSON.stringify({ prompt: 'once upon a time', n_predict: 200, n_probs: 64, stream: true,
    ignore_eos: true });

export class Rude {
    constructor(url, number, seed) {
        Object.assign(this, { url: new URL(url), done: [], ending: false });
        this.random = random(7777 * seed + number);
    }

    async run() {
        const kinds = ['slowReader', 'slowWriter', 'halfClosed', 'halfRequest', 'headers',
            'oneHeader', 'garbage', 'tooLong', 'badChunks', 'silent'];
        while (!this.ending) {
            const kind = kinds[this.random(kinds.length)];
            await this[kind]();
            this.done.push({ kind, rude: true, error: null });
        }
    }

    // A connection for at most HOLD_MS, with which what(socket) does as it likes. Over when either
    // side ends.
    async with(what) {
        const s = connect({ port: Number(this.url.port), host: this.url.hostname,
            allowHalfOpen: true });
        const over = new Promise(done => s.on('close', done));
        s.on('error', () => {});
        s.on('end', () => s.destroy());
        const timer = setTimeout(() => s.destroy(), HOLD_MS);
        s.on('connect', () => what(s));
        await over;
        clearTimeout(timer);
    }
    async pour(s, piece, bytes) {
        for (let n = 0; n < bytes && !s.destroyed; n += piece.length)
            if (!s.write(piece))
                await Promise.race([new Promise(done => s.once('drain', done)), sleep(200)]);
    }

    // Asks for megabytes of probabilities and reads none.
    slowReader() {
        return this.with(s => {
            s.pause();
            s.write(post('/completion', LONG));
        });
    }
    slowWriter() {
        return this.with(async s => {
            for (const letter of post('/v1/completions', LONG)) {
                s.write(letter);
                await sleep(20);
                if (s.destroyed)
                    return;
            }
        });
    }
    halfClosed() {
        return this.with(s => {
            s.end(post('/completion', LONG));
            s.resume();
        });
    }
    halfRequest() {
        const text = post('/completion', LONG);
        return this.with(s => {
            s.end(text.slice(0, 1 + this.random(text.length - 1)));
            s.resume();
        });
    }
    headers() {
        return this.with(s => {
            s.resume();
            s.write('GET /health HTTP/1.1\r\n');
            void this.pour(s, 'X-Flood: abcdefghijklmnopqrstuvwxyz\r\n'.repeat(50), FLOOD_BYTES);
        });
    }
    oneHeader() {
        return this.with(s => {
            s.resume();
            s.write('GET /health HTTP/1.1\r\nX-Flood: ');
            void this.pour(s, 'a'.repeat(16384), FLOOD_BYTES);
        });
    }
    garbage() {
        return this.with(s => {
            s.resume();
            s.write(Buffer.from(Array.from({ length: 600 }, () => this.random(256))));
        });
    }
    // More than it may be, and it never comes.
    tooLong() {
        return this.with(s => {
            s.resume();
            s.write(post('/completion', LONG, 1 + this.random(2) * 0x7fffffff + LONG.length));
        });
    }
    badChunks() {
        return this.with(s => {
            s.resume();
            s.write('POST /completion HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n' +
                ['zz\r\n', '-5\r\nabc', 'ffffffffffffffff\r\nabc', '5\r\nabcdefgh\r\n0\r\n\r\n']
                    [this.random(4)]);
        });
    }
    silent() {
        return this.with(s => s.resume());
    }
}
