// Light, dark, or as the system has it.
import { makeStore } from '../store.js';

const name = 'lingua.theme';
const order = ['auto', 'light', 'dark'];

function stored() {
    const t = localStorage.getItem(name);
    return order.includes(t) ? t : 'auto';
}

export const theme = makeStore({ theme: stored() });

function show(t) {
    if (t === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = t;
}

export function nextTheme() {
    const t = order[(order.indexOf(theme.get().theme) + 1) % order.length];
    theme.set({ theme: t });
    show(t);
    try {
        localStorage.setItem(name, t);
    } catch {
        /* it holds until the page is closed, then */
    }
}

show(stored());
