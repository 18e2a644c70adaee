// The page's pictures in docs/img, of the fake head in all its scenes, and what axe finds in each:
//     node web/dev/shots.mjs [FOLDER [NAME...]]
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';
import { startFake } from './fake.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const desktop = { width: 1280, height: 800 };
const phone = { width: 390, height: 844 };

const ask = text => async page => {
    await page.fill('#composer', text);
    await page.keyboard.press('Enter');
};
const done = async page => {
    await page.waitForSelector('.msg.answer.done .figures', { timeout: 60000 });
    await page.mouse.move(5, 500);
};
const go = view => async page => {
    await page.click(`.tabs a[href="#/${view}"]`);
    await page.waitForTimeout(300);
};
const click = what => async page => {
    await page.click(what);
    await page.waitForTimeout(200);
};
const scene = name => async (page, fake) => {
    fake.scene(name);
    await page.waitForTimeout(2500);
};
const wait = ms => page => page.waitForTimeout(ms);
const see = what => page => page.locator(what).scrollIntoViewIfNeeded();

// name, scene, what is done, and how it looks: {dark, phone, whole: the view to its end}
const list = [
    [
        'chat-light',
        'quick',
        [ask('Write a Python function that finds the primes below n, and a test.'), done],
    ],
    ['chat-dark', 'quick', [ask('Compare tea and coffee in a short table.'), done], { dark: true }],
    ['chat-phone', 'quick', [ask('Explain how a rainbow comes about.'), done], { phone: true }],
    [
        'chat-streams',
        'three',
        [ask('Explain how a rainbow comes about.'), wait(2500)],
        { dark: true },
    ],
    ['welcome-light', 'three', []],
    ['welcome-phone', 'three', [], { phone: true, dark: true }],
    ['story-light', 'plain', [ask('Once upon a time'), done]],
    ['story-welcome', 'plain', [], { dark: true }],
    [
        'cluster-light',
        'three',
        [go('chat'), ask('Why?'), go('cluster'), wait(1500)],
        { whole: true },
    ],
    [
        'cluster-dark',
        'three',
        [ask('Why?'), go('cluster'), wait(1500)],
        { dark: true, whole: true },
    ],
    [
        'cluster-phone',
        'three',
        [ask('Why?'), go('cluster'), wait(600)],
        { phone: true, whole: true },
    ],
    ['cluster-many', 'many', [go('cluster'), wait(2500)], { whole: true }],
    ['alone', 'alone', [go('cluster')], { whole: true }],
    ['fetching', 'fetching', [go('cluster')], { whole: true }],
    ['lost-device', 'lost', [go('cluster')], { dark: true, whole: true }],
    ['drained', 'drained', [go('cluster')], { whole: true }],
    ['drain', 'three', [go('cluster'), click('text=Drain phone')]],
    ['add-device', 'three', [go('cluster'), click('text=Add a device'), wait(300)]],
    [
        'add-device-phone',
        'three',
        [go('cluster'), click('text=Add a device'), wait(300)],
        { phone: true, dark: true },
    ],
    ['no-session', 'stranger', [go('cluster'), click('text=Add a device'), wait(300)]],
    ['no-key', 'key', [wait(500)]],
    ['queue-full', 'full', [ask('Explain how a rainbow comes about.'), wait(1200)]],
    ['not-ready', 'unready', [ask('Hello?'), wait(1200)], { dark: true }],
    ['error', 'refused', [ask('A question that is too long.'), wait(600)]],
    ['broken-off', 'breaks', [ask('Explain how a rainbow comes about.'), wait(4000)]],
    ['head-gone', 'quick', [ask('Explain how a rainbow comes about.'), done, scene('gone')]],
    [
        'timeline-light',
        'quick',
        [ask('Explain how a rainbow comes about.'), done, go('timeline'), wait(500)],
        { whole: true },
    ],
    [
        'timeline-dark',
        'quick',
        [
            ask('Compare tea and coffee.'),
            done,
            go('timeline'),
            wait(500),
            click('[aria-label="Zoom in"]'),
            click('[aria-label="Zoom in"]'),
            click('[aria-label="Zoom in"]'),
            click('[aria-label="Zoom in"]'),
            wait(400),
        ],
        { dark: true, whole: true },
    ],
    [
        'timeline-phone',
        'quick',
        [ask('Compare tea and coffee.'), done, go('timeline'), wait(500)],
        { phone: true, whole: true },
    ],
    ['timeline-none', 'three', [go('timeline')]],
    ['settings', 'three', [click('.composer .quiet')]],
    ['shortcuts', 'three', [click('[aria-label="Keyboard shortcuts"]')], { dark: true }],
    [
        'conversations-phone',
        'quick',
        [ask('Explain how a rainbow comes about.'), done, click('[aria-label="Conversations"]')],
        { phone: true },
    ],
    [
        'edit',
        'quick',
        [ask('Explain how a rainbow comes about.'), done, click('[aria-label="Edit"]')],
        { dark: true },
    ],
];

const openBrowser = () =>
    chromium.launch({
        executablePath: process.env.LINGUA_CHROMIUM ?? '/usr/bin/chromium',
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

async function complain(page, name) {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    for (const v of violations.filter(x => x.impact !== 'minor'))
        console.log(`${name}: ${v.impact}: ${v.id}: ${v.nodes.map(n => n.target).join(' | ')}`);
}

async function take(browser, fake, [, start, steps, { dark, phone: small, whole } = {}], file) {
    fake.scene(start);
    const context = await browser.newContext({
        viewport: small ? phone : desktop,
        deviceScaleFactor: small ? 2 : 1,
        colorScheme: dark ? 'dark' : 'light',
        reducedMotion: 'reduce',
        hasTouch: Boolean(small),
    });
    const page = await context.newPage();
    page.on(
        'console',
        m => m.type() === 'error' && !/net::ERR|status of/.test(m.text()) && console.log(m.text()),
    );
    page.on('pageerror', e => console.log(String(e)));
    await page.goto(fake.url);
    await page.waitForTimeout(700);
    for (const step of steps) await step(page, fake);
    if (whole) {
        /* The view scrolls, not the page: make the window as high as the view wants to be. */
        const height = await page.evaluate(() => {
            const main = document.getElementById('main');
            return main.scrollHeight + main.offsetTop;
        });
        const { width } = page.viewportSize();
        await page.setViewportSize({ width, height: Math.ceil(height) });
        await page.waitForTimeout(300);
    }
    await page.screenshot({ path: file });
    await complain(page, path.basename(file));
    await context.close();
    try {
        execFileSync('pngquant', ['--force', '--ext', '.png', '--quality', '60-95', file]);
    } catch {
        /* larger, then */
    }
}

const [folder = 'docs/img', ...names] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const fake = await startFake();
const browser = await openBrowser();
for (const shot of list) {
    if (names.length && !names.some(n => shot[0].startsWith(n))) continue;
    await take(browser, fake, shot, path.join(folder, `page-${shot[0]}.png`));
    console.log(shot[0]);
}
await browser.close();
fake.close();
