// How answers are made. What is set holds at once, for all conversations of this browser.
import { model } from '../cluster/live.js';
import { useStore } from '../store.js';
import { Dialog } from '../ui/Dialog.jsx';
import { areDefaults, changeSettings, defaults, settings } from './settings.js';

function Slider({ label, hint, value, max, step, onChange }) {
    const set = e => onChange(Number(e.target.value));
    return (
        <label class="field">
            <span class="label">
                {label} <output>{value.toFixed(2)}</output>
            </span>
            <input type="range" min="0" max={max} step={step} value={value} onInput={set} />
            <span class="soft small">{hint}</span>
        </label>
    );
}

export function Settings() {
    const s = useStore(settings);
    const { template, nCtx } = useStore(model);
    return (
        <Dialog title="Settings" side="right">
            <Slider
                label="Temperature"
                hint="0: always the likeliest word. Higher: more surprising."
                value={s.temperature}
                max="2"
                step="0.05"
                onChange={temperature => changeSettings({ temperature })}
            />
            <Slider
                label="Top-p"
                hint="Only words that together make up this share of the likelihood."
                value={s.topP}
                max="1"
                step="0.01"
                onChange={topP => changeSettings({ topP })}
            />
            <label class="field">
                <span class="label">Tokens at most</span>
                <input
                    type="number"
                    min="0"
                    max={nCtx || undefined}
                    value={s.maxTokens || ''}
                    placeholder={template === false ? '256' : 'as many as fit'}
                    onInput={e => changeSettings({ maxTokens: Number(e.target.value) || 0 })}
                />
                <span class="soft small">
                    {nCtx
                        ? `The context has room for ${nCtx.toLocaleString('en')}, prompt included.`
                        : ''}
                </span>
            </label>
            <label class="field">
                <span class="label">System prompt</span>
                <textarea
                    rows="6"
                    value={s.system}
                    placeholder="What the model is told before each conversation"
                    disabled={template === false}
                    onInput={e => changeSettings({ system: e.target.value })}
                />
                {template === false && (
                    <span class="soft small">
                        This model only continues text; it takes no system prompt.
                    </span>
                )}
            </label>
            <button
                type="button"
                class="button"
                disabled={areDefaults(s)}
                onClick={() => changeSettings(defaults)}
            >
                Defaults
            </button>
        </Dialog>
    );
}
