// A head that is none: serves the page and everything it asks for, with figures that move and a model
// that says what it always says. For work on the page and for pictures of its states:
//     node web/dev/fake.mjs [PORT]
// POST /fake {"scene": NAME} changes what it pretends (scenes.mjs has the names).
import { createServer } from 'node:http';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildPage } from '../build.mjs';
import { answers, qr } from './says.mjs';
import { sceneDocument, scenes } from './scenes.mjs';
import { timeline } from './timeline.mjs';

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const csp =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const types = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' };

// For another mjs: {url, scene(name), close()}
export async function startFake(port = 0) {
    const out = mkdtempSync(path.join(os.tmpdir(), 'lingua-page-'));
    const state = { scene: 'three', streams: 0, sockets: new Set(), last: null, began: Date.now() };
    await buildPage(out);
    process.on('exit', () => rmSync(out, { recursive: true, force: true }));
    const server = createServer((request, response) =>
        answer(state, out, request, response).catch(() => response.destroy()),
    );
    server.on('connection', s => {
        state.sockets.add(s);
        s.on('close', () => state.sockets.delete(s));
    });
    await new Promise(resolve => server.listen(port, '127.0.0.1', resolve));
    return {
        url: `http://127.0.0.1:${server.address().port}`,
        scene: name => setScene(state, name),
        close: () => (state.sockets.forEach(s => s.destroy()), server.close()),
    };
}

function setScene(state, name) {
    if (!scenes[name]) throw new Error(`no scene ${name}`);
    state.scene = name;
    state.sockets.forEach(s => s.destroy());
}

function send(response, status, value, headers = {}) {
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
    response.end(JSON.stringify(value));
}

const fail = (response, status, message, code, headers) =>
    send(response, status, { error: { message, type: 'server_error', code } }, headers);

async function bodyOf(request) {
    let text = '';
    for await (const part of request) text += part;
    return text ? JSON.parse(text) : {};
}

async function clusterEvents(state, response) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('retry: 1000\n\n');
    while (!response.destroyed) {
        const data = JSON.stringify(sceneDocument(state));
        response.write(`event: cluster\ndata: ${data}\n\n`);
        await sleep(500);
    }
}

async function generate(state, body, response) {
    const scene = scenes[state.scene];
    const chat = Boolean(body.messages);
    const text = chat ? answers.pick(body.messages.at(-1).content) : answers.story;
    const words = text.match(/\s*\S+|\s+$/g);
    const event = e => response.write(`data: ${JSON.stringify(e)}\n\n`);
    if (scene.refuse) return fail(response, ...scene.refuse);
    if (chat && scene.plain)
        return fail(
            response,
            400,
            'the model has no chat template; it can only continue text',
            null,
        );
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    state.streams++;
    response.on('close', () => state.streams--);
    await sleep(350);
    for (const [i, word] of words.entries()) {
        if (response.destroyed) return;
        if (scene.breaks && i === 40) {
            event({ error: { message: scene.breaks, code: 'model_not_ready' } });
            return response.end();
        }
        event({ choices: [chat ? { delta: { content: word } } : { text: word }] });
        await sleep(scene.quick ? 1 : 45);
    }
    const n = words.length;
    const timings = {
        prompt_n: 24,
        predicted_n: n,
        ttft_ms: 352.1,
        queue_ms: 0.1,
        predicted_per_second: 21.4,
        cache_n: 0,
    };
    event({ choices: [{ delta: {}, text: '', finish_reason: 'stop' }] });
    event({ choices: [], usage: { completion_tokens: n }, timings });
    state.last = n;
    response.end('data: [DONE]\n\n');
}

async function answer(state, out, request, response) {
    const scene = scenes[state.scene];
    const where = request.url.split('?')[0];
    const denied = scene.wantsKey && where !== '/session';
    if (request.method === 'GET' && (where === '/' || /^\/[\w]+\.(js|css|svg)$/.test(where))) {
        const name = where === '/' ? 'index.html' : where.slice(1);
        const type = types[name.split('.').at(-1)];
        response.writeHead(200, { 'Content-Type': type, 'Content-Security-Policy': csp });
        return response.end(readFileSync(path.join(out, name)));
    }
    if (where === '/fake') return setScene(state, (await bodyOf(request)).scene);
    if (scene.gone) return response.destroy();
    if (where === '/session' && request.method === 'GET')
        return send(response, 200, {
            session: !scene.stranger,
            key_wanted: Boolean(scene.wantsKey),
        });
    if (where === '/session') return send(response, 200, { session: true });
    if (denied) return fail(response, 401, 'an API key is wanted', 'invalid_api_key');
    if (where === '/props')
        return send(response, 200, {
            chat_template: scene.plain ? '' : '{{ messages }}',
            n_ctx: 2048,
            model_alias: scene.plain ? 'stories15M' : 'tinyllama-chat',
        });
    if (where === '/cluster') return send(response, 200, sceneDocument(state));
    if (where === '/cluster/events') return clusterEvents(state, response);
    if (where === '/cluster/timeline') return send(response, 200, timeline(state));
    if (where === '/cluster/trace') return send(response, 200, []);
    if (where === '/cluster/drain' || where === '/cluster/invite') {
        if (scene.stranger) return fail(response, 403, 'this needs the session', 'session_needed');
        const token = 'lingua1:4KQX-9ZRM-7T2B-WJ3E-P6HD-0VNA@192.168.1.5:41300';
        const command = 'lingua join 192.168.1.5:41300';
        return send(response, 200, { token, command, expires_s: 600, qr, name: 'phone' });
    }
    if (/^\/v1\/(chat\/)?completions$/.test(where))
        return generate(state, await bodyOf(request), response);
    return fail(response, 404, `no such path: ${where}`, 'unknown_url');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const fake = await startFake(Number(process.argv[2] ?? 8090));
    console.log(`${fake.url}  scenes: ${Object.keys(scenes).join(', ')}`);
}
