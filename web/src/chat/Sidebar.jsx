// The conversations of this browser.
import { day } from '../format.js';
import { useStore } from '../store.js';
import { closeDialog } from '../ui/Dialog.jsx';
import { Icon } from '../ui/icons.jsx';
import { focusComposer } from '../ui/shortcuts.js';
import {
    conversations,
    listOf,
    openConversation,
    startConversation,
    titleOf,
} from './conversations.js';

export function Sidebar({ inDialog }) {
    const { all, current } = useStore(conversations);
    const list = listOf(all);
    const open = id => {
        openConversation(id);
        if (inDialog) closeDialog();
    };
    const start = () => {
        startConversation();
        if (inDialog) closeDialog();
        focusComposer();
    };
    return (
        <div class="sidebar">
            <button type="button" class="button new" onClick={start}>
                <Icon name="plus" /> New conversation
            </button>
            <ul class="conversations" aria-label="Conversations">
                {list.map(c => (
                    <li key={c.id}>
                        <button
                            type="button"
                            aria-current={c.id === current ? 'true' : undefined}
                            onClick={() => open(c.id)}
                        >
                            <span class="title">{titleOf(c)}</span>
                            <span class="soft small">{day(c.updated)}</span>
                        </button>
                    </li>
                ))}
            </ul>
            <p class="soft small foot">
                {list.length
                    ? 'Kept in this browser alone.'
                    : 'Conversations are kept in this browser alone.'}
            </p>
        </div>
    );
}
