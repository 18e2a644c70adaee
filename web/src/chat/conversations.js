// Conversations, kept in this browser alone: one entry of localStorage for each, because a write
// there is done when it returns, so that a reload in the middle of an answer loses nothing.
//
// {id, title, named (by the user), mode: 'chat'|'text', created, updated, messages: [MESSAGE]}
// MESSAGE = {id, role: 'user'|'assistant', content, thinking?, state?, error?, stats?, finish?};
// an answer's state: waiting, streaming, done, stopped (by the user), cut (the page or the head went
// away) or failed.
import { makeStore } from '../store.js';
import { toast } from '../ui/toast.js';

const prefix = 'lingua.c.';
const currentName = 'lingua.current';
const saveEveryMs = 400;

export const newId = () => Date.now().toString(36) + Math.random().toString(36).slice(2, 8);

export const conversations = makeStore({ all: new Map(), current: null });

const dirty = new Set();
let saving = null;

function save(id) {
    const c = conversations.get().all.get(id);
    try {
        if (c?.messages.length) localStorage.setItem(prefix + id, JSON.stringify(c));
        else localStorage.removeItem(prefix + id);
        return true;
    } catch {
        toast(
            'The browser has no room for this conversation any more: export it, or delete others. ' +
                'It goes on, but a reload would lose what is new.',
        );
        return false;
    }
}

function flush() {
    clearTimeout(saving);
    saving = null;
    for (const id of dirty) save(id);
    dirty.clear();
}

function saveSoon(id) {
    dirty.add(id);
    saving ??= setTimeout(flush, saveEveryMs);
}

function read(key) {
    try {
        const c = JSON.parse(localStorage.getItem(key));
        return typeof c?.id === 'string' && Array.isArray(c.messages) ? c : null;
    } catch {
        return null; /* not ours, or damaged: as if it was not there */
    }
}

// Nobody is at work on it any more.
const cut = m => (m.state === 'streaming' || m.state === 'waiting' ? { ...m, state: 'cut' } : m);

export function loadConversations() {
    const all = new Map();
    const keys = Object.keys(localStorage).filter(k => k.startsWith(prefix));
    for (const c of keys.map(read).filter(Boolean))
        all.set(c.id, { ...c, messages: c.messages.map(cut) });
    const current = localStorage.getItem(currentName);
    conversations.set({ all, current: all.has(current) ? current : null });
    if (!all.has(current)) startConversation();
    addEventListener('pagehide', flush);
    addEventListener('storage', heed);
}

// Another tab has written; or this one has, before it was loaded anew, and what that was working on
// would be shown as if somebody still was: what we know already is not taken again.
function heed(e) {
    const { all } = conversations.get();
    if (!e.key?.startsWith(prefix)) return;
    const id = e.key.slice(prefix.length);
    const ours = all.get(id);
    const state = ours?.messages.at(-1)?.state;
    if (state === 'streaming' || state === 'waiting') return;
    const next = new Map(all);
    const c = read(e.key);
    if (c && c.updated === ours?.updated) return;
    if (c) next.set(id, c);
    else if (conversations.get().current !== id) next.delete(id);
    conversations.set({ all: next });
}

export const currentOf = s => s.all.get(s.current);

// The latest first; what is still empty does not count.
export const listOf = all =>
    [...all.values()].filter(c => c.messages.length).sort((a, b) => b.updated - a.updated);

export function openConversation(id) {
    conversations.set({ current: id });
    try {
        localStorage.setItem(currentName, id);
    } catch {
        /* then a reload opens another one */
    }
}

export function startConversation() {
    const { all } = conversations.get();
    const empty = [...all.values()].find(c => !c.messages.length);
    const now = Date.now();
    const c = empty ?? {
        id: newId(),
        title: '',
        mode: 'chat',
        created: now,
        updated: now,
        messages: [],
    };
    conversations.set({ all: new Map(all).set(c.id, c) });
    openConversation(c.id);
    return c.id;
}

// change: what becomes of the conversation, as an object or a function of it.
export function update(id, change) {
    const { all } = conversations.get();
    const c = all.get(id);
    if (!c) return;
    const more = typeof change === 'function' ? change(c) : change;
    conversations.set({ all: new Map(all).set(id, { ...c, ...more, updated: Date.now() }) });
    saveSoon(id);
}

export function updateMessage(id, messageId, change) {
    const of = m => (m.id === messageId ? { ...m, ...change } : m);
    update(id, c => ({ messages: c.messages.map(of) }));
}

export function rename(id, title) {
    update(id, { title: title.trim().slice(0, 120), named: true });
}

function restore(c) {
    conversations.set({ all: new Map(conversations.get().all).set(c.id, c) });
    saveSoon(c.id);
    openConversation(c.id);
}

export function remove(id) {
    const { all, current } = conversations.get();
    const c = all.get(id);
    const next = new Map(all);
    next.delete(id);
    conversations.set({ all: next });
    dirty.delete(id);
    localStorage.removeItem(prefix + id);
    if (current === id) {
        const other = listOf(next)[0];
        if (other) openConversation(other.id);
        else startConversation();
    }
    if (c?.messages.length)
        toast('The conversation is deleted.', { label: 'Undo', run: () => restore(c) });
}

// The beginning of what was said first.
export function titleOf(c) {
    if (c.title) return c.title;
    const text = (c.messages[0]?.content ?? '').replace(/\s+/g, ' ').trim();
    return text.length > 60 ? `${text.slice(0, 58).trimEnd()}…` : text || 'New conversation';
}
