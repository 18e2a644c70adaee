// How answers are made: kept in this browser, for all its conversations.
import { makeStore } from '../store.js';

const name = 'lingua.settings';

// maxTokens 0: as many as the context has room for.
export const defaults = { temperature: 0.8, topP: 0.95, maxTokens: 0, system: '' };

const within = (v, least, most, other) =>
    typeof v === 'number' && v >= least && v <= most ? v : other;

function checked(s) {
    return {
        temperature: within(s?.temperature, 0, 100, defaults.temperature),
        topP: within(s?.topP, 0, 1, defaults.topP),
        maxTokens: Math.round(within(s?.maxTokens, 0, 1e6, defaults.maxTokens)),
        system: typeof s?.system === 'string' ? s.system : defaults.system,
    };
}

function load() {
    try {
        return checked(JSON.parse(localStorage.getItem(name)));
    } catch {
        return { ...defaults };
    }
}

export const settings = makeStore(load());

export function changeSettings(change) {
    settings.set(checked({ ...settings.get(), ...change }));
    try {
        localStorage.setItem(name, JSON.stringify(settings.get()));
    } catch {
        /* they hold until the page is closed, then */
    }
}

export const areDefaults = s => Object.keys(defaults).every(k => s[k] === defaults[k]);
