// A dialog in the browser's own way: it keeps the focus, Escape closes it, the rest is inert.
import { useEffect, useRef } from 'preact/hooks';
import { makeStore } from '../store.js';
import { IconButton } from './icons.jsx';

// Which dialog is open, and what about: {name: 'drain', device: 'phone'}.
export const dialog = makeStore({ name: null });

export const openDialog = (name, more = {}) => dialog.set({ ...more, name });
export const closeDialog = () => dialog.set({ name: null });

export function Dialog({ title, side, children }) {
    const ref = useRef();
    useEffect(() => {
        const had = document.activeElement;
        ref.current.showModal();
        return () => had?.isConnected && had.focus();
    }, []);
    const beside = e => e.target === ref.current && closeDialog();
    return (
        <dialog
            ref={ref}
            class={side ? `side ${side}` : ''}
            aria-labelledby="dialog-title"
            onClose={closeDialog}
            onMouseDown={beside}
        >
            <div class="dialog-body">
                <header>
                    <h2 id="dialog-title">{title}</h2>
                    <IconButton icon="close" label="Close" keys="Esc" onClick={closeDialog} />
                </header>
                {children}
            </div>
        </dialog>
    );
}
