// The cluster in short, beside the chat.
import { ms } from '../format.js';
import { useStore } from '../store.js';
import { openDialog } from '../ui/Dialog.jsx';
import { Icon } from '../ui/icons.jsx';
import { hrefOf } from '../ui/route.js';
import { colourOf, stateText, stateTone, stagesOf, timeOf } from './describe.js';
import { cluster } from './live.js';

function Row({ d, doc, most }) {
    const { predicted, measured } = timeOf(doc, d.name);
    const time = measured ?? predicted;
    const stages = stagesOf(doc, d.name);
    return (
        <li style={colourOf(doc, d.name)} class={stages.length ? '' : 'away'}>
            <div class="row">
                <span class="chip" />
                <b class="grow clip">{d.name}</b>
                {stages.length > 0 && d.state === 'ready' ? (
                    <span title={measured != null ? 'measured, per token' : 'predicted, per token'}>
                        {ms(time)}
                    </span>
                ) : (
                    <span class={`state ${stateTone(d)}`}>{stateText(d)}</span>
                )}
            </div>
            {stages.length > 0 && (
                <>
                    <div class="soft small clip">{stages.map(s => s.text).join(' + ')}</div>
                    <div class="bar">
                        <i style={{ width: `${(100 * time) / most}%` }} />
                    </div>
                </>
            )}
        </li>
    );
}

export function Aside() {
    const { doc, link } = useStore(cluster);
    if (!doc || link === 'denied') return null;
    const most = Math.max(
        1e-9,
        ...doc.devices.map(d => {
            const t = timeOf(doc, d.name);
            return t.measured ?? t.predicted;
        }),
    );
    return (
        <aside class="aside" aria-label="The cluster in short">
            <h2>
                <a href={hrefOf('cluster')}>Cluster</a>
            </h2>
            <ul>
                {doc.devices.map(d => (
                    <Row key={d.key || d.name} d={d} doc={doc} most={most} />
                ))}
            </ul>
            <button type="button" class="quiet" onClick={() => openDialog('add')}>
                <Icon name="plus" /> Add a device
            </button>
        </aside>
    );
}
