// The last answer's timeline, fetched while it is looked at: again and again while an answer runs,
// and until every device has sent what it recorded.
import { useEffect, useState } from 'preact/hooks';
import { ask } from '../api.js';
import { cluster } from '../cluster/live.js';
import { useStore } from '../store.js';

const againMs = 1000;
const patience = 10; /* times that we ask for what is not complete */

export function useTimeline() {
    const [state, setState] = useState({ doc: null, error: null });
    const link = useStore(cluster, s => s.link);
    const streams = useStore(cluster, s => (s.doc?.speed?.streams ?? 0) > 0);
    const [asked, setAsked] = useState(0);
    useEffect(() => {
        const abort = new AbortController();
        let timer,
            tries = 0;
        const load = async () => {
            try {
                const doc = await ask('/cluster/timeline', undefined, { signal: abort.signal });
                setState({ doc, error: null });
                const open = doc.state === 'running' || (doc.state === 'done' && !doc.complete);
                if (open && (doc.state === 'running' || ++tries < patience))
                    timer = setTimeout(load, againMs);
            } catch (error) {
                if (!abort.signal.aborted) setState(s => ({ ...s, error }));
            }
        };
        load();
        return () => {
            clearTimeout(timer);
            abort.abort();
        };
    }, [link, streams, asked]);
    return { ...state, again: () => setAsked(n => n + 1) };
}
