// The page of a head that really runs, in a real browser.
import test from 'node:test';
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { skipFile, openApi, withApi, defaultModel, endlessModel } from '../api/rig.mjs';
import { template } from '../api/template.mjs';
import { withKey } from '../cluster/gguf.mjs';
import { until, withRig } from '../cluster/rig.mjs';

export { assert, defaultModel, openApi, test, until, withApi, withRig };

// Random weights that never stop by themselves, large enough that an answer takes its time.
export const chatModel = () => {
    const plain = endlessModel(24);
    return withKey(
        plain,
        plain.replace(/\.gguf$/, '-chat.gguf'),
        'tokenizer.chat_template',
        template,
    );
};

const names = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const program = process.env.LINGUA_CHROMIUM ?? names.find(existsSync);
if (!program || !existsSync(program))
    skipFile(
        'there is no Chromium here (tools/install-deps browser), so nobody looked at the page',
    );

let chromium;
try {
    ({ chromium } = await import('playwright-core'));
} catch {
    skipFile('the package playwright-core is not installed: make deps');
}
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// A browser that asks nobody but the page, and a place in it without memory of the last test.
export async function openBrowser(rig) {
    const browser = await chromium.launch({
        executablePath: program,
        args: [
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
        ],
    });
    rig.closers.push(() => browser.close());
    return browser;
}

// What no page of ours may do, and what its author would like to know of.
class Complaints {
    constructor(page, origin) {
        this.all = [];
        this.expected = []; /* patterns of what a test brings about itself */
        page.on('pageerror', e => this.add(`uncaught: ${e.message}`));
        page.on('console', m => {
            if (m.type() === 'error' || m.type() === 'warning')
                this.add(`console: ${m.text()} ${m.location().url ?? ''}`);
        });
        page.on('request', r => {
            if (!r.url().startsWith(`${origin}/`) && !/^(blob|data):/.test(r.url()))
                this.add(`request to another origin: ${r.url()}`);
        });
    }
    add(what) {
        this.all.push(what);
    }
    expect(pattern) {
        this.expected.push(pattern);
    }
    none() {
        const bad = this.all.filter(what => !this.expected.some(p => p.test(what)));
        assert.deepEqual(bad, []);
    }
}

// The address that serve printed last: [origin, whole with the key].
export async function addressOf(rig) {
    await rig.head.says(/page: (\S+)\/#key=[0-9a-f]+\n/);
    const [, whole, origin] = /page: ((\S+)\/#key=[0-9a-f]+)\n/.exec(rig.head.err);
    return { origin, whole };
}

// key: by the address with its key, as people do.
export async function openPage(rig, { browser, key = true, ...options } = {}) {
    const { origin, whole } = await addressOf(rig);
    browser ??= await openBrowser(rig);
    const context = await browser.newContext({
        viewport: { width: 1280, height: 800 },
        ...options,
    });
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    page.complaints = new Complaints(page, origin);
    page.origin = origin;
    await page.goto(key ? whole : origin);
    await page.waitForSelector('.strip .segment', { state: 'attached' });
    return page;
}

export const say = async (page, text) => {
    await page.fill('#composer', text);
    await page.press('#composer', 'Enter');
};
export const lastAnswer = page => page.locator('.msg.answer').last();
export const textOf = page => lastAnswer(page).locator('.md, .prose').innerText();

// Until the last answer is so: done, stopped, cut, failed.
export const ended = (page, state = 'done') =>
    page.waitForFunction(
        s => [...document.querySelectorAll('.msg.answer')].at(-1)?.classList.contains(s),
        state,
        { timeout: 30000 },
    );

// Serious and critical findings of axe in what is shown now.
export async function axeFinds(page) {
    /* Not by a script element: the page's policy would have none of it, which is as it should be. */
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() =>
        window.axe.run(document, {
            runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
        }),
    );
    return violations
        .filter(v => v.impact === 'serious' || v.impact === 'critical')
        .map(
            v =>
                `${v.id}: ${v.nodes
                    .map(n => n.target)
                    .slice(0, 5)
                    .join(' | ')}: ${v.help}`,
        );
}

// A port that was free a moment ago: for a head that has to come back where it was.
export const freePort = () =>
    new Promise(resolve => {
        const s = createServer().listen(0, '127.0.0.1', () => {
            const { port } = s.address();
            s.close(() => resolve(port));
        });
    });
