// The way of a token: from stage to stage and home, as in the drawing of a plan.
import { bits, bytes, ms } from '../format.js';
import { colourOf, size } from './describe.js';

function Hop({ h, flows, first }) {
    if (!h || h.from === h.to)
        return first ? null : (
            <div class="leg here">
                <span class="leg-text soft">same device</span>
                <span class="way" />
            </div>
        );
    const time = h.measured_ms ?? h.predicted_ms;
    const words = [
        `from ${h.from} to ${h.to}${h.via === 'head' ? ', by way of the head' : ''}`,
        h.latency_ms != null && `latency ${ms(h.latency_ms)}`,
        h.predicted_ms != null && `${ms(h.predicted_ms)} per token predicted`,
        h.measured_ms != null && `${ms(h.measured_ms)} measured`,
        `${bytes(h.bytes ?? 0)} in ${(h.frames ?? 0).toLocaleString('en')} frames so far`,
    ].filter(Boolean);
    return (
        <div class={flows ? 'leg flows' : 'leg'} title={words.join('; ')}>
            <span class="hidden">{words.join('; ')}</span>
            <span class="leg-text" aria-hidden="true">
                {time != null ? ms(time) : '–'}
                {h.latency_ms != null && <small> latency {ms(h.latency_ms)}</small>}
            </span>
            <span class="way" aria-hidden="true" />
            <span class="leg-text soft" aria-hidden="true">
                {h.bytes_per_s ? bits(h.bytes_per_s) : h.via === 'head' ? 'via the head' : ''}
                {h.bytes_per_token != null && <small> {bytes(h.bytes_per_token)} per token</small>}
            </span>
        </div>
    );
}

function Stage({ s, doc, again }) {
    const n = doc.model.n_modules;
    return (
        <div class="card stage" style={colourOf(doc, s.device)}>
            <div class="row">
                <b class="clip grow">{s.device}</b>
                {again && <span class="soft small">again</span>}
            </div>
            <div class="small clip">{s.text}</div>
            <div class="bar where" aria-hidden="true">
                <i style={{ left: `${(100 * s.first) / n}%`, width: `${(100 * size(s)) / n}%` }} />
            </div>
            <div class="row base">
                <b>{ms(s.measured_ms ?? s.predicted_ms)}</b>
                <span class="soft small">
                    {s.measured_ms != null ? `predicted ${ms(s.predicted_ms)}` : 'predicted'}
                </span>
            </div>
            <div class="soft small">{bytes(s.weight_bytes ?? 0)} of weights</div>
        </div>
    );
}

function End({ doc, name, text }) {
    return (
        <div class="card stage end" style={colourOf(doc, name)}>
            <b class="clip">{name}</b>
            <div class="soft small">{text}</div>
        </div>
    );
}

export function Chain({ doc }) {
    const { stages, hops = [] } = doc;
    const flows = (doc.speed?.streams ?? 0) > 0;
    const start = hops[0] && hops[0].from !== hops[0].to ? hops[0].from : null;
    const home = hops[stages.length];
    const ends = home && home.from !== home.to ? home : null;
    return (
        <ol class="chain" aria-label="The way of a token">
            {start && (
                <li>
                    <End doc={doc} name={start} text="sends the tokens" />
                </li>
            )}
            {stages.map((s, i) => (
                <li key={s.first}>
                    <Hop h={hops[i]} flows={flows} first={i === 0 && !start} />
                    <Stage
                        s={s}
                        doc={doc}
                        again={stages.slice(0, i).some(x => x.device === s.device)}
                    />
                </li>
            ))}
            {ends && (
                <li>
                    <Hop h={ends} flows={flows} />
                    <End doc={doc} name={ends.to} text="takes the result" />
                </li>
            )}
        </ol>
    );
}
