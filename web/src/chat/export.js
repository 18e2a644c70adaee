// A conversation as a file.
import { titleOf } from './conversations.js';

export function asMarkdown(c) {
    const title = titleOf(c);
    if (c.mode === 'text') return `# ${title}\n\n${c.messages.map(m => m.content).join('')}\n`;
    const part = m =>
        `## ${m.role === 'user' ? 'You' : c.model || 'Answer'}\n\n${m.content.trim()}\n`;
    return `# ${title}\n\n${c.messages.map(part).join('\n')}`;
}

export const asJson = c => `${JSON.stringify({ format: 'lingua-conversation', ...c }, null, 2)}\n`;

function fileName(c, end) {
    const name = titleOf(c)
        .normalize('NFKD')
        .replace(/[^\w]+/g, '-')
        .replace(/^-+|-+$/g, '');
    return `${name.slice(0, 50).toLowerCase() || 'conversation'}.${end}`;
}

export function download(c, end) {
    const [text, type] =
        end === 'md' ? [asMarkdown(c), 'text/markdown'] : [asJson(c), 'application/json'];
    const url = URL.createObjectURL(new Blob([text], { type }));
    const a = document.createElement('a');
    a.href = url;
    a.download = fileName(c, end);
    a.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
}
