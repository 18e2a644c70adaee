import { useStore } from '../store.js';
import { Dialog } from './Dialog.jsx';
import { keys, letters, setLetters } from './shortcuts.js';

const fixed = [
    ['Enter', 'Send what is written'],
    ['Shift + Enter', 'A new line'],
    ['Esc', 'Stop the answer, leave the message, close a dialog'],
    ['← → + −', 'In the timeline: move, zoom'],
    ['[ ]', 'In the timeline: the part before, the next'],
];

export function Shortcuts() {
    const { on } = useStore(letters);
    const row = ([key, what]) => (
        <div key={key}>
            <dt>
                <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
        </div>
    );
    return (
        <Dialog title="Keyboard">
            <dl class="keys">{fixed.map(row)}</dl>
            <label class="check">
                <input type="checkbox" checked={on} onChange={e => setLetters(e.target.checked)} />
                Single keys, where nothing is being typed
            </label>
            <dl class={on ? 'keys' : 'keys dimmed'}>{keys.map(row)}</dl>
        </Dialog>
    );
}
