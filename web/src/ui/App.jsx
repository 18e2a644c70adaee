// The whole page.
import { useEffect } from 'preact/hooks';
import { ChatView } from '../chat/ChatView.jsx';
import { Sidebar } from '../chat/Sidebar.jsx';
import { Settings } from '../chat/Settings.jsx';
import { AddDevice } from '../cluster/AddDevice.jsx';
import { ClusterView } from '../cluster/ClusterView.jsx';
import { Drain } from '../cluster/Drain.jsx';
import { cluster, reconnect } from '../cluster/live.js';
import { session } from '../session.js';
import { useStore } from '../store.js';
import { TimelineView } from '../timeline/TimelineView.jsx';
import { spoken } from './announce.js';
import { Dialog, dialog, openDialog } from './Dialog.jsx';
import { Header } from './Header.jsx';
import { IconButton } from './icons.jsx';
import { route, views } from './route.js';
import { Shortcuts } from './Shortcuts.jsx';
import { onKey } from './shortcuts.js';
import { SignIn } from './SignIn.jsx';
import { closeToast, toasts } from './toast.js';

const dialogs = {
    settings: Settings,
    shortcuts: Shortcuts,
    add: AddDevice,
    drain: Drain,
    signin: SignIn,
    conversations: () => (
        <Dialog title="Conversations" side="left">
            <Sidebar inDialog />
        </Dialog>
    ),
};

function Toast() {
    const { text, action } = useStore(toasts);
    const run = () => {
        closeToast();
        action.run();
    };
    return (
        <div class="toast-place" role="status">
            {text && (
                <div class="toast">
                    <span>{text}</span>
                    {action && (
                        <button type="button" class="link" onClick={run}>
                            {action.label}
                        </button>
                    )}
                    <IconButton icon="close" label="Dismiss" onClick={closeToast} />
                </div>
            )}
        </div>
    );
}

function LostBanner() {
    const { link, doc } = useStore(cluster);
    if (link !== 'lost') return null;
    return (
        <div class="banner" role="alert">
            <span>
                <b>The head does not answer.</b>{' '}
                {doc ? 'What you see is how it was. ' : 'Is lingua serve still running? '}
                It is being tried again.
            </span>
            <button type="button" class="button small" onClick={reconnect}>
                Try now
            </button>
        </div>
    );
}

function EndedBanner() {
    const { ended, keyWanted } = useStore(session);
    if (!ended) return null;
    return (
        <div class="banner calm" role="status">
            <span>
                <b>The head has started anew, and this page’s session has ended.</b>{' '}
                {keyWanted ? '' : 'You can go on writing; to drain or add devices, get in again.'}
            </span>
            <button type="button" class="button small" onClick={() => openDialog('signin')}>
                How to get in
            </button>
            <IconButton
                icon="close"
                label="Dismiss"
                onClick={() => session.set({ ended: false })}
            />
        </div>
    );
}

export function App() {
    const { view } = useStore(route);
    const { name } = useStore(dialog);
    const { text } = useStore(spoken);
    const Open = dialogs[name];
    useEffect(() => {
        addEventListener('keydown', onKey);
        return () => removeEventListener('keydown', onKey);
    }, []);
    useEffect(() => {
        document.title = view === 'chat' ? 'lingua' : `${views[view]} · lingua`;
    }, [view]);
    return (
        <div class="page">
            <button
                type="button"
                class="skip"
                onClick={() => document.getElementById('main').focus()}
            >
                Skip to the {views[view].toLowerCase()}
            </button>
            <Header />
            <LostBanner />
            <EndedBanner />
            <main id="main" tabIndex={-1} aria-label={views[view]}>
                {view === 'chat' && <ChatView />}
                {view === 'cluster' && <ClusterView />}
                {view === 'timeline' && <TimelineView />}
            </main>
            <Toast />
            <div class="hidden" aria-live="polite">
                {text}
            </div>
            {Open && <Open key={name} />}
        </div>
    );
}
