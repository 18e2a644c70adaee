// A wire between two devices that can be counted, slowed down, cut and mended.
import net from 'node:net';

const TICK_MS = 20;

class Proxy {
    constructor(host, port) {
        this.target = { host, port };
        this.pairs = new Set();
        this.toDialler = 0; // bytes that went back to whoever dialled
        this.fromDialler = 0;
        this.isCut = false;
        this.rate = Infinity; // bytes per second to the dialler, all connections together
        this.budget = 0;
        this.queue = [];
        this.server = net.createServer({ noDelay: true }, s => this.accept(s));
        this.timer = setInterval(() => this.tick(), TICK_MS);
        this.timer.unref();
    }

    get address() { return `127.0.0.1:${this.server.address().port}`; }

    accept(client) {
        const server = net.connect({ ...this.target, noDelay: true });
        const pair = { client, server };
        this.pairs.add(pair);
        const end = () => {
            this.pairs.delete(pair);
            client.destroy();
            server.destroy();
        };
        const half = (from, to, count) => {
            from.on('error', end);
            from.on('close', () => this.isCut || this.send(to, null, end));
            from.on('data', bytes => {
                count(bytes.length);
                this.send(to, bytes, end);
            });
        };
        half(client, server, n => { this.fromDialler += n; });
        half(server, client, n => { this.toDialler += n; });
        if (this.isCut)
            this.pause(pair);
    }

    // Nothing passes and nothing is closed, as when a cable is pulled.
    pause(pair) {
        pair.client.pause();
        pair.server.pause();
    }

    cut() {
        this.isCut = true;
        for (const pair of this.pairs)
            this.pause(pair);
    }

    // What stood when the wire was cut is gone for good: both ends have given it up, or soon will.
    mend() {
        this.isCut = false;
        for (const { client, server } of this.pairs) {
            client.destroy();
            server.destroy();
        }
        this.pairs.clear();
        this.queue = [];
    }

    send(to, bytes, end) {
        const slow = this.rate !== Infinity && [...this.pairs].some(p => p.client === to);
        if (slow || this.queue.some(q => q.to === to))
            this.queue.push({ to, bytes, end });
        else
            this.pass(to, bytes, end);
    }

    pass(to, bytes, end) {
        if (bytes === null)
            to.end(end);
        else if (!to.destroyed)
            to.write(bytes);
    }

    tick() {
        const more = this.rate * TICK_MS / 1000;
        this.budget = Math.min(more, this.budget + more);
        while (this.queue.length && !this.isCut && this.budget > 0) {
            const { to, bytes, end } = this.queue.shift();
            this.budget -= bytes ? bytes.length : 0;
            this.pass(to, bytes, end);
        }
    }

    close() {
        clearInterval(this.timer);
        this.mend();
        this.server.close();
    }
}

export function proxyTo(address) {
    const [host, port] = address.split(':');
    const p = new Proxy(host, Number(port));
    return new Promise(resolve => p.server.listen(0, '127.0.0.1', () => resolve(p)));
}
