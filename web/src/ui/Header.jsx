// The top of the page: who answers, how quickly, and the three views. Below it lies the model, as a
// strip in the colours of the devices that hold it.
import { cluster, model } from '../cluster/live.js';
import { Sparkline } from '../cluster/Sparkline.jsx';
import { Strip } from '../cluster/Strip.jsx';
import { rate } from '../format.js';
import { useStore } from '../store.js';
import { dialog, openDialog } from './Dialog.jsx';
import { Icon, IconButton } from './icons.jsx';
import { hrefOf, route, views } from './route.js';
import { nextTheme, theme } from './theme.js';

const themes = {
    auto: ['auto', 'Theme: as the system'],
    light: ['sun', 'Theme: light'],
    dark: ['moon', 'Theme: dark'],
};

function Mark() {
    return (
        <svg class="mark" viewBox="0 0 26 22" aria-hidden="true">
            <rect x="0" width="8" height="22" rx="2" class="d0" />
            <rect x="9" width="12" height="22" rx="2" class="d1" />
            <rect x="22" width="4" height="22" rx="2" class="d2" />
        </svg>
    );
}

function Tabs() {
    const { view } = useStore(route);
    return (
        <nav class="tabs" aria-label="Views">
            {Object.entries(views).map(([name, title]) => (
                <a key={name} href={hrefOf(name)} aria-current={view === name ? 'page' : undefined}>
                    {title}
                </a>
            ))}
        </nav>
    );
}

function Speed() {
    const { doc, history, link } = useStore(cluster);
    if (!doc?.speed || link !== 'open') return null;
    return (
        <a
            class="speed"
            href={hrefOf('cluster')}
            title="All answers together, over the last seconds"
        >
            <Sparkline history={history} />
            <span>
                {doc.speed.streams ? (
                    <>
                        <b>{rate(doc.speed.tokens_per_s)}</b> tokens/s
                    </>
                ) : (
                    'idle'
                )}
            </span>
        </a>
    );
}

export function Header() {
    const doc = useStore(cluster, s => s.doc);
    const { alias } = useStore(model);
    const [icon, label] = themes[useStore(theme).theme];
    const { view } = useStore(route);
    const { name } = useStore(dialog);
    return (
        <header class="top">
            <div class="top-row">
                {view === 'chat' && (
                    <button
                        type="button"
                        class="icon-button only-narrow"
                        aria-label="Conversations"
                        aria-expanded={name === 'conversations'}
                        onClick={() => openDialog('conversations')}
                    >
                        <Icon name="menu" />
                    </button>
                )}
                <span class="brand">
                    <Mark />
                    lingua
                </span>
                <span class="model-name" title={doc?.model?.path}>
                    {doc?.model?.alias || doc?.model?.name || alias}
                </span>
                <Tabs />
                <span class="grow" />
                <Speed />
                <IconButton icon={icon} label={label} keys="t" onClick={nextTheme} />
                <IconButton
                    icon="keys"
                    label="Keyboard shortcuts"
                    keys="?"
                    onClick={() => openDialog('shortcuts')}
                />
            </div>
            <Strip doc={doc} thin />
        </header>
    );
}
