// Colours for code, in the languages that people ask models for.
import hljs from 'highlight.js/lib/core';
import bash from 'highlight.js/lib/languages/bash';
import c from 'highlight.js/lib/languages/c';
import cpp from 'highlight.js/lib/languages/cpp';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import go from 'highlight.js/lib/languages/go';
import java from 'highlight.js/lib/languages/java';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import markdown from 'highlight.js/lib/languages/markdown';
import python from 'highlight.js/lib/languages/python';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';

const languages = {
    bash,
    c,
    cpp,
    css,
    diff,
    go,
    java,
    javascript,
    json,
    markdown,
    python,
    rust,
    sql,
    typescript,
    xml,
    yaml,
};
for (const [name, language] of Object.entries(languages)) hljs.registerLanguage(name, language);

const lengthMax = 20000; /* beyond it, plain: it would be coloured anew with each token */
const keptMax = 50;
const kept = new Map();

// HTML of the code, or '' for "leave it as it is" (markdown-it escapes it, then).
export function highlight(code, name) {
    const language = name.toLowerCase();
    if (!hljs.getLanguage(language) || code.length > lengthMax) return '';
    const key = `${language}\n${code}`;
    let html = kept.get(key);
    if (html === undefined) {
        html = hljs.highlight(code, { language, ignoreIllegals: true }).value;
        if (kept.size >= keptMax) kept.delete(kept.keys().next().value);
        kept.set(key, html);
    }
    return html;
}
