// For everyone: no serious finding of axe in any view, theme or width; all by the keyboard.
import {
    assert,
    axeFinds,
    chatModel,
    ended,
    openBrowser,
    openPage,
    say,
    test,
    withApi,
} from './rig.mjs';

const ways = [
    ['light, wide', {}],
    ['dark, wide', { colorScheme: 'dark' }],
    ['light, a phone', { viewport: { width: 360, height: 740 }, hasTouch: true }],
    [
        'dark, a phone',
        { viewport: { width: 360, height: 740 }, hasTouch: true, colorScheme: 'dark' },
    ],
];
const views = ['chat', 'cluster', 'timeline'];

const sideways = page => page.evaluate(() => document.documentElement.scrollWidth > innerWidth);

async function looks(page, what, found) {
    await page.waitForTimeout(400); /* what moves has come to rest */
    found.push(...(await axeFinds(page)).map(f => `${what}: ${f}`));
    if (await sideways(page)) found.push(`${what}: wider than the window`);
}

test(
    'axe finds nothing serious',
    withApi({ model: chatModel(), devices: ['one', 'two'] }, async (api, t, rig) => {
        const browser = await openBrowser(rig);
        for (const [name, options] of ways)
            await t.test(name, async () => {
                const found = [];
                const page = await openPage(rig, { browser, reducedMotion: 'reduce', ...options });
                await looks(page, 'welcome', found);
                await page.click('.composer >> text=Settings');
                await looks(page, 'settings', found);
                await page.fill('dialog input[type=number]', '40');
                await page.keyboard.press('Escape');
                await say(page, 'Hello');
                await ended(page);
                for (const view of views) {
                    await page.click(`.tabs a[href="#/${view}"]`);
                    await looks(page, view, found);
                }
                await page.click('.tabs a[href="#/cluster"]');
                await page.click('text=Add a device');
                await page.waitForSelector('.qr');
                await looks(page, 'add a device', found);
                await page.keyboard.press('Escape');
                await page.click('[aria-label="Keyboard shortcuts"]');
                await looks(page, 'shortcuts', found);
                assert.deepEqual(found, []);
                page.complaints.none();
                await page.context().close();
            });
    }),
);

test(
    'all by the keyboard',
    withApi({ model: chatModel() }, async (api, t, rig) => {
        const page = await openPage(rig);
        const focused = () =>
            page.evaluate(() => document.activeElement.id || document.activeElement.ariaLabel);
        await page.waitForSelector('.suggestions button');
        assert.equal(await focused(), 'composer');
        await page.keyboard.type('Hello');
        await page.keyboard.press('Shift+Enter');
        await page.keyboard.type('there');
        await page.keyboard.press('Enter');
        await page.waitForSelector('.msg.answer.streaming');
        await page.keyboard.press('Escape');
        await ended(page, 'stopped');
        assert.equal(await page.locator('.msg.user .prose').innerText(), 'Hello\nthere');
        const views = { 2: '.cluster', 3: '.timeline', 1: '.chat' };
        for (const key of '231') {
            await page.keyboard.press(
                'Escape',
            ); /* leaves the message, in which letters are letters */
            await page.keyboard.press(key);
            await page.waitForSelector(views[key]);
        }
        await page.keyboard.press('Escape');
        await page.keyboard.press('?');
        await page.waitForSelector('dialog .keys');
        await page.keyboard.press('2');
        assert.equal(
            await page.locator('.cluster').count(),
            0,
            'a key works behind an open dialog',
        );
        await page.keyboard.press('Escape');
        await page.waitForSelector('dialog', { state: 'detached' });
        await page.keyboard.press('t');
        assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
        await page.keyboard.press('/');
        await page.waitForFunction(() => document.activeElement.id === 'composer');
        page.complaints.none();
    }),
);
