// What a screen reader hears of an answer: whole sentences, some seconds apart, then how it ended.
// Announcing each token would make it start over and over.
import { makeStore } from '../store.js';

const everyMs = 3000;

export const spoken = makeStore({ text: '' });

let pending = '';
let timer = null;

function speak() {
    const end = Math.max(...['.', '!', '?', '\n', ':'].map(c => pending.lastIndexOf(c))) + 1;
    timer = null;
    if (end) {
        spoken.set({ text: pending.slice(0, end) });
        pending = pending.slice(end);
    }
    if (pending) timer = setTimeout(speak, everyMs);
}

export function announce(text) {
    pending += text;
    if (text) timer ??= setTimeout(speak, everyMs);
}

export function announceEnd(how) {
    clearTimeout(timer);
    timer = null;
    spoken.set({ text: `${pending.trim()} ${how}`.trim() });
    pending = '';
}

export function say(text) {
    spoken.set({ text });
}
