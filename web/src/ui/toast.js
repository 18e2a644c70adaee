// A word at the edge of the page, now and then with something to do about it.
import { makeStore } from '../store.js';

export const toasts = makeStore({ text: '', action: null });

let timer;

export function toast(text, action = null) {
    clearTimeout(timer);
    toasts.set({ text, action });
    timer = setTimeout(closeToast, action ? 8000 : 5000);
}

export function closeToast() {
    clearTimeout(timer);
    toasts.set({ text: '', action: null });
}

export async function copyText(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        return copyOldWay(text); /* plain http from another machine has no clipboard */
    }
}

function copyOldWay(text) {
    const box = document.createElement('textarea');
    const had = document.activeElement;
    box.value = text;
    box.className = 'hidden';
    document.body.append(box);
    box.select();
    const done = document.execCommand('copy');
    box.remove();
    had?.focus();
    return done;
}
