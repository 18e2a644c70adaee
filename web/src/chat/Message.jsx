// One message: what was said, how it went, and what can be done with it.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { count, ms, rate } from '../format.js';
import { openDialog } from '../ui/Dialog.jsx';
import { Icon, IconButton } from '../ui/icons.jsx';
import { hrefOf } from '../ui/route.js';
import { copyText, toast } from '../ui/toast.js';
import { edit, goOn, regenerate, retryNow, stop } from './generate.js';
import { showMarkdown } from './markdown.js';

const copy = async text =>
    toast((await copyText(text)) ? 'Copied.' : 'The browser did not allow it.');

function copyCode(e) {
    const button = e.target.closest('.copy-code');
    if (button) copy(button.closest('.code').querySelector('code').textContent);
}

function Markdown({ text }) {
    const ref = useRef();
    useLayoutEffect(() => showMarkdown(ref.current, text), [text]);
    return <div class="md" ref={ref} onClick={copyCode} />;
}

// Why an answer is not there yet, when the head said so itself: it is asked again by and by.
function Wait({ wait, conversation }) {
    const [now, setNow] = useState(Date.now());
    useEffect(() => {
        const timer = setInterval(() => setNow(Date.now()), 250);
        return () => clearInterval(timer);
    }, []);
    const left = Math.max(0, Math.ceil((wait.until - now) / 1000));
    const full = wait.code === 'server_busy';
    return (
        <div class="note busy" role="status">
            <p>
                <b>{full ? 'The queue is full' : 'The cluster is not ready'}</b>: {wait.message}
            </p>
            <p class="row">
                <span>Next try in {left} s</span>
                <button type="button" class="button small" onClick={() => retryNow(conversation)}>
                    Try now
                </button>
                <button type="button" class="button small" onClick={() => stop(conversation)}>
                    Give up
                </button>
            </p>
        </div>
    );
}

function Trouble({ error, again }) {
    const key = error.status === 401;
    return (
        <div class="note bad" role="alert">
            <p>
                <b>{error.gone ? 'The head is gone' : 'This did not work'}</b>: {error.message}
            </p>
            <p class="row">
                <button type="button" class="button small" onClick={again}>
                    Try again
                </button>
                {key && (
                    <button type="button" class="button small" onClick={() => openDialog('signin')}>
                        How to get in
                    </button>
                )}
            </p>
        </div>
    );
}

const endings = {
    stopped: 'stopped',
    cut: 'broke off',
    length: 'as long as was allowed',
};

function Figures({ m }) {
    const { stats, state, finish } = m;
    const words = [];
    if (stats?.tokensPerS)
        words.push(`${stats.about ? 'about ' : ''}${rate(stats.tokensPerS)} tokens/s`);
    if (stats?.ttftMs != null) words.push(`first token ${ms(stats.ttftMs)}`);
    if (stats?.tokens) words.push(count(stats.tokens, 'token'));
    if (stats?.queueMs > 50) words.push(`${ms(stats.queueMs)} in the queue`);
    const end = endings[state] ?? endings[finish];
    if (end) words.push(end);
    return <span class="figures">{words.join(' · ')}</span>;
}

function AnswerTools({ m, c, last, text, busy }) {
    return (
        <div class="tools">
            <Figures m={m} />
            <span class="buttons">
                {text && last && (
                    <button type="button" class="button small" onClick={() => goOn(c.id)}>
                        <Icon name="on" /> Go on
                    </button>
                )}
                <IconButton icon="copy" label="Copy" onClick={() => copy(m.content)} />
                {!busy && (
                    <IconButton
                        icon="again"
                        label="Regenerate"
                        onClick={() => regenerate(c.id, m.id)}
                    />
                )}
                {last && m.state === 'done' && (
                    <a
                        class="icon-button"
                        href={hrefOf('timeline')}
                        aria-label="Timeline"
                        title="Timeline"
                    >
                        <Icon name="clock" />
                    </a>
                )}
            </span>
        </div>
    );
}

function Thinking({ text, open }) {
    return (
        <details class="thinking" open={open}>
            <summary>{open ? 'Thinking…' : 'What it thought'}</summary>
            <p>{text}</p>
        </details>
    );
}

// busy: some answer of this conversation is on its way; coming: this one.
function Answer({ m, c, last, text, busy }) {
    const coming = m.state === 'waiting' || m.state === 'streaming';
    return (
        <article class={`msg answer ${m.state}`} aria-label="Answer" aria-busy={coming}>
            {m.thinking && <Thinking text={m.thinking} open={coming && !m.content} />}
            {text ? (
                <span class="prose">{m.content}</span>
            ) : (
                m.content && <Markdown text={m.content} />
            )}
            {m.state === 'waiting' && !m.wait && (
                <span class="dots" role="status">
                    <span class="hidden">Reading what you wrote</span>
                    <i />
                    <i />
                    <i />
                </span>
            )}
            {m.wait && <Wait wait={m.wait} conversation={c.id} />}
            {m.error && <Trouble error={m.error} again={() => regenerate(c.id, m.id)} />}
            {!coming && (!text || last) && (m.content || m.state !== 'failed') && (
                <AnswerTools m={m} c={c} last={last} text={text} busy={busy} />
            )}
        </article>
    );
}

function Editor({ m, done, save }) {
    const [text, setText] = useState(m.content);
    const ref = useRef();
    useEffect(() => {
        ref.current.focus();
        ref.current.setSelectionRange(text.length, text.length);
    }, []);
    const submit = () => {
        if (!text.trim()) return;
        done();
        save(text);
    };
    const key = e => {
        if (e.key === 'Escape') {
            e.preventDefault();
            done();
        } else if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
            e.preventDefault();
            submit();
        }
    };
    return (
        <div class="editor">
            <textarea
                ref={ref}
                aria-label="Your message"
                rows={Math.min(12, text.split('\n').length + 1)}
                value={text}
                onInput={e => setText(e.target.value)}
                onKeyDown={key}
            />
            <div class="row end">
                <span class="soft small grow">What follows it is written anew.</span>
                <button type="button" class="button small" onClick={done}>
                    Cancel
                </button>
                <button type="button" class="button small strong" onClick={submit}>
                    Send
                </button>
            </div>
        </div>
    );
}

function Said({ m, c, text, busy }) {
    const [editing, setEditing] = useState(false);
    if (editing)
        return (
            <article class="msg user editing" aria-label="You">
                <Editor m={m} done={() => setEditing(false)} save={t => edit(c.id, m.id, t)} />
            </article>
        );
    return (
        <article class="msg user" aria-label="You">
            <span class="prose">{m.content}</span>
            <span class="buttons">
                {!busy && <IconButton icon="edit" label="Edit" onClick={() => setEditing(true)} />}
                {!text && <IconButton icon="copy" label="Copy" onClick={() => copy(m.content)} />}
            </span>
        </article>
    );
}

export function Message({ m, c, last, busy }) {
    const text = c.mode === 'text';
    if (m.role === 'user') return <Said m={m} c={c} text={text} busy={busy} />;
    return <Answer m={m} c={c} last={last} text={text} busy={busy} />;
}
