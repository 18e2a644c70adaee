// Where one writes.
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { model } from '../cluster/live.js';
import { useStore } from '../store.js';
import { openDialog } from '../ui/Dialog.jsx';
import { Icon } from '../ui/icons.jsx';
import { send, stop } from './generate.js';
import { areDefaults, settings } from './settings.js';

const drafts = new Map(); /* conversation -> what is being written in it */

function fit(box) {
    box.style.height = 'auto';
    box.style.height = `${Math.min(box.scrollHeight, innerHeight * 0.4)}px`;
}

export function Composer({ c, busy }) {
    const [text, setText] = useState(drafts.get(c.id) ?? '');
    const ref = useRef();
    const changed = !areDefaults(useStore(settings));
    const { template } = useStore(model);
    const continues = c.messages.length ? c.mode === 'text' : template === false;
    useLayoutEffect(() => fit(ref.current), [text]);
    const write = value => {
        drafts.set(c.id, value);
        setText(value);
    };
    const submit = () => {
        if (busy || !text.trim()) return;
        send(c.id, continues ? text : text.trim());
        write('');
    };
    const key = e => {
        if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
        e.preventDefault();
        submit();
    };
    return (
        <form
            class="composer"
            onSubmit={e => {
                e.preventDefault();
                submit();
            }}
        >
            <textarea
                id="composer"
                ref={ref}
                rows="1"
                value={text}
                aria-label={continues ? 'Text to continue' : 'Message'}
                placeholder={continues ? 'Begin a text, and the model goes on' : 'Ask something'}
                onInput={e => write(e.target.value)}
                onKeyDown={key}
            />
            <div class="row">
                <button
                    type="button"
                    class="quiet"
                    onClick={() => openDialog('settings')}
                    title="Settings (s)"
                >
                    <Icon name="sliders" /> Settings{changed ? ', changed' : ''}
                </button>
                <span class="soft small grow only-wide">
                    Enter sends, Shift + Enter makes a new line
                </span>
                <span class="grow only-narrow" />
                {busy ? (
                    <button
                        type="button"
                        class="round stop"
                        aria-label="Stop"
                        title="Stop (Esc)"
                        onClick={() => stop(c.id)}
                    >
                        <Icon name="stop" />
                    </button>
                ) : (
                    <button
                        class="round"
                        aria-label="Send"
                        title="Send (Enter)"
                        disabled={!text.trim()}
                    >
                        <Icon name="send" />
                    </button>
                )}
            </div>
        </form>
    );
}
