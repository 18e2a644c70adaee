// Who we are to the head. `lingua serve` prints an address with a key behind the #; we trade it once
// for a cookie that scripts cannot read, and take it out of the address, so that it is in no history.
import { ApiError, ask } from './api.js';
import { makeStore } from './store.js';

// session: true, false, or null as long as we do not know. refused: a key was given, but is no good.
// ended: there was a session, and the head does not know it any more.
export const session = makeStore({
    session: null,
    keyWanted: false,
    refused: false,
    ended: false,
});

const keyOf = () => new URLSearchParams(location.hash.slice(1)).get('key');

export async function refreshSession() {
    const s = await ask('/session');
    const is = s.session === true;
    const ended = !is && (session.get().ended || session.get().session === true);
    session.set({ session: is, keyWanted: s.key_wanted === true, ended });
}

// Resolves when the key in the address, if there was one, has been used.
export async function takeKey() {
    const key = keyOf();
    if (!key) return false;
    history.replaceState(null, '', location.pathname);
    try {
        await ask('/session', { key });
        session.set({ session: true, keyWanted: false, refused: false, ended: false });
        return true;
    } catch (e) {
        session.set({ refused: e instanceof ApiError });
        return false;
    }
}
