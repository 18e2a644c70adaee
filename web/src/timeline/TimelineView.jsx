// The last answer as a timeline: what each stage did when, and what the time went into.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { nColours } from '../cluster/describe.js';
import { cluster } from '../cluster/live.js';
import { count, ms } from '../format.js';
import { useStore } from '../store.js';
import { Icon } from '../ui/icons.jsx';
import { openDialog } from '../ui/Dialog.jsx';
import { hrefOf } from '../ui/route.js';
import { Drawing } from './canvas.js';
import { useTimeline } from './load.js';
import { kinds, laneSums, spansOf } from './parts.js';
import { SumBar, SumTable } from './Sums.jsx';

// The place of each device among the cluster's, which is its colour; those that left come after.
function coloursOf(doc, devices) {
    const at = new Map((devices ?? []).map((d, i) => [d.name, i]));
    for (const l of doc.lanes) if (l.device && !at.has(l.device)) at.set(l.device, at.size);
    return at;
}

function Legend() {
    const words = { compute: 'computing (in the device’s colour)', ...kinds };
    return (
        <ul class="legend" aria-label="Colours">
            {['compute', 'wire', 'wait', 'head', 'queue'].map(kind => (
                <li key={kind}>
                    <span class={`chip ${kind}`} />{' '}
                    {kind === 'compute' ? words.compute : kinds[kind]}
                </li>
            ))}
        </ul>
    );
}

function tipText(s, lanes) {
    const rows = s.rows > 1 ? `, ${s.rows} rows` : '';
    return `${lanes[s.lane].name}: ${kinds[s.kind]} ${ms((s.end - s.start) / 1000)}, from ${ms(s.start / 1000)}${rows}`;
}

function Lanes({ doc, spans, colours }) {
    const canvas = useRef();
    const drawing = useRef();
    const [tip, setTip] = useState(null);
    const lanes = doc.lanes.map(l => ({
        name: l.name,
        colour: l.stage < 0 ? '--head' : `--d${(colours.get(l.device) ?? 0) % nColours}`,
    }));
    useEffect(() => {
        const d = new Drawing(canvas.current, {
            lanes,
            spans,
            endUs: doc.ended_us,
            firstUs: doc.first_us,
            onPick: (s, x, y) => setTip(s && { x, y, text: tipText(s, lanes) }),
        });
        if (drawing.current) d.look(drawing.current.at); /* more has come of what was looked at */
        drawing.current = d;
        return () => d.close();
    }, [spans]);
    const act = f => () => f(drawing.current);
    return (
        <>
            <div class="row timeline-tools">
                <Legend />
                <span class="grow" />
                <button
                    type="button"
                    class="button small"
                    onClick={act(d => d.zoomBy(1 / 1.6))}
                    aria-label="Zoom out"
                >
                    −
                </button>
                <button
                    type="button"
                    class="button small"
                    onClick={act(d => d.zoomBy(1.6))}
                    aria-label="Zoom in"
                >
                    +
                </button>
                <button type="button" class="button small" onClick={act(d => d.fit())}>
                    All
                </button>
            </div>
            <div class="lanes">
                <canvas
                    ref={canvas}
                    tabIndex={0}
                    role="application"
                    aria-roledescription="timeline"
                    aria-label="What each stage did when. Arrow keys move, plus and minus zoom, brackets go from part to part; the table below has the sums."
                    onPointerMove={e => e.buttons === 0 && drawing.current.hover(e)}
                    onClick={e => drawing.current.hover(e)}
                    onPointerLeave={() => drawing.current.pick(null)}
                    onKeyDown={e => drawing.current.key(e)}
                    onBlur={() => drawing.current.pick(null)}
                />
                {tip && (
                    <span
                        class="tip"
                        style={{ left: `${tip.x}px`, top: `${tip.y}px` }}
                        role="status"
                    >
                        {tip.text}
                    </span>
                )}
            </div>
            <p class="soft small">
                Drag to move, <span class="with-mouse">Ctrl and the wheel or </span>two fingers to
                zoom
                <span class="with-mouse">; or the keys ← → + − and [ ]</span>.
            </p>
        </>
    );
}

function LaneTable({ doc, spans }) {
    const shown = ['compute', 'wire', 'wait', 'head', 'queue'];
    return (
        <details class="as-table">
            <summary>The same as a table</summary>
            <div class="wide" tabIndex={0} role="region" aria-label="Lanes">
                <table class="parts">
                    <thead>
                        <tr>
                            <th scope="col">Lane</th>
                            {shown.map(k => (
                                <th key={k} scope="col" class="number">
                                    {kinds[k]}
                                </th>
                            ))}
                            <th scope="col" class="number">
                                spans
                            </th>
                        </tr>
                    </thead>
                    <tbody>
                        {laneSums(doc, spans).map(l => (
                            <tr key={l.name}>
                                <th scope="row">{l.name}</th>
                                {shown.map(k => (
                                    <td key={k} class="number">
                                        {l.ms[k] ? ms(l.ms[k]) : '–'}
                                    </td>
                                ))}
                                <td class="number">{l.n}</td>
                            </tr>
                        ))}
                    </tbody>
                </table>
            </div>
            <p class="soft small">
                Here each span counts in full; above, an instant in which several went on counts
                once.
            </p>
        </details>
    );
}

function Trace() {
    return (
        <p class="row trace">
            <a class="button" href="/cluster/trace" download="lingua-trace.json">
                <Icon name="out" /> Download the trace
            </a>
            <span class="soft small">
                For{' '}
                <a href="https://ui.perfetto.dev" target="_blank" rel="noopener noreferrer">
                    ui.perfetto.dev
                </a>
                , which reads it in your browser, or chrome://tracing.
            </span>
        </p>
    );
}

function Shown({ doc }) {
    const devices = useStore(cluster, s => s.doc?.devices);
    const spans = useMemo(() => spansOf(doc), [doc]);
    const colours = coloursOf(doc, devices);
    return (
        <>
            <p>
                {count(doc.tokens, 'token')} after a prompt of {doc.prompt_tokens}
                {doc.cached_tokens ? ` (${doc.cached_tokens} of them known already)` : ''}; the
                first after {ms(doc.first_us / 1000)}, the last after {ms(doc.ended_us / 1000)}.
                {doc.state === 'running' && ' The answer is still being written.'}
                {doc.state === 'done' &&
                    !doc.complete &&
                    ' Some devices have not sent all they recorded.'}
            </p>
            <SumBar doc={doc} p={doc.parts} colours={colours} title="together" />
            {doc.first && <SumBar doc={doc} p={doc.first} colours={colours} title="first token" />}
            {doc.rest && doc.tokens > 1 && (
                <SumBar doc={doc} p={doc.rest} colours={colours} title="the rest" />
            )}
            <section class="panel" aria-label="Stage by stage">
                <Lanes doc={doc} spans={spans} colours={colours} />
            </section>
            <section aria-labelledby="sums">
                <h2 id="sums">Where the time went</h2>
                <SumTable doc={doc} colours={colours} />
                <LaneTable doc={doc} spans={spans} />
            </section>
            <Trace />
        </>
    );
}

function Nothing({ children }) {
    return <p class="nothing soft">{children}</p>;
}

export function TimelineView() {
    const { doc, error, again } = useTimeline();
    const denied = error?.status === 401 || error?.status === 403;
    return (
        <div class="timeline">
            <h1>The last answer</h1>
            {doc && doc.state !== 'none' && <Shown doc={doc} />}
            {doc?.state === 'none' && (
                <Nothing>
                    Nothing was asked yet. <a href={hrefOf('chat')}>Ask something</a>, then see here
                    what each device did when.
                </Nothing>
            )}
            {!doc && !error && <Nothing>Asking the head …</Nothing>}
            {error && (
                <div class="note bad" role="alert">
                    <p>
                        <b>There is no timeline to show</b>: {error.message}
                    </p>
                    <p class="row">
                        <button type="button" class="button small" onClick={again}>
                            Try again
                        </button>
                        {denied && (
                            <button
                                type="button"
                                class="button small"
                                onClick={() => openDialog('signin')}
                            >
                                How to get in
                            </button>
                        )}
                    </p>
                </div>
            )}
        </div>
    );
}
