// The conversation that is open, the others to its left, and on wide screens the cluster at its right.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Aside } from '../cluster/Aside.jsx';
import { cluster } from '../cluster/live.js';
import { useStore } from '../store.js';
import { Icon, IconButton } from '../ui/icons.jsx';
import { ApiKeyForm, SignInSteps } from '../ui/SignIn.jsx';
import { Composer } from './Composer.jsx';
import { conversations, currentOf, remove, rename, titleOf } from './conversations.js';
import { download } from './export.js';
import { Message } from './Message.jsx';
import { Sidebar } from './Sidebar.jsx';
import { Welcome } from './Welcome.jsx';

const nearPx = 80;

function Title({ c }) {
    const [editing, setEditing] = useState(false);
    const done = e => {
        setEditing(false);
        if (e.target.value.trim()) rename(c.id, e.target.value);
    };
    const key = e => {
        if (e.key === 'Enter') done(e);
        if (e.key === 'Escape') {
            e.preventDefault();
            setEditing(false);
        }
    };
    if (editing)
        return (
            <input
                class="title-input grow"
                aria-label="Name of the conversation"
                value={titleOf(c)}
                ref={box => box?.focus()}
                onBlur={done}
                onKeyDown={key}
            />
        );
    return (
        <>
            <h1>{titleOf(c)}</h1>
            <IconButton icon="pen" label="Rename" onClick={() => setEditing(true)} />
            <span class="grow" />
        </>
    );
}

function Bar({ c }) {
    const menu = useRef();
    const save = end => {
        menu.current.open = false;
        download(c, end);
    };
    return (
        <div class="chat-bar">
            <Title c={c} key={c.id} />
            <details class="menu" ref={menu}>
                <summary class="icon-button" aria-label="Export" title="Export">
                    <Icon name="out" />
                </summary>
                <div class="menu-items">
                    <button type="button" onClick={() => save('md')}>
                        As Markdown
                    </button>
                    <button type="button" onClick={() => save('json')}>
                        As JSON
                    </button>
                </div>
            </details>
            <IconButton icon="bin" label="Delete" onClick={() => remove(c.id)} />
        </div>
    );
}

function GetIn() {
    return (
        <div class="welcome">
            <h1>This head wants a key</h1>
            <SignInSteps />
            <ApiKeyForm />
        </div>
    );
}

// Stays at the end while an answer grows, unless the reader has gone up.
function Messages({ c, busy }) {
    const ref = useRef();
    const stays = useRef(true);
    const [away, setAway] = useState(false);
    const toEnd = () => {
        ref.current.scrollTop = ref.current.scrollHeight;
    };
    const scrolled = () => {
        const { scrollTop, scrollHeight, clientHeight } = ref.current;
        stays.current = scrollHeight - scrollTop - clientHeight < nearPx;
        setAway(!stays.current);
    };
    useLayoutEffect(() => {
        stays.current = true;
        toEnd();
    }, [c.id, c.messages.length]);
    useLayoutEffect(() => {
        if (stays.current) toEnd();
    }, [c]);
    return (
        <div class="messages-place">
            <div
                class="messages"
                ref={ref}
                onScroll={scrolled}
                tabIndex={0}
                role="region"
                aria-label="Messages"
            >
                <div class={c.mode === 'text' ? 'column manuscript' : 'column'}>
                    {c.messages.map((m, i) => (
                        <Message
                            key={m.id}
                            m={m}
                            c={c}
                            busy={busy}
                            last={i === c.messages.length - 1}
                        />
                    ))}
                </div>
            </div>
            {away && (
                <button type="button" class="round to-end" aria-label="To the end" onClick={toEnd}>
                    <Icon name="down" />
                </button>
            )}
        </div>
    );
}

export function ChatView() {
    const c = useStore(conversations, currentOf);
    const link = useStore(cluster, s => s.link);
    const state = c.messages.at(-1)?.state;
    const busy = state === 'waiting' || state === 'streaming';
    useEffect(() => {
        if (matchMedia('(pointer: fine)').matches) document.getElementById('composer')?.focus();
    }, [c.id]);
    const empty = link === 'denied' ? <GetIn /> : <Welcome c={c} />;
    return (
        <div class="chat">
            <nav class="beside" aria-label="Conversations">
                <Sidebar />
            </nav>
            <section class="talk" aria-label="Conversation">
                {c.messages.length > 0 && <Bar c={c} />}
                {c.messages.length > 0 ? (
                    <Messages c={c} busy={busy} />
                ) : (
                    <div class="messages-place">{empty}</div>
                )}
                <div class="column">
                    <Composer key={c.id} c={c} busy={busy} />
                </div>
            </section>
            <Aside />
        </div>
    );
}
