// node web/build.mjs OUTDIR: the page as the program serves it, files that need nothing else.
import { cpSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const out = process.argv[2];
if (!out) {
    console.error('node web/build.mjs OUTDIR');
    process.exit(2);
}
mkdirSync(out, { recursive: true });
await build({ entryPoints: [path.join(here, 'src/app.js')], outdir: out, bundle: true, minify: true,
    format: 'esm', target: 'es2022', logLevel: 'warning' });
for (const name of ['index.html', 'app.css', 'icon.svg'])
    cpSync(path.join(here, 'src', name), path.join(out, name));
