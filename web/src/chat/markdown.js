// An answer's markdown as nodes. A model may write anything, also what somebody smuggled into its
// prompt, so there are three walls: HTML in the text stays text, what markdown-it makes of it is
// sanitised, and the page's Content-Security-Policy runs no script but ours. Images become links:
// to load one would tell its server that, and what, was answered.
import DOMPurify from 'dompurify';
import MarkdownIt from 'markdown-it';
import { highlight } from './highlight.js';

const md = new MarkdownIt({ html: false, linkify: true, breaks: false, highlight });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
md.validateLink = url => /^(https?:|mailto:)/i.test(url.trim());

const escape = md.utils.escapeHtml;

md.renderer.rules.image = (tokens, i) => {
    const t = tokens[i];
    const src = t.attrGet('src');
    return `<a href="${escape(src)}">${escape(t.content || src)}</a>`;
};

// markdown-it aligns cells with style="", which our policy forbids; a class does.
for (const rule of ['th_open', 'td_open'])
    md.renderer.rules[rule] = (tokens, i, options, env, self) => {
        const t = tokens[i];
        const align = /text-align:(\w+)/.exec(t.attrGet('style') ?? '')?.[1];
        t.attrs = align ? [['class', `to-${align}`]] : null;
        return self.renderToken(tokens, i, options);
    };

const allowed = {
    ALLOWED_TAGS: [
        'a',
        'blockquote',
        'br',
        'code',
        'em',
        'h1',
        'h2',
        'h3',
        'h4',
        'h5',
        'h6',
        'hr',
        'li',
        'ol',
        'p',
        'pre',
        's',
        'span',
        'strong',
        'table',
        'tbody',
        'td',
        'th',
        'thead',
        'tr',
        'ul',
    ],
    ALLOWED_ATTR: ['class', 'href', 'start', 'title'],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
};

// The blocks of a text (a paragraph, a list, a fence), each as HTML that is not yet sanitised.
function blocksOf(text) {
    const env = {};
    const blocks = [];
    let block = [];
    let depth = 0;
    for (const token of md.parse(text, env)) {
        block.push(token);
        depth += token.nesting;
        if (depth === 0) {
            blocks.push(md.renderer.render(block, md.options, env));
            block = [];
        }
    }
    return blocks;
}

function copyButton() {
    const b = document.createElement('button');
    b.type = 'button';
    b.className = 'quiet copy-code';
    b.textContent = 'Copy';
    b.setAttribute('aria-label', 'Copy this code');
    return b;
}

// Code gets a line above with its language and a button; a pre that scrolls can be reached by Tab.
function frameCode(pre) {
    const figure = document.createElement('div');
    const line = document.createElement('div');
    const name = document.createElement('span');
    const language = /language-([\w+#.-]+)/.exec(pre.querySelector('code')?.className ?? '')?.[1];
    figure.className = 'code';
    line.className = 'code-head';
    name.textContent = language ?? 'text';
    line.append(name, copyButton());
    pre.replaceWith(figure);
    figure.append(line, pre);
    pre.tabIndex = 0;
    pre.setAttribute('role', 'region');
    pre.setAttribute('aria-label', `code, ${language ?? 'text'}`);
}

function nodeOf(html) {
    const node = document.createElement('div');
    node.className = 'block';
    node.append(DOMPurify.sanitize(html, allowed));
    for (const a of node.querySelectorAll('a')) {
        a.target = '_blank';
        a.rel = 'noopener noreferrer';
    }
    node.querySelectorAll('pre').forEach(frameCode);
    for (const table of node.querySelectorAll('table')) {
        const around = document.createElement('div');
        around.className = 'wide';
        around.tabIndex = 0;
        around.setAttribute('role', 'region');
        around.setAttribute('aria-label', 'table');
        table.replaceWith(around);
        around.append(table);
    }
    return node;
}

// Makes `into` show the text. While an answer streams, only its last block changes from one call to
// the next; those before keep their nodes, and with them what the reader has selected.
export function showMarkdown(into, text) {
    const was = into.blocks ?? [];
    const now = blocksOf(text);
    now.forEach((html, i) => {
        if (html === was[i]) return;
        if (into.children[i]) into.children[i].replaceWith(nodeOf(html));
        else into.append(nodeOf(html));
    });
    while (into.children.length > now.length) into.lastElementChild.remove();
    into.blocks = now;
}
