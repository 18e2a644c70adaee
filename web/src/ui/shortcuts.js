// Keys. Single letters work where nothing is typed, and can be turned off for those who speak to
// their computer, or whose hands slip.
import { makeStore } from '../store.js';
import {
    openConversation,
    startConversation,
    conversations,
    listOf,
} from '../chat/conversations.js';
import { isRunning, stop } from '../chat/generate.js';
import { openDialog } from './Dialog.jsx';
import { show } from './route.js';
import { nextTheme } from './theme.js';

const name = 'lingua.letters';

export const letters = makeStore({ on: localStorage.getItem(name) !== 'off' });

export function setLetters(on) {
    letters.set({ on });
    localStorage.setItem(name, on ? 'on' : 'off');
}

export function focusComposer() {
    show('chat');
    requestAnimationFrame(() => document.getElementById('composer')?.focus());
}

function step(by) {
    const { all, current } = conversations.get();
    const list = listOf(all);
    const at = list.findIndex(c => c.id === current);
    const to = list[at < 0 ? 0 : at + by];
    if (to) openConversation(to.id);
}

export const keys = [
    ['n', 'New conversation', () => (startConversation(), focusComposer())],
    ['/', 'Write', focusComposer],
    ['1', 'Chat', () => show('chat')],
    ['2', 'Cluster', () => show('cluster')],
    ['3', 'Timeline of the last answer', () => show('timeline')],
    ['j', 'The next conversation', () => step(1)],
    ['k', 'The one before', () => step(-1)],
    ['s', 'Settings', () => openDialog('settings')],
    ['t', 'Light, dark, or as the system', nextTheme],
    ['?', 'These shortcuts', () => openDialog('shortcuts')],
];

const typing = e => e.target.closest?.('input, textarea, select, [contenteditable]');

export function onKey(e) {
    if (e.defaultPrevented || document.querySelector('dialog[open]')) return;
    const { current } = conversations.get();
    if (e.key === 'Escape' && isRunning(current)) {
        e.preventDefault();
        stop(current);
        return;
    }
    if (e.key === 'Escape' && e.target.id === 'composer') {
        document.getElementById('main').focus();
        return;
    }
    if (!letters.get().on || e.ctrlKey || e.metaKey || e.altKey || typing(e)) return;
    const found = keys.find(([key]) => key === e.key);
    if (!found) return;
    e.preventDefault();
    found[2]();
}
