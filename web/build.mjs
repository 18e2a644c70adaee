// Makes the page out of web/src: node web/build.mjs OUTDIR writes index.html, app.js, app.css and
// icon.svg, all that a browser ever loads of it. Fails when they grow beyond what we promise.
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const files = ['index.html', 'app.js', 'app.css', 'icon.svg'];
const bytesMax = 300 * 1000; /* gzip'ed, all together */

export async function buildPage(out) {
    mkdirSync(out, { recursive: true });
    await build({
        entryPoints: { app: path.join(here, 'src/main.jsx') },
        outdir: out,
        bundle: true,
        minify: true,
        format: 'iife',
        target: ['chrome123', 'firefox120', 'safari17.5'] /* light-dark() of CSS wants these */,
        jsx: 'automatic',
        jsxImportSource: 'preact',
        legalComments: 'eof' /* the notices of what is inside stay inside */,
        logLevel: 'warning',
    });
    for (const name of ['index.html', 'icon.svg'])
        copyFileSync(path.join(here, 'src', name), path.join(out, name));
    const sizes = files.map(
        name => gzipSync(readFileSync(path.join(out, name)), { level: 9 }).length,
    );
    return { sizes, total: sizes.reduce((a, b) => a + b) };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const out = process.argv[2];
    if (!out) {
        console.error('usage: node web/build.mjs OUTDIR');
        process.exit(2);
    }
    const { sizes, total } = await buildPage(out);
    const kb = n => `${(n / 1000).toFixed(1)} kB`;
    console.log(
        `page: ${files.map((name, i) => `${name} ${kb(sizes[i])}`).join(', ')}; ` +
            `together ${kb(total)} of ${kb(bytesMax)}, compressed`,
    );
    if (total > bytesMax) {
        console.error('the page is larger than it may be');
        process.exit(1);
    }
}
