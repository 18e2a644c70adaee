// The shapes of OpenAI's answers, as the types in the openai package have them (resources/chat/
// completions, completions, embeddings, models), for the fields that we serve. A shape throws when a
// value is not of it. A field of OpenAI's that we do not serve must be missing, null, or right.
import assert from 'node:assert/strict';

const fail = (at, what, value) =>
    assert.fail(`${at} must be ${what}, not ${JSON.stringify(value)?.slice(0, 200)}`);
const check = (what, fits) => (value, at) => { if (!fits(value)) fail(at, what, value); };

export const string = check('a string', v => typeof v === 'string');
export const bool = check('true or false', v => typeof v === 'boolean');
export const number = check('a number', v => Number.isFinite(v));
export const whole = check('a whole number, 0 or more', v => Number.isInteger(v) && v >= 0);
export const seconds = check('a time of these years',
    v => Number.isInteger(v) && v > 1.6e9 && v < 1e10);
export const one = (...values) => check(values.map(v => JSON.stringify(v)).join(' or '),
    v => values.includes(v));
export const like = pattern => check(String(pattern),
    v => typeof v === 'string' && pattern.test(v));
export const nullable = shape => (v, at) => { if (v !== null) shape(v, at); };
export const optional = shape => Object.assign((v, at) => { if (v !== undefined) shape(v, at); },
    { optional: true });
export const list = (shape, min = 0) => (v, at) => {
    if (!Array.isArray(v) || v.length < min)
        fail(at, `an array of ${min} or more`, v);
    v.forEach((x, i) => shape(x, `${at}[${i}]`));
};
export const map = shape => (v, at) => {
    if (v === null || typeof v !== 'object' || Array.isArray(v))
        fail(at, 'an object', v);
    Object.entries(v).forEach(([k, x]) => shape(x, `${at}.${k}`));
};
export const object = fields => (v, at) => {
    map(() => {})(v, at);
    for (const [name, shape] of Object.entries(fields))
        if (name in v)
            shape(v[name], `${at}.${name}`);
        else if (!shape.optional)
            fail(`${at}.${name}`, 'there', undefined);
};

const usage = object({ prompt_tokens: whole, completion_tokens: whole, total_tokens: whole,
    prompt_tokens_details: optional(object({ cached_tokens: whole })) });
const byte = check('a byte', v => Number.isInteger(v) && v >= 0 && v < 256);
const logprob = check('a logarithm of a probability', v => Number.isFinite(v) && v <= 1e-5);
const top = { token: string, bytes: nullable(list(byte)), logprob };
const chatLogprobs = object({ content: nullable(list(object({ ...top,
    top_logprobs: list(object(top)) }))), refusal: optional(nullable(string)) });
const toolCall = object({ id: string, type: one('function'),
    function: object({ name: string, arguments: string }) });
const head = (prefix, kind) => ({ id: like(prefix), created: seconds, model: string,
    object: one(kind), system_fingerprint: string });

const message = object({ role: one('assistant'), content: nullable(string),
    tool_calls: optional(list(toolCall, 1)), reasoning_content: optional(nullable(string)),
    refusal: optional(nullable(string)) });
export const chat = object({ ...head(/^chatcmpl-./, 'chat.completion'), usage,
    choices: list(object({ index: whole, message, logprobs: nullable(chatLogprobs),
        finish_reason: one('stop', 'length', 'tool_calls') }), 1) });

const delta = object({ role: optional(one('assistant')), content: optional(nullable(string)),
    reasoning_content: optional(nullable(string)),
    tool_calls: optional(list(object({ index: whole, id: optional(string),
        type: optional(one('function')), function: optional(object({ name: optional(string),
            arguments: optional(string) })) }), 1)) });
export const chunk = object({ ...head(/^chatcmpl-./, 'chat.completion.chunk'),
    usage: optional(nullable(usage)),
    choices: list(object({ index: whole, delta, logprobs: optional(nullable(chatLogprobs)),
        finish_reason: nullable(one('stop', 'length', 'tool_calls')) })) });

const textLogprobs = object({ tokens: list(string), token_logprobs: list(nullable(logprob)),
    top_logprobs: nullable(list(nullable(map(logprob)))), text_offset: list(whole) });
const textChoice = reason => list(object({ index: whole, text: string,
    logprobs: nullable(textLogprobs), finish_reason: reason }));
export const completion = object({ ...head(/^cmpl-./, 'text_completion'), usage,
    choices: textChoice(one('stop', 'length')) });
export const completionChunk = object({ ...head(/^cmpl-./, 'text_completion'),
    usage: optional(nullable(usage)), choices: textChoice(nullable(one('stop', 'length'))) });

const vectors = of => object({ object: one('list'), model: string,
    data: list(object({ object: one('embedding'), index: whole, embedding: of }), 1),
    usage: object({ prompt_tokens: whole, total_tokens: whole }) });
export const embeddings = vectors(list(number, 1));
export const embeddings64 = vectors(like(/^[A-Za-z0-9+/]+=*$/));
export const model = object({ id: string, object: one('model'), created: seconds,
    owned_by: string });
export const models = object({ object: one('list'), data: list(model, 1) });

export const error = object({ error: object({ message: like(/./), type: like(/./),
    param: nullable(string), code: nullable(string) }) });
export const nativeError = object({ error: object({ message: like(/./), type: like(/./),
    param: nullable(string), code: whole }) });

// llama-server's.
const timings = object({ prompt_n: whole, prompt_ms: number, prompt_per_token_ms: number,
    prompt_per_second: number, predicted_n: whole, predicted_ms: number,
    predicted_per_token_ms: number, predicted_per_second: number });
export const native = object({ content: string, tokens: optional(list(whole)), stop: one(true),
    stop_type: one('eos', 'word', 'limit', 'none'), stopping_word: string, tokens_predicted: whole,
    tokens_evaluated: whole, tokens_cached: whole, truncated: bool, index: whole, id_slot: whole,
    model: string, prompt: string, generation_settings: map(() => {}), timings });
export const nativeChunk = object({ content: string, stop: one(false), index: whole });
export const nativeProbs = list(object({ id: whole, token: string, bytes: list(byte), logprob,
    top_logprobs: list(object({ id: whole, token: string, bytes: list(byte), logprob })) }), 1);

const classLabel = object({ label: string, logprob, probability: number, mean_logprob: logprob,
    mean_probability: number, tokens: whole });
export const classification = object({ object: one('classification'), label: string,
    labels: list(classLabel, 1), model: string,
    usage: object({ prompt_tokens: whole, total_tokens: whole }) });

export const slots = list(object({ id: whole, n_ctx: whole, is_processing: bool, n_prompt: whole,
    n_decoded: whole }), 1);
export const props = object({ total_slots: whole, model_path: string, chat_template: string,
    chat_template_caps: map(() => {}), n_ctx: whole, bos_token: string, eos_token: string,
    build_info: string, default_generation_settings: object({ n_ctx: whole,
        params: object({ temperature: number, top_k: number, top_p: number, min_p: number,
            n_predict: number, seed: number, stop: list(string) }) }) });

export const fits = (shape, value, at = 'the answer') => { shape(value, at); return value; };
