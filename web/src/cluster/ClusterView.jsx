// The cluster as it is now.
import { bytes, count, ms, rate } from '../format.js';
import { useStore } from '../store.js';
import { openDialog } from '../ui/Dialog.jsx';
import { Icon } from '../ui/icons.jsx';
import { ApiKeyForm, SignInSteps } from '../ui/SignIn.jsx';
import { Chain } from './Chain.jsx';
import { Devices } from './Devices.jsx';
import { runs, workers } from './describe.js';
import { JoinSteps } from './AddDevice.jsx';
import { cluster } from './live.js';
import { Sparkline } from './Sparkline.jsx';
import { Strip } from './Strip.jsx';
import { TokenTime } from './TokenTime.jsx';

const states = {
    alone: 'The head answers alone',
    waiting: 'Waits',
    fetching: 'Devices fetch their parts',
    loading: 'Devices load their parts',
    running: 'The head answers alone',
};

function Outlook({ doc }) {
    const p = doc.plan;
    if (!p) return null;
    return (
        <p class="soft">
            Planned for {count(p.concurrency || 1, 'answer')} at once: {rate(p.tokens_per_s)}{' '}
            tokens/s, the first token {ms(p.ttft_ms)} after a prompt of {p.prompt}.
            {p.limit ? ` Limited by: ${p.limit}.` : ''}
        </p>
    );
}

function holders(n, doc) {
    if (n < 2) return states[doc.state] ?? doc.state;
    if (n === doc.devices.length)
        return n === 2 ? 'Both devices hold a part' : `All ${n} devices hold a part`;
    return `${n} of ${doc.devices.length} devices hold a part`;
}

function Title({ doc }) {
    const m = doc.model;
    const who = workers(doc).length;
    return (
        <div class="cluster-title">
            <div class="grow">
                <h1>
                    {m.alias || m.name}
                    <span class="soft">
                        {' '}
                        {m.quantisation}, {bytes(m.weight_bytes)} in {m.n_modules} modules
                    </span>
                </h1>
                <p>
                    {holders(who, doc)}
                    {doc.waiting_for ? `; ${doc.waiting_for}` : ''}
                </p>
                <Outlook doc={doc} />
            </div>
            <button type="button" class="button" onClick={() => openDialog('add')}>
                <Icon name="plus" /> Add a device
            </button>
        </div>
    );
}

function Now({ doc, history }) {
    const { slots, speed } = doc;
    const figures = [
        ['tokens/s', rate(speed?.tokens_per_s ?? 0)],
        ['answers now', speed?.streams ?? 0],
        ['slots in use', slots ? `${slots.busy} of ${slots.n}` : '–'],
        ['in the queue', slots?.waiting ?? 0],
        ['prompt tokens/s', rate(speed?.prefill_tokens_per_s ?? 0)],
    ];
    return (
        <section class="now" aria-label="Now">
            <dl>
                {figures.map(([name, value]) => (
                    <div key={name}>
                        <dt>{name}</dt>
                        <dd>{value}</dd>
                    </div>
                ))}
            </dl>
            <Sparkline history={history} width={300} height={48} area />
        </section>
    );
}

function LeftOut({ doc }) {
    const out = doc.plan?.left_out ?? [];
    if (!out.length) return null;
    return (
        <section aria-labelledby="left-out">
            <h2 id="left-out">Left out</h2>
            <ul class="left-out">
                {out.map(o => (
                    <li key={o.name}>
                        <b>{o.name}</b> <span>{o.why}</span>
                    </li>
                ))}
            </ul>
        </section>
    );
}

function Denied() {
    return (
        <div class="narrow">
            <h1>This head wants a key</h1>
            <SignInSteps />
            <ApiKeyForm />
        </div>
    );
}

function Alone() {
    return (
        <section class="panel invite" aria-labelledby="alone">
            <h2 id="alone">No device has joined yet</h2>
            <p>
                The head answers by itself. Any computer, board or phone of yours can take a part of
                the model:
            </p>
            <JoinSteps />
            <button type="button" class="button strong" onClick={() => openDialog('add')}>
                <Icon name="plus" /> Add a device
            </button>
        </section>
    );
}

export function ClusterView() {
    const { doc, link, history } = useStore(cluster);
    if (link === 'denied') return <Denied />;
    if (!doc)
        return (
            <div class="narrow">
                <h1>Cluster</h1>
                <p class="soft">Waiting for the head to say who is there …</p>
            </div>
        );
    return (
        <div class={link === 'lost' ? 'cluster stale' : 'cluster'}>
            <Title doc={doc} />
            <Strip doc={doc} named />
            <Now doc={doc} history={history} />
            {doc.devices.length === 1 && <Alone />}
            {runs(doc) && doc.devices.length > 1 && (
                <section aria-labelledby="way">
                    <h2 id="way">The way of a token</h2>
                    <Chain doc={doc} />
                </section>
            )}
            <section aria-labelledby="devices">
                <h2 id="devices">Devices</h2>
                <Devices doc={doc} />
            </section>
            {runs(doc) && <TokenTime doc={doc} />}
            <LeftOut doc={doc} />
        </div>
    );
}
