// Where an answer's time went: a bar and a table that add up.
import { nColours } from '../cluster/describe.js';
import { ms } from '../format.js';
import { kinds, partsOf, stagesOf, total } from './parts.js';

const share = (part, whole) => (whole > 0 ? (100 * part) / whole : 0);
const shareText = v => `${v.toFixed(v < 9.95 ? 1 : 0)} %`;

function segments(doc, p, colours) {
    const parts = partsOf(p);
    const by = stagesOf(doc, p).map(s => ({
        kind: 'compute',
        name: s.name,
        device: s.device,
        ms: s.ms,
        style: { '--c': `var(--d${(colours.get(s.device) ?? 0) % nColours})` },
    }));
    const rest = ['wire', 'wait', 'head', 'queue', 'other'];
    return [...by, ...rest.map(kind => ({ kind, name: kinds[kind], ms: parts[kind], style: {} }))];
}

export function SumBar({ doc, p, colours, title }) {
    const all = segments(doc, p, colours);
    const sum = total(partsOf(p));
    const words = all.filter(s => s.ms > 0).map(s => `${s.name} ${ms(s.ms)}`);
    return (
        <div class="time-line">
            <span class="soft small time-name">{title}</span>
            <div class="time-bar" role="img" aria-label={`${title}: ${words.join(', ')}`}>
                {all.map((s, i) => (
                    <i
                        key={i}
                        class={`part ${s.kind}`}
                        style={{ ...s.style, width: `${share(s.ms, sum)}%` }}
                        title={`${s.name}: ${ms(s.ms)}`}
                    >
                        {s.device && <span>{s.device}</span>}
                    </i>
                ))}
            </div>
            <b class="time-sum">{ms(sum)}</b>
        </div>
    );
}

function Row({ s, cells, sum }) {
    return (
        <tr data-kind={s.kind}>
            <th scope="row">
                <span class={`chip ${s.kind}`} style={s.style} /> {s.name}
            </th>
            {cells.map((v, i) => (
                <td key={i} class={i < 2 ? 'number only-wide' : 'number'}>
                    {v > 0 ? ms(v) : '–'}
                </td>
            ))}
            <td class="number">{shareText(share(s.ms, sum))}</td>
        </tr>
    );
}

export function SumTable({ doc, colours }) {
    const columns = [doc.first, doc.rest].map(p => segments(doc, p ?? {}, colours));
    const all = segments(doc, doc.parts, colours);
    const sum = total(partsOf(doc.parts));
    const heads = ['To the first token', 'From then on', 'Together'];
    return (
        <div class="wide" tabIndex={0} role="region" aria-label="Sums by part">
            <table class="parts">
                <thead>
                    <tr>
                        <th scope="col">Part</th>
                        {heads.map((h, i) => (
                            <th key={h} scope="col" class={i < 2 ? 'number only-wide' : 'number'}>
                                {h}
                            </th>
                        ))}
                        <th scope="col" class="number">
                            Share
                        </th>
                    </tr>
                </thead>
                <tbody>
                    {all.map((s, i) => (
                        <Row
                            key={i}
                            s={s}
                            sum={sum}
                            cells={[columns[0][i].ms, columns[1][i].ms, s.ms]}
                        />
                    ))}
                </tbody>
                <tfoot>
                    <tr>
                        <th scope="row">Sum</th>
                        {[doc.first, doc.rest, doc.parts].map((p, i) => (
                            <td key={i} class={i < 2 ? 'number only-wide' : 'number'}>
                                {ms(total(partsOf(p ?? {})))}
                            </td>
                        ))}
                        <td class="number">100 %</td>
                    </tr>
                </tfoot>
            </table>
        </div>
    );
}
