// State that several parts of the page look at: a value that is replaced, never changed, and those
// who want to know.
import { useLayoutEffect, useRef, useState } from 'preact/hooks';

export function makeStore(state) {
    const listeners = new Set();
    return {
        get: () => state,
        set(change) {
            state = { ...state, ...change };
            listeners.forEach(listen => listen());
        },
        subscribe(listen) {
            listeners.add(listen);
            return () => listeners.delete(listen);
        },
    };
}

// Draws the component again when what it selects has become another value.
export function useStore(store, select = s => s) {
    const [, redraw] = useState(0);
    const value = select(store.get());
    const seen = useRef();
    seen.current = { select, value };
    useLayoutEffect(() => {
        const look = () => {
            if (seen.current.select(store.get()) !== seen.current.value) redraw(n => n + 1);
        };
        look(); /* it may have changed between drawing and now */
        return store.subscribe(look);
    }, [store]);
    return value;
}
