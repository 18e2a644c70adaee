// What a stranger would write for itself after reading docs/protocol.md: frames, a greeting, TLS.
import tls from 'node:tls';
import net from 'node:net';
import { readFileSync } from 'node:fs';

export const STEP = 5, GREET = 11, WELCOME = 12, REFUSE = 13, ROSTER = 14, FETCH = 29;
const VERSION = 2;
export const PAIR = 1, MEMBER = 2, STAGES = 3, BULK = 4;

function varint(value) {
    const out = [];
    for (let v = BigInt(value); ; v >>= 7n) {
        out.push(Number(v & 127n) | (v > 127n ? 128 : 0));
        if (v <= 127n)
            return Buffer.from(out);
    }
}

// Fields by number: numbers or bytes.
export function message(fields) {
    const out = [];
    for (const [number, value] of Object.entries(fields))
        if (typeof value === 'number')
            out.push(varint(number * 8), varint(value));
        else
            out.push(varint(number * 8 + 2), varint(value.length), Buffer.from(value));
    return Buffer.concat(out);
}

export function frame(type, header, payload = Buffer.alloc(0), promised = undefined) {
    const padding = (4 - header.length % 4) % 4;
    const head = Buffer.alloc(12);
    head.writeUInt32LE(promised ?? 8 + header.length + padding + payload.length, 0);
    head.writeUInt16LE(type, 4);
    head.writeUInt32LE(header.length, 8);
    return Buffer.concat([head, header, Buffer.alloc(padding), payload]);
}

export function greet(purpose, name, more = {}) {
    return frame(GREET, message({ 1: VERSION, 2: VERSION, 3: purpose, 4: name, ...more }));
}

function firstFrame(bytes) {
    if (bytes.length < 12)
        return null;
    const type = bytes.readUInt16LE(4), n = bytes.readUInt32LE(8);
    if (bytes.length < 12 + n)
        return null;
    const text = /[\x20-\x7e]{4,}/.exec(bytes.toString('latin1', 12, 12 + n));
    return { type, text: text ? text[0] : '' };
}

// key: the folder of a device whose identity is shown, or PEM text. Ends when the far side hangs
// up, or answers, or after ms: {error, frame, closed}.
export function knock(address, { plain, key, send = [], tlsOptions = {}, ms = 5000, hold } = {}) {
    const [host, port] = address.split(':');
    const pem = key && (key.includes('-----') ? key : readFileSync(`${key}/identity.pem`, 'utf8'));
    return new Promise(resolve => {
        const got = { error: '', frame: null, closed: false, received: Buffer.alloc(0) };
        const socket = plain ? net.connect({ host, port })
            : tls.connect({ host, port, rejectUnauthorized: false, key: pem, cert: pem,
                checkServerIdentity: () => undefined, ...tlsOptions });
        const finish = () => {
            clearTimeout(timer);
            if (!hold)
                socket.destroy();
            resolve(hold ? { ...got, socket } : got);
        };
        const timer = setTimeout(finish, ms);
        socket.on(plain ? 'connect' : 'secureConnect', () => send.forEach(b => socket.write(b)));
        socket.on('data', b => {
            got.received = Buffer.concat([got.received, b]);
            if (!got.frame && (got.frame = plain ? null : firstFrame(got.received)) && hold)
                finish();
        });
        socket.on('error', e => { got.error = `${e.code ?? ''} ${e.message}`; });
        socket.on('close', () => { got.closed = true; finish(); });
    });
}
