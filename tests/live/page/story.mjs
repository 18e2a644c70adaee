// A model without a chat template: it continues a text, and the page says so.
import {
    assert,
    defaultModel,
    ended,
    lastAnswer,
    openPage,
    say,
    test,
    textOf,
    withApi,
} from './rig.mjs';

test(
    'a text is continued, and goes on',
    withApi({ model: defaultModel() }, async (api, t, rig) => {
        const page = await openPage(rig);
        await page.waitForSelector('text=it continues the text that you begin');
        await page.click('.composer >> text=Settings');
        await page.locator('dialog input[type=range]').first().fill('0');
        await page.fill('dialog input[type=number]', '30');
        await page.keyboard.press('Escape');

        await t.test('what is typed is the beginning', async () => {
            await say(page, 'Once upon a time');
            await ended(page);
            const { choices } = await api.get('/v1/completions', {
                prompt: 'Once upon a time',
                max_tokens: 30,
                temperature: 0,
            });
            assert.equal((await textOf(page)).trim(), choices[0].text.trim());
            assert.match(await lastAnswer(page).locator('.figures').innerText(), /30 tokens/);
        });
        await t.test('it goes on where it ended', async () => {
            await page.click('text=Go on');
            await ended(page);
            assert.equal(await page.locator('.msg.answer').count(), 2);
            const { choices } = await api.get('/v1/completions', {
                prompt: 'Once upon a time',
                max_tokens: 60,
                temperature: 0,
            });
            const whole = (await page.locator('.msg .prose').allTextContents()).join('');
            assert.equal(whole, `Once upon a time${choices[0].text}`);
        });
        await t.test('beyond the context, too: its beginning is left behind', async () => {
            for (let i = 0; i < 7; i++) {
                await page.click('text=Go on');
                await page.waitForFunction(
                    n => document.querySelectorAll('.msg.answer').length === n,
                    i + 3,
                );
                await ended(page);
            }
            assert.equal(await page.locator('.note.bad').count(), 0);
            assert.ok((await textOf(page)).length > 20);
        });
        page.complaints.none();
    }),
);
