// How to get in: by the address that `lingua serve` prints, or by an API key.
import { useState } from 'preact/hooks';
import { apiKey } from '../api.js';
import { reconnect } from '../cluster/live.js';
import { session } from '../session.js';
import { useStore } from '../store.js';
import { Dialog, closeDialog } from './Dialog.jsx';

const noRemark = { refused: false };

export function SignInSteps() {
    const { refused } = useStore(session);
    return (
        <>
            {refused && (
                <p class="note bad" role="alert">
                    The key in the address is not the head’s any more: each start of{' '}
                    <code>lingua serve</code> makes a new one.
                </p>
            )}
            <p>
                Whoever may manage this cluster opens the address that <code>lingua serve</code>{' '}
                printed when it started. It looks like this, with a key behind the sign{' '}
                <code>#</code>:
            </p>
            <pre class="plain">{location.origin}/#key=…</pre>
            <p class="soft">
                The key is traded for a cookie of this browser at once and taken out of the address.
                It holds until the head starts anew.
            </p>
        </>
    );
}

export function ApiKeyForm({ done }) {
    const [key, setKey] = useState(apiKey.get());
    const submit = e => {
        e.preventDefault();
        apiKey.set(key.trim());
        session.set(noRemark);
        reconnect();
        done?.();
    };
    return (
        <form class="row" onSubmit={submit}>
            <label class="grow">
                <span class="label">Or an API key, for this tab</span>
                <input
                    type="password"
                    autocomplete="off"
                    value={key}
                    onInput={e => setKey(e.target.value)}
                />
            </label>
            <button class="button">Use it</button>
        </form>
    );
}

export function SignIn() {
    const { keyWanted } = useStore(session);
    return (
        <Dialog title="This needs the page’s own session">
            <SignInSteps />
            {keyWanted && <ApiKeyForm done={closeDialog} />}
        </Dialog>
    );
}
