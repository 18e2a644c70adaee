// The picture of the cluster follows what happens to it, and the timeline adds up.
import { assert, chatModel, ended, openPage, say, test, until, withApi } from './rig.mjs';

const soonMs = 1000; /* what we promise, of what the head itself knows */
const segments = page =>
    page
        .locator('.strip-place .segment')
        .evaluateAll(all =>
            all.map(s => ({ device: s.dataset.device, modules: Number(s.dataset.modules) })),
        );
const cards = page =>
    page
        .locator('.device')
        .evaluateAll(all => Object.fromEntries(all.map(c => [c.dataset.device, c.dataset.state])));

// The page shows the same stages as /cluster; that they are all of the model.
async function agrees(api, page) {
    const doc = await api.get('/cluster');
    const shown = await segments(page);
    const said = doc.stages.map(s => ({ device: s.device, modules: s.last - s.first + 1 }));
    assert.deepEqual(shown, said);
    assert.equal(
        shown.reduce((sum, s) => sum + s.modules, 0),
        doc.model.n_modules,
    );
    return shown.map(s => s.device);
}

// How long after the head said so the page shows it: both are looked at all the time.
async function follows(api, page, what, about) {
    let head = 0;
    await until(async () => {
        head ||= what(
            await api
                .get('/cluster')
                .then(d => Object.fromEntries(d.devices.map(x => [x.name, x.state]))),
        )
            ? Date.now()
            : 0;
        return what(await cards(page));
    }, `the page shows: ${about}`);
    const late = Math.max(0, Date.now() - (head || Date.now()));
    console.log(`# ${about}: shown ${late} ms after the head said so`);
    assert.ok(late < 5 * soonMs, `${about}: shown after ${late} ms`);
}

const all = { model: chatModel(), devices: ['one', 'two'] };

test(
    'three devices: shown, drained, killed and back',
    withApi(all, async (api, t, rig) => {
        const page = await openPage(rig);
        await page.click('.tabs a[href="#/cluster"]');
        await page.waitForSelector('.device');

        await t.test('three, and their modules are the model', async () => {
            assert.deepEqual(await cards(page), { head: 'ready', one: 'ready', two: 'ready' });
            assert.equal(new Set(await agrees(api, page)).size, 3);
            assert.equal(await page.locator('.chain .stage:not(.end)').count(), 3);
        });
        await t.test('one is drained by its button', async () => {
            await page.click('text=Drain two');
            await page.click('dialog .danger');
            await follows(
                api,
                page,
                s => s.two === 'idle' || s.two === 'draining',
                'two is drained',
            );
            await rig.ready(['one']);
            await follows(api, page, s => s.two === 'idle', 'two holds nothing');
            await until(async () => (await segments(page)).length === 2, 'a strip of two');
            await agrees(api, page);
        });
        await t.test('it joins anew', async () => {
            await rig.two.kill('SIGTERM');
            rig.two = await rig.join('two');
            await rig.ready(['one', 'two']);
            await follows(api, page, s => s.two === 'ready', 'two is ready again');
            await until(async () => (await segments(page)).length === 3, 'a strip of three');
            await agrees(api, page);
        });
        await t.test('one is killed', async () => {
            await rig.one.kill();
            await follows(api, page, s => s.one === 'lost', 'one is lost');
            await rig.ready(['two']);
            await until(async () => (await segments(page)).length === 2, 'a strip of two');
            await agrees(api, page);
            assert.match(await page.locator('[data-device=one] .trouble').innerText(), /\w/);
        });
        await t.test('and back', async () => {
            rig.one = await rig.join('one');
            await rig.ready(['one', 'two']);
            await follows(api, page, s => s.one === 'ready', 'one is back');
            await until(async () => (await segments(page)).length === 3, 'a strip of three');
            await agrees(api, page);
        });
        await t.test('another one is invited: the token, as a code, too', async () => {
            await page.click('text=Add a device');
            await page.waitForSelector('.qr');
            const token = await page.locator('.token pre').innerText();
            await page.keyboard.press('Escape');
            rig.three = await rig.join('three', { token });
            await follows(api, page, s => s.three === 'ready', 'three has joined');
        });
        page.complaints.none();
    }),
);

test(
    'without a session: what needs one says so',
    withApi(all, async (api, t, rig) => {
        const page = await openPage(rig, { key: false });
        await page.click('.tabs a[href="#/cluster"]');
        await page.click('text=Drain two');
        await page.waitForSelector('dialog >> text=needs the page’s own session');
        await page.keyboard.press('Escape');
        page.complaints.expect(/403/);
        await page.click('text=Add a device');
        await page.waitForSelector(
            'dialog >> text=The token is shown to the page’s own session alone',
        );
        assert.equal(await page.locator('.qr').count(), 0);
        await page.keyboard.press('Escape');
        assert.deepEqual(await cards(page), { head: 'ready', one: 'ready', two: 'ready' });
        page.complaints.none();
    }),
);

// "1.04 s", "46.7 ms" in milliseconds.
const number = text => {
    const [, v, unit] = /([\d.]+) (m?s)$/.exec(text.trim()) ?? [null, 0, 'ms'];
    return Number(v) * (unit === 's' ? 1000 : 1);
};

// What the API measured of the last answer, as the page keeps it: to the first token, and the rest.
async function measuredMs(page) {
    const stats = await page.waitForFunction(() => {
        const current = localStorage.getItem('lingua.current');
        return JSON.parse(localStorage.getItem(`lingua.c.${current}`)).messages.at(-1).stats;
    });
    const { ttftMs, tokens, tokensPerS } = await stats.jsonValue();
    return ttftMs + (1000 * tokens) / tokensPerS;
}

test(
    'the timeline of an answer adds up to the time that was measured',
    withApi(all, async (api, t, rig) => {
        const page = await openPage(rig);
        await page.click('.tabs a[href="#/timeline"]');
        await page.waitForSelector('text=Nothing was asked yet');
        await page.click('.tabs a[href="#/chat"]');
        await page.click('.composer >> text=Settings');
        await page.fill('dialog input[type=number]', '200');
        await page.keyboard.press('Escape');
        await say(page, 'Tell me a long story');
        await ended(page);
        const measured = await measuredMs(page);
        await page.click('.answer [aria-label="Timeline"]');
        await page.waitForSelector('.lanes canvas');
        await until(async () => (await api.get('/cluster/timeline')).complete, 'all records');
        await page.waitForTimeout(1500);
        const rows = await page
            .locator('section[aria-labelledby=sums] table')
            .first()
            .locator('tbody tr')
            .evaluateAll(list => list.map(r => [r.dataset.kind, r.cells[3].innerText]));
        const sum = rows.reduce((s, [, text]) => s + number(text), 0);
        console.log(`# parts ${sum.toFixed(1)} ms, measured ${measured.toFixed(1)} ms`);
        assert.ok(Math.abs(sum - measured) < 0.05 * measured, `${sum} and ${measured} ms`);
        assert.equal(rows.filter(([kind]) => kind === 'compute').length, 3);
        const shown = number(
            await page.locator('section[aria-labelledby=sums] tfoot td').nth(2).innerText(),
        );
        assert.ok(Math.abs(shown - sum) < 0.02 * sum, 'the sum shown is not that of the parts');

        await t.test('zoomed, moved and read out by keys', async () => {
            await page.focus('.lanes canvas');
            const picture = () => page.locator('.lanes canvas').evaluate(c => c.toDataURL());
            const before = await picture();
            for (const key of ['+', '+', 'ArrowRight']) await page.keyboard.press(key);
            await until(async () => (await picture()) !== before, 'another part of it');
            await page.keyboard.press('0');
            await until(async () => (await picture()) === before, 'all of it again');
            /* All within one frame: none of them is lost. */
            await page.locator('.lanes canvas').evaluate(c => {
                for (const key of ['+', '+', 'ArrowRight'])
                    c.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
            });
            await until(async () => (await picture()) !== before, 'a part of it by fast keys');
            await page.keyboard.press(']');
            assert.match(await page.locator('.lanes .tip').innerText(), /: .* m?s, from /);
        });
        await t.test('downloaded as a trace', async () => {
            const saved = page.waitForEvent('download');
            await page.click('text=Download the trace');
            const file = await saved;
            assert.equal(file.suggestedFilename(), 'lingua-trace.json');
            const parts = await (await file.createReadStream()).toArray();
            assert.ok(JSON.parse(String(Buffer.concat(parts))));
        });
        page.complaints.none();
    }),
);

test(
    'a tab that nobody looks at gives its connection back, and takes it up again',
    withApi({ model: chatModel() }, async (api, t, rig) => {
        const page = await openPage(rig);
        const hide = hidden =>
            page.evaluate(value => {
                Object.defineProperty(document, 'hidden', { value, configurable: true });
                document.dispatchEvent(new Event('visibilitychange'));
            }, hidden);
        const given = page.waitForEvent('requestfailed', {
            predicate: r => r.url().endsWith('/cluster/events'),
        });
        await hide(true);
        await given;
        await page.waitForTimeout(1000);
        assert.equal(await page.locator('.banner').count(), 0);
        const taken = page.waitForRequest('**/cluster/events');
        await hide(false);
        await taken;
        page.complaints.none();
    }),
);
