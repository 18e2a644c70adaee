// How a device joins: the program, one command, and a token that is shown to people who may see it.
import { useEffect, useState } from 'preact/hooks';
import { ask } from '../api.js';
import { useStore } from '../store.js';
import { Dialog } from '../ui/Dialog.jsx';
import { Icon } from '../ui/icons.jsx';
import { SignInSteps } from '../ui/SignIn.jsx';
import { copyText, toast } from '../ui/toast.js';
import { cluster } from './live.js';

const quiet = 4; /* modules of white around a QR code, which readers need */

// Dark modules of a row as runs, so that no seams show between them.
function pathOf(rows) {
    let d = '';
    rows.forEach((row, y) => {
        for (const run of row.matchAll(/1+/g))
            d += `M${run.index + quiet} ${y + quiet}h${run[0].length}v1h-${run[0].length}z`;
    });
    return d;
}

function QrCode({ rows }) {
    const n = rows.length + 2 * quiet;
    return (
        <svg class="qr" viewBox={`0 0 ${n} ${n}`} role="img" aria-label="The token as a QR code">
            <rect width={n} height={n} fill="#fff" />
            <path d={pathOf(rows)} fill="#000" />
        </svg>
    );
}

export function JoinSteps({ command = 'lingua join' }) {
    return (
        <ol class="steps">
            <li>
                Put <code>lingua</code> on it: build it there, or copy the file of{' '}
                <code>make join-only-arm64</code> to a Raspberry Pi or a phone with Termux.
            </li>
            <li>
                In the same network, run <code>{command}</code> there.
            </li>
            <li>
                Give it the token when it asks. It measures itself for some seconds, and fetches its
                part.
            </li>
        </ol>
    );
}

function Copy({ text, label }) {
    const copy = async () =>
        toast((await copyText(text)) ? 'Copied.' : 'The browser did not allow it.');
    return (
        <button type="button" class="button small" onClick={copy}>
            <Icon name="copy" /> {label}
        </button>
    );
}

function Invite({ invite }) {
    const minutes = Math.max(1, Math.round(invite.expires_s / 60));
    return (
        <div class="token">
            {invite.qr?.length > 0 && <QrCode rows={invite.qr} />}
            <div class="grow">
                <p class="label">
                    Token, good for one device and{' '}
                    {minutes === 1 ? 'a minute' : `${minutes} minutes`}
                </p>
                <pre class="plain" tabIndex={0}>
                    {invite.token}
                </pre>
                <div class="row">
                    <Copy text={invite.token} label="Copy the token" />
                    <Copy text={invite.command} label="Copy the command" />
                </div>
                <p class="soft small">
                    Whoever has it can join this cluster. Show it to nobody else.
                </p>
            </div>
        </div>
    );
}

export function AddDevice() {
    const address = useStore(cluster, s => s.doc?.address);
    const [state, setState] = useState({});
    const fetchToken = () => {
        setState({});
        ask('/cluster/invite', {}).then(
            invite => setState({ invite }),
            error => setState({ error }),
        );
    };
    useEffect(fetchToken, []);
    const { invite, error } = state;
    return (
        <Dialog title="Add a device">
            <JoinSteps
                command={invite?.command ?? (address ? `lingua join ${address}` : undefined)}
            />
            {invite && <Invite invite={invite} />}
            {error?.code === 'session_needed' && (
                <div class="note">
                    <p>
                        <b>The token is shown to the page’s own session alone.</b> In a terminal on
                        the head, <code>lingua devices invite</code> prints one, too.
                    </p>
                    <SignInSteps />
                </div>
            )}
            {error && error.code !== 'session_needed' && (
                <div class="note bad" role="alert">
                    <p>
                        <b>There is no token</b>: {error.message}
                    </p>
                    <button type="button" class="button small" onClick={fetchToken}>
                        Try again
                    </button>
                </div>
            )}
            {!invite && !error && <p class="soft">Asking the head for a token …</p>}
        </Dialog>
    );
}
