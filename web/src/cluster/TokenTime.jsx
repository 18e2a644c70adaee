// A token's time: what was predicted and what was measured, as bars on one scale and part by part.
import { count, ms, signed } from '../format.js';
import { colourOf, sumOf, tokenParts } from './describe.js';

const partStyle = (doc, p) => (p.kind === 'stage' ? colourOf(doc, p.name) : {});
const width = (v, most) => ({ width: `${(100 * v) / most}%` });

function Bar({ doc, parts, most, what }) {
    const total = sumOf(parts);
    return (
        <div class="time-line">
            <span class="soft small time-name">{what}</span>
            <div class="time-bar" role="img" aria-label={`${what}: ${ms(total)} per token`}>
                {parts.map((p, i) => (
                    <i
                        key={i}
                        class={`part ${p.kind}`}
                        style={{ ...partStyle(doc, p), ...width(p.ms, most) }}
                        title={`${p.name}: ${ms(p.ms)}`}
                    >
                        {p.kind === 'stage' && <span>{p.name}</span>}
                    </i>
                ))}
            </div>
            <b class="time-sum">{ms(total)}</b>
        </div>
    );
}

function name(p) {
    if (p.kind === 'head') return 'at the head: sampling, text';
    if (p.kind === 'hop') return `way: ${p.name}`;
    return `${p.name}: ${p.text}`;
}

function Row({ doc, p, m, most }) {
    const style = partStyle(doc, p);
    return (
        <tr>
            <th scope="row">
                <span class={`chip ${p.kind}`} style={style} /> {name(p)}
            </th>
            <td class="number">{ms(p.ms)}</td>
            <td class="number">{m ? (m.known ? ms(m.ms) : 'unknown') : '–'}</td>
            <td class="bars" aria-hidden="true">
                <div class="bar two" style={style}>
                    <i class={p.kind} style={width(m?.ms ?? 0, most)} />
                    <i class={`ghost ${p.kind}`} style={width(p.ms, most)} />
                </div>
            </td>
        </tr>
    );
}

// What differs, in words. A head learns from what it measures: what it predicts now is not always
// what it predicted before.
function verdict(predicted, measured, doc) {
    if (!measured) return 'Measured when it has answered.';
    const { tokens, predicted: before, error_percent: error } = doc.measured ?? {};
    const over = tokens ? ` over ${count(tokens, 'token')}` : '';
    const was = before?.ms_per_token ?? sumOf(predicted);
    const off = error ?? (100 * (sumOf(predicted) - sumOf(measured))) / sumOf(measured);
    if (Math.abs(off) < 1) return `Measured${over}: as predicted.`;
    return `Measured${over}; before that, ${ms(was)} were predicted (${signed(off)} %).`;
}

export function TokenTime({ doc }) {
    const predicted = tokenParts(doc, 'predicted_ms');
    const measured = tokenParts(doc, 'measured_ms');
    if (!predicted) return null;
    const most = Math.max(1e-9, sumOf(predicted), measured ? sumOf(measured) : 0);
    const rows = predicted.map((p, i) => ({ p, m: measured?.[i] })).filter(({ p }) => !p.here);
    const mostRow = Math.max(1e-9, ...rows.flatMap(({ p, m }) => [p.ms, m?.ms ?? 0]));
    return (
        <section class="panel" aria-labelledby="token-time">
            <h2 id="token-time">A token’s time</h2>
            <p class="soft">
                {verdict(predicted, measured, doc)}
                {measured &&
                    ' By part, the full colour is what was measured, the pale one what was predicted.'}
            </p>
            <Bar doc={doc} parts={predicted} most={most} what="predicted" />
            {measured && <Bar doc={doc} parts={measured} most={most} what="measured" />}
            <div class="wide" tabIndex={0} role="region" aria-label="A token’s time by part">
                <table class="parts">
                    <thead>
                        <tr>
                            <th scope="col">Part</th>
                            <th scope="col" class="number">
                                Predicted
                            </th>
                            <th scope="col" class="number">
                                Measured
                            </th>
                            <td class="bars" />
                        </tr>
                    </thead>
                    <tbody>
                        {rows.map(({ p, m }, i) => (
                            <Row key={i} doc={doc} p={p} m={m} most={mostRow} />
                        ))}
                    </tbody>
                </table>
            </div>
        </section>
    );
}
