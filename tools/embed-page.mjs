// node tools/embed-page.mjs DIR OUT.c: the files of DIR, which make the page, as C (src/api/page_files.h).
// Every file is there twice, as it is and gzip'ed, so that the program need not know how to inflate.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';

const types = {
    '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8',
    '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml', '.png': 'image/png',
    '.woff2': 'font/woff2', '.json': 'application/json', '.webmanifest': 'application/manifest+json',
    '.txt': 'text/plain; charset=utf-8',
};
const lineBytes = 24;

function fail(why) {
    console.error(`embed-page: ${why}`);
    process.exit(1);
}

// As pieces of one string, in octal, which no digit behind it can make longer.
function literal(bytes) {
    const lines = [];
    for (let i = 0; i < bytes.length; i += lineBytes) {
        const octal = [...bytes.subarray(i, i + lineBytes)].map(b =>
            `\\${b.toString(8).padStart(3, '0')}`);
        lines.push(`    "${octal.join('')}"`);
    }
    return lines.join('\n') || '    ""';
}

const [dir, out] = process.argv.slice(2);
if (!dir || !out)
    fail('node tools/embed-page.mjs DIR OUT.c');
const names = readdirSync(dir, { withFileTypes: true }).map(f => {
    if (!f.isFile() || !/^[a-z0-9][a-z0-9._-]*$/i.test(f.name) || !types[path.extname(f.name)])
        fail(`${f.name}: only files of the kinds ${Object.keys(types).join(' ')}`);
    return f.name;
}).sort();
if (!names.includes('index.html'))
    fail(`there is no index.html in ${dir}`);

const arrays = [], rows = [];
names.forEach((name, i) => {
    const bytes = readFileSync(path.join(dir, name)), gz = gzipSync(bytes, { level: 9 });
    const etag = createHash('sha256').update(bytes).digest('hex').slice(0, 24);
    gz[9] = 255; // the system it was made on, which is nobody's business and would differ
    arrays.push(`static const char plain${i}[] =\n${literal(bytes)};`,
        `static const char gz${i}[] =\n${literal(gz)};`);
    rows.push(`    {"${name === 'index.html' ? '/' : `/${name}`}", "${types[path.extname(name)]}", ` +
        `"${etag}",\n     plain${i}, sizeof plain${i} - 1, gz${i}, sizeof gz${i} - 1},`);
});
writeFileSync(out, `/* Made by tools/embed-page.mjs of what web/build.mjs has made. */
#include "api/page_files.h"

${arrays.join('\n')}

const struct page_file page_files[] = {
${rows.join('\n')}
};
const int page_n_files = ${names.length};
`);
