// An empty conversation: who will answer, and something to begin with.
import { runs, workers } from '../cluster/describe.js';
import { cluster, model } from '../cluster/live.js';
import { Strip } from '../cluster/Strip.jsx';
import { listed } from '../format.js';
import { useStore } from '../store.js';
import { openDialog } from '../ui/Dialog.jsx';
import { send } from './generate.js';

const questions = [
    'Explain how a rainbow comes about, for a child of ten.',
    'Write a Python function that finds the primes below n, and a test for it.',
    'Compare tea and coffee in a short table.',
];
const beginnings = [
    'Once upon a time',
    'Lily and her dog went to the park.',
    'The old robot was lonely.',
];

function headline(doc, name) {
    const who = workers(doc);
    if (!runs(doc)) return doc.waiting_for ? 'Not ready yet' : 'The cluster gets ready';
    if (who.length === 1) return `${name} runs on ${who[0]} alone`;
    if (who.length > 4) return `${who.length} devices run ${name} together`;
    return `${listed(who)} run ${name} together`;
}

function subline(doc, template) {
    if (!runs(doc))
        return doc.waiting_for || 'You can write already; the answer waits for the devices.';
    if (template === false)
        return 'This model has no chat template: it does not answer, it continues the text that you begin.';
    return 'What you write stays on these devices, and in this browser.';
}

export function Welcome({ c }) {
    const doc = useStore(cluster, s => s.doc);
    const { template, alias } = useStore(model);
    const suggestions = template === false ? beginnings : questions;
    if (!doc)
        return (
            <div class="welcome">
                <h1>One model, all your devices</h1>
                <p class="soft">Waiting for the head to say who is there …</p>
            </div>
        );
    return (
        <div class="welcome">
            <h1>{headline(doc, doc.model?.alias || doc.model?.name || alias)}</h1>
            <Strip doc={doc} named />
            <p class="soft">{subline(doc, template)}</p>
            {template !== null && (
                <ul class="suggestions" aria-label="To begin with">
                    {suggestions.map(text => (
                        <li key={text}>
                            <button type="button" onClick={() => send(c.id, text)}>
                                {text}
                            </button>
                        </li>
                    ))}
                </ul>
            )}
            {doc.devices.length === 1 && (
                <p class="soft">
                    Another device makes it quicker, or makes room for a larger model.{' '}
                    <button type="button" class="link" onClick={() => openDialog('add')}>
                        Add a device
                    </button>
                </p>
            )}
        </div>
    );
}
