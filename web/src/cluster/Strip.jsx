// The model as a strip: its modules side by side, in the colours of the devices that hold them.
import { useState } from 'preact/hooks';
import { colourOf, moduleName, size } from './describe.js';
import { count } from '../format.js';

function Segment({ s, doc, n, named }) {
    const style = {
        ...colourOf(doc, s.device),
        left: `${(100 * s.first) / n}%`,
        width: `${(100 * size(s)) / n}%`,
        '--n': size(s),
    };
    return (
        <li class="segment" style={style} data-device={s.device} data-modules={size(s)}>
            {named && (
                <span class="segment-name" aria-hidden="true">
                    {s.device}
                </span>
            )}
            <span class="hidden">
                {s.device}: {s.text}, {count(size(s), 'module')}
            </span>
        </li>
    );
}

// The module under the pointer, and whose it is.
function tipOf(doc, n, e) {
    const box = e.currentTarget.getBoundingClientRect();
    const at = (e.clientX - box.left) / box.width;
    const i = Math.min(n - 1, Math.max(0, Math.floor(at * n)));
    const s = (doc.stages ?? []).find(x => x.first <= i && i <= x.last);
    return { at, text: `${moduleName(i, n)}: ${s ? s.device : 'nobody yet'}` };
}

// thin: an ornament, that says nothing new to those who do not see it.
export function Strip({ doc, thin, named }) {
    const [tip, setTip] = useState(null);
    const n = doc?.model?.n_modules ?? 0;
    if (thin)
        return (
            <div class={doc?.speed?.streams ? 'strip thin works' : 'strip thin'} aria-hidden="true">
                {n > 0 && doc.stages?.map(s => <Segment key={s.first} s={s} doc={doc} n={n} />)}
            </div>
        );
    return (
        <div class="strip-place">
            <ol
                class="strip"
                aria-label={`The model, ${count(n, 'module')}, and who holds them`}
                data-n={n}
                onPointerMove={e => setTip(tipOf(doc, n, e))}
                onPointerLeave={() => setTip(null)}
            >
                {n > 0 &&
                    doc.stages?.map(s => (
                        <Segment key={s.first} s={s} doc={doc} n={n} named={named} />
                    ))}
            </ol>
            {tip && (
                <span
                    class="tip"
                    style={{ left: `${100 * Math.min(0.96, Math.max(0.04, tip.at))}%` }}
                >
                    {tip.text}
                </span>
            )}
        </div>
    );
}
