// A card for each device: what it is, what it holds, how it fares.
import { bytes, ms } from '../format.js';
import { openDialog } from '../ui/Dialog.jsx';
import { colourOf, size, stagesOf, stateText, stateTone, timeOf } from './describe.js';

function Meter({ label, part, whole, text, warn }) {
    const share = whole > 0 ? Math.min(1, part / whole) : 0;
    return (
        <div class="meter">
            <div class="row">
                <span class="soft grow">{label}</span>
                <span>{text}</span>
            </div>
            {whole > 0 && (
                <div
                    class={warn && share > 0.95 ? 'bar tight' : 'bar'}
                    role="meter"
                    aria-label={label}
                    aria-valuemin="0"
                    aria-valuemax="100"
                    aria-valuenow={Math.round(100 * share)}
                    aria-valuetext={text}
                >
                    <i style={{ width: `${100 * share}%` }} />
                </div>
            )}
        </div>
    );
}

function Memory({ d }) {
    if (!(d.resident_bytes > 0)) return null;
    const text = d.memory_bytes
        ? `${bytes(d.resident_bytes)} of ${bytes(d.memory_bytes)}`
        : `${bytes(d.resident_bytes)}, no limit`;
    return <Meter label="Memory" part={d.resident_bytes} whole={d.memory_bytes} text={text} warn />;
}

// Predicted and measured on one scale, so that one sees which of them is longer.
function Times({ doc, d, most }) {
    const { predicted, measured } = timeOf(doc, d.name);
    return (
        <div class="meter">
            <div class="row">
                <span class="soft grow">Per token</span>
                <span>
                    {measured != null ? ms(measured) : 'not measured'}
                    <span class="soft"> · predicted {ms(predicted)}</span>
                </span>
            </div>
            <div class="bar two" aria-hidden="true">
                <i style={{ width: `${(100 * (measured ?? 0)) / most}%` }} />
                <i class="ghost" style={{ width: `${(100 * predicted) / most}%` }} />
            </div>
        </div>
    );
}

function Condition({ d }) {
    const words = [];
    if (d.temperature_c != null) words.push(`${Math.round(d.temperature_c)} °C`);
    if (d.battery_percent != null)
        words.push(`battery ${d.battery_percent} %${d.charging ? ', charging' : ''}`);
    if (d.rtt_ms > 0 && !d.head) words.push(`answers in ${ms(d.rtt_ms)}`);
    if (d.threads) words.push(`${d.threads} thread${d.threads === 1 ? '' : 's'}`);
    return words.length ? <p class="soft small condition">{words.join(' · ')}</p> : null;
}

function Where({ doc, stages }) {
    const n = doc.model.n_modules;
    const held = stages.reduce((sum, s) => sum + size(s), 0);
    return (
        <>
            <p class="modules">
                {stages.map(s => s.text).join(' + ')}
                <span class="soft">
                    {' '}
                    · {held} of {n}
                </span>
            </p>
            <div class="bar where" aria-hidden="true">
                {stages.map(s => (
                    <i
                        key={s.first}
                        style={{
                            left: `${(100 * s.first) / n}%`,
                            width: `${(100 * size(s)) / n}%`,
                        }}
                    />
                ))}
            </div>
        </>
    );
}

const canDrain = d => !d.head && !d.drained && !['offline', 'lost'].includes(d.state);

function Foot({ d }) {
    if (canDrain(d))
        return (
            <button
                type="button"
                class="button small"
                onClick={() => openDialog('drain', { device: d.name })}
            >
                Drain<span class="hidden"> {d.name}</span>
            </button>
        );
    if (d.drained && d.state !== 'draining')
        return (
            <p class="soft small">
                Left out of every plan. <code>lingua join</code> on it brings it back.
            </p>
        );
    if (d.state === 'offline' || d.state === 'lost')
        return (
            <p class="soft small">
                It is back when <code>lingua join</code> runs on it.
            </p>
        );
    return null;
}

function Card({ d, doc, most }) {
    const stages = stagesOf(doc, d.name);
    return (
        <li
            class={stages.length ? 'card device' : 'card device away'}
            style={colourOf(doc, d.name)}
            data-device={d.name}
            data-state={d.state}
        >
            <div class="row">
                <h3 class="clip">{d.name}</h3>
                {d.head && <span class="tag">head</span>}
                {d.mine && !d.head && <span class="tag">mine</span>}
                <span class="grow" />
                <span class={`state ${stateTone(d)}`}>{stateText(d)}</span>
            </div>
            {d.kind && <p class="soft small clip">{d.kind}</p>}
            {d.trouble && <p class="trouble">{d.trouble}</p>}
            {stages.length > 0 && <Where doc={doc} stages={stages} />}
            {d.state === 'fetching' && d.total > 0 && (
                <Meter
                    label="Weights"
                    part={d.done}
                    whole={d.total}
                    text={`${bytes(d.done)} of ${bytes(d.total)}`}
                />
            )}
            <Memory d={d} />
            {stages.length > 0 && <Times doc={doc} d={d} most={most} />}
            <Condition d={d} />
            <div class="foot">
                <Foot d={d} />
            </div>
        </li>
    );
}

export function Devices({ doc }) {
    const all = doc.devices.flatMap(d => Object.values(timeOf(doc, d.name)));
    const most = Math.max(1e-9, ...all.map(v => v ?? 0));
    return (
        <ul class="devices" aria-label="Devices">
            {doc.devices.map(d => (
                <Card key={d.key || d.name} d={d} doc={doc} most={most} />
            ))}
        </ul>
    );
}
