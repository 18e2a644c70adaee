// node tools/npm-complete.mjs: whether node_modules has every package of package-lock.json, by its hash.
// Those for other systems (esbuild has a program for each) are not missed. Exits 1 when one is.
import { readFileSync } from 'node:fs';

const read = name => {
    try {
        return JSON.parse(readFileSync(name, 'utf8')).packages ?? {};
    } catch {
        return {};
    }
};
const has = (list, what) => !list || (list.some(x => !x.startsWith('!'))
    ? list.includes(what) : !list.includes(`!${what}`));

const wanted = read('package-lock.json'), installed = read('node_modules/.package-lock.json');
const missing = Object.entries(wanted).filter(([where, p]) => where &&
    !(p.optional && !(has(p.os, process.platform) && has(p.cpu, process.arch))) &&
    installed[where]?.integrity !== p.integrity);
process.exit(missing.length ? 1 : 0);
