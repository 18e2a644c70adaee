// A conversation with a real head and two devices, as somebody at the keyboard would have it.
import {
    assert,
    chatModel,
    ended,
    freePort,
    lastAnswer,
    openApi,
    openBrowser,
    openPage,
    say,
    test,
    textOf,
    until,
    withRig,
    addressOf,
} from './rig.mjs';

const devices = ['one', 'two'];
const figures = page => lastAnswer(page).locator('.figures').innerText();
const streaming = page => page.waitForSelector('.msg.answer.streaming');
const stop = async page => {
    await page.click('[aria-label="Stop"]');
    await ended(page, 'stopped');
};
const messages = page => page.locator('.msg').count();

// Random weights with a chat template: they never stop by themselves.
async function begin(rig) {
    rig.port = await freePort();
    const api = await openApi(rig, {
        model: chatModel(),
        devices,
        args: ['--port', String(rig.port)],
    });
    const page = await openPage(rig);
    await page.waitForSelector('.suggestions button');
    return { api, page };
}

test(
    'a conversation is typed, streams, is stopped, regenerated and edited',
    withRig(async (rig, t) => {
        const { api, page } = await begin(rig);
        assert.equal(new URL(page.url()).hash, '', 'the key stays in the address');

        await t.test('it streams', async () => {
            await say(page, 'Hello there');
            await streaming(page);
            const early = (await textOf(page)).length;
            await until(async () => (await textOf(page)).length > early + 20, 'more of the answer');
            assert.equal(await page.locator('.msg.user .prose').innerText(), 'Hello there');
        });
        await t.test('it is stopped, and the head stops, too', async () => {
            await stop(page);
            await api.idle();
            const text = await textOf(page);
            await page.waitForTimeout(300);
            assert.equal(await textOf(page), text);
            assert.match(await figures(page), /about [\d.]+ tokens\/s · first token .* · stopped/);
        });
        await t.test('Escape stops, too', async () => {
            await say(page, 'Again');
            await streaming(page);
            await page.keyboard.press('Escape');
            await ended(page, 'stopped');
            assert.equal(await messages(page), 4);
        });
        await t.test('settings: so many tokens, always the likeliest', async () => {
            await page.click('text=Settings');
            await page.fill('dialog input[type=number]', '24');
            await page.locator('dialog input[type=range]').first().fill('0');
            await page.fill('dialog textarea', 'Be brief.');
            await page.keyboard.press('Escape');
            const asked = page.waitForRequest('**/v1/chat/completions');
            await say(page, 'One more');
            const body = (await asked).postDataJSON();
            assert.equal(body.max_tokens, 24);
            assert.equal(body.temperature, 0);
            assert.equal(body.top_p, 0.95);
            assert.deepEqual(
                body.messages.map(m => m.role),
                ['system', 'user', 'assistant', 'user', 'assistant', 'user'],
            );
            await ended(page);
            assert.match(
                await figures(page),
                /^[\d.]+ tokens\/s · first token [\d.]+ m?s · 24 tokens/,
            );
        });
        await t.test('regenerated: at temperature 0 it says the same', async () => {
            const before = await textOf(page);
            await lastAnswer(page).getByLabel('Regenerate').click();
            await ended(page);
            assert.equal(await textOf(page), before);
            assert.equal(await messages(page), 6);
        });
        await t.test('edited: what followed is gone, and answered anew', async () => {
            await page.locator('.msg.user').first().hover();
            await page.locator('.msg.user').first().getByLabel('Edit').click();
            await page.fill('.editor textarea', 'Good evening');
            await page.press('.editor textarea', 'Enter');
            await ended(page);
            assert.equal(await messages(page), 2);
            assert.equal(await page.locator('.msg.user .prose').innerText(), 'Good evening');
        });
        await t.test('several conversations: named, opened, deleted, brought back', async () => {
            await page.click('[aria-label="Rename"]');
            await page.fill('.title-input', 'An evening');
            await page.press('.title-input', 'Enter');
            await page.click('text=New conversation');
            await say(page, 'Another one');
            await ended(page);
            const list = page.locator('.beside .conversations button');
            assert.deepEqual(await list.locator('.title').allInnerTexts(), [
                'Another one',
                'An evening',
            ]);
            await list.nth(1).click();
            assert.equal(await page.locator('.msg.user .prose').innerText(), 'Good evening');
            await page.click('[aria-label="Delete"]');
            assert.equal(await list.count(), 1);
            await page.click('text=Undo');
            assert.equal(await list.count(), 2);
        });
        await t.test('exported', async () => {
            for (const [label, pattern] of [
                ['As Markdown', /^# An evening\n\n## You\n\nGood evening\n/],
                ['As JSON', /"format": "lingua-conversation"/],
            ]) {
                await page.click('[aria-label="Export"]');
                const saved = page.waitForEvent('download');
                await page.click(`text=${label}`);
                const text = await (await (await saved).createReadStream()).toArray();
                assert.match(String(Buffer.concat(text)), pattern);
            }
        });
        page.complaints.none();
    }),
);

test(
    'it survives a reload in mid-answer, and a head that starts anew',
    withRig(async (rig, t) => {
        const { page } = await begin(rig);

        await t.test('a reload', async () => {
            await say(page, 'Tell me everything');
            await streaming(page);
            await until(async () => (await textOf(page)).length > 200, 'a good part of it');
            await page.reload();
            await ended(page, 'cut');
            /* What the page before it wrote is told late, if at all: it is nobody's work any more. */
            await page.evaluate(() => {
                const key = `lingua.c.${localStorage.getItem('lingua.current')}`;
                dispatchEvent(new StorageEvent('storage', { key }));
            });
            await page.waitForTimeout(300);
            await ended(page, 'cut');
            assert.ok((await textOf(page)).length > 100, 'what had come is lost');
            assert.match(await figures(page), /broke off/);
            assert.equal(
                await page.evaluate(async () => (await (await fetch('/session')).json()).session),
                true,
            );
        });
        await t.test(
            'the head ends in mid-answer: what had come stays, the page says so',
            async () => {
                page.complaints.expect(/Failed to load resource|ERR_(CONNECTION|INCOMPLETE|EMPTY)/);
                await lastAnswer(page).getByLabel('Regenerate').click();
                await streaming(page);
                await until(async () => (await textOf(page)).length > 50, 'some of it');
                await rig.head.kill();
                await ended(page, 'cut');
                await page.waitForSelector('text=The head does not answer');
                assert.ok((await textOf(page)).length > 50);
            },
        );
        await t.test(
            'it is back: the page finds it, knows that its session ended, and goes on',
            async () => {
                const before = await textOf(page);
                await rig.serve({
                    model: chatModel(),
                    listen: rig.address,
                    args: ['--port', String(rig.port)],
                });
                await page.waitForSelector('text=The head does not answer', { state: 'detached' });
                await page.waitForSelector('text=this page’s session has ended');
                assert.equal(await textOf(page), before);
                await rig.ready(devices);
                await page.click('text=Settings');
                await page.fill('dialog input[type=number]', '12');
                await page.keyboard.press('Escape');
                await lastAnswer(page).getByRole('button', { name: 'Try again' }).click();
                await ended(page);
                assert.match(await figures(page), /12 tokens/);
            },
        );
        await t.test('the new address lets it in again, without loading anew', async () => {
            const { whole } = await addressOf(rig);
            await page.evaluate(to => {
                location.href = to;
            }, whole);
            await page.waitForSelector('text=this page’s session has ended', { state: 'detached' });
            assert.equal(
                await page.evaluate(async () => (await (await fetch('/session')).json()).session),
                true,
            );
            assert.equal(new URL(page.url()).hash, '');
        });
        page.complaints.none();
    }),
);

const hostile = [
    'Before <b>bold</b> <script>document.title = "hacked"</script>',
    '<img src=x onerror="document.title=\'hacked\'"><svg onload="document.title=\'hacked\'">',
    '![picture](https://example.com/pixel.png) and [link](javascript:document.title=%22hacked%22)',
    '```html\n<script>document.title = "hacked"</script>\n```',
    '| a | b |\n|--:|---|\n| 1 | <iframe src="https://example.com"></iframe> |',
    '[good](https://example.com/page) <style>body { display: none }</style>',
].join('\n\n');

test(
    'HTML within an answer is shown as text, and never run',
    withRig(async rig => {
        const { page } = await begin(rig);
        await page.route('**/v1/chat/completions', route => {
            const events = [...hostile].map(c => ({
                choices: [{ index: 0, delta: { content: c } }],
            }));
            events.push({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
            route.fulfill({
                contentType: 'text/event-stream',
                body: `${events.map(e => `data: ${JSON.stringify(e)}\n\n`).join('')}data: [DONE]\n\n`,
            });
        });
        await say(page, 'Do your worst');
        await ended(page);
        const answer = lastAnswer(page).locator('.md');
        const shown = await answer.innerText();
        for (const text of [
            '<b>bold</b>',
            '<script>document.title = "hacked"</script>',
            '<img src=x onerror=',
            '<svg onload=',
            '<iframe src="https://example.com"></iframe>',
            '<style>body',
        ])
            assert.ok(shown.includes(text), `not shown: ${text}`);
        assert.equal(await answer.locator('script, img, svg, iframe, style, b').count(), 0);
        const links = await answer
            .locator('a')
            .evaluateAll(all => all.map(a => [a.href, a.rel, a.target]));
        assert.deepEqual(
            links.map(([href]) => href),
            ['https://example.com/pixel.png', 'https://example.com/', 'https://example.com/page'],
        );
        assert.ok(
            links.every(([, rel, target]) => rel === 'noopener noreferrer' && target === '_blank'),
        );
        assert.equal(
            (await answer.locator('pre .hljs-tag').count()) > 0,
            true,
            'code is not coloured',
        );
        assert.notEqual(await page.title(), 'hacked');
        page.complaints.none();
    }),
);

test(
    'a full queue is said, and asked again',
    withRig(async rig => {
        const { page } = await begin(rig);
        let times = 0;
        page.complaints.expect(/503/);
        await page.route('**/v1/chat/completions', route =>
            ++times > 2
                ? route.continue()
                : route.fulfill({
                      status: 503,
                      headers: { 'Retry-After': '60' },
                      contentType: 'application/json',
                      body: JSON.stringify({
                          error: { message: 'the queue is full', code: 'server_busy' },
                      }),
                  }),
        );
        await say(page, 'Hello');
        await page.waitForSelector('text=The queue is full');
        await page.waitForSelector('text=/Next try in \\d+ s/');
        await page.click('text=Try now');
        await until(() => times === 2, 'the second try');
        await page.click('text=Try now');
        await streaming(page);
        await stop(page);
        page.complaints.none();
    }),
);

test(
    'with API keys, and without one: it says how to get in',
    withRig(async rig => {
        const api = await openApi(rig, {
            model: chatModel(),
            args: ['--api-key', 'sk-0123456789abcdef'],
        });
        const { origin, whole } = await addressOf(rig);
        const browser = await openBrowser(rig);
        const page = await (await browser.newContext()).newPage();
        await page.goto(origin);
        await page.waitForSelector('text=This head wants a key');
        await page.fill('input[type=password]', 'sk-0123456789abcdef');
        await page.click('text=Use it');
        await page.waitForSelector('.suggestions button');
        const within = await openPage(rig, { browser });
        assert.equal(within.url(), `${origin}/`);
        await say(within, 'Hello');
        await streaming(within);
        await stop(within);
        within.complaints.none();
        assert.ok(whole && api);
    }),
);
