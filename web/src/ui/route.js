// Which of the three views is shown: in the address behind the #, so that "back" works.
import { makeStore } from '../store.js';

export const views = { chat: 'Chat', cluster: 'Cluster', timeline: 'Timeline' };

const viewOf = () => {
    const name = location.hash.replace(/^#\/?/, '');
    return views[name] ? name : 'chat';
};

export const route = makeStore({ view: viewOf() });

export const hrefOf = view => `#/${view}`;

export function show(view) {
    location.hash = hrefOf(view);
}

addEventListener('hashchange', () => route.set({ view: viewOf() }));
