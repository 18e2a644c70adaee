// Draining a device: it is left out of every plan until it joins anew. Asked for twice, since answers
// that are on their way over it may end.
import { useState } from 'preact/hooks';
import { ask } from '../api.js';
import { session } from '../session.js';
import { useStore } from '../store.js';
import { Dialog, closeDialog, dialog, openDialog } from '../ui/Dialog.jsx';
import { SignIn } from '../ui/SignIn.jsx';
import { toast } from '../ui/toast.js';

export function Drain() {
    const { device } = useStore(dialog);
    const known = useStore(session, s => s.session);
    const [state, setState] = useState({ busy: false, error: '' });
    const drain = async () => {
        setState({ busy: true, error: '' });
        try {
            await ask('/cluster/drain', { name: device });
            closeDialog();
            toast(`${device} is being drained.`);
        } catch (e) {
            if (e.code === 'session_needed') openDialog('signin');
            else setState({ busy: false, error: e.message });
        }
    };
    if (known === false) return <SignIn />;
    return (
        <Dialog title={`Drain ${device}?`}>
            <p>
                The others take over its part of the model; they may have to fetch it first. It
                takes part again when <code>lingua join</code> is started anew on it.
            </p>
            {state.error && (
                <p class="note bad" role="alert">
                    <b>It was not drained</b>: {state.error}
                </p>
            )}
            <div class="row end">
                <button type="button" class="button" onClick={closeDialog}>
                    Cancel
                </button>
                <button type="button" class="button danger" disabled={state.busy} onClick={drain}>
                    Drain {device}
                </button>
            </div>
        </Dialog>
    );
}
