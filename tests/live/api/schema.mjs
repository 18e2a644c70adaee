// Whether a value is of a JSON schema: the part of the language that these tests use, by hand, so
// that it does not share a mistake with the program under test.
const types = {
    object: v => v !== null && typeof v === 'object' && !Array.isArray(v),
    array: Array.isArray,
    string: v => typeof v === 'string',
    number: v => typeof v === 'number',
    integer: Number.isInteger,
    boolean: v => typeof v === 'boolean',
    null: v => v === null,
};

// The first thing that is wrong, or ''.
export function wrong(schema, v, at = '$') {
    if (schema.enum && !schema.enum.includes(v))
        return `${at} is none of ${schema.enum}`;
    if ('const' in schema && schema.const !== v)
        return `${at} is not ${schema.const}`;
    if (schema.anyOf && schema.anyOf.every(s => wrong(s, v, at)))
        return `${at} fits none of anyOf`;
    if (schema.type && ![schema.type].flat().some(type => types[type](v)))
        return `${at} is no ${schema.type}`;
    if (typeof v === 'string') {
        const n = [...v].length;
        if (n < (schema.minLength ?? 0) || n > (schema.maxLength ?? Infinity))
            return `${at} has a length of ${n}`;
        if (schema.pattern && !new RegExp(schema.pattern, 'u').test(v))
            return `${at} does not match ${schema.pattern}`;
    }
    if (typeof v === 'number' && (v < (schema.minimum ?? -Infinity) ||
        v > (schema.maximum ?? Infinity)))
        return `${at} is ${v}`;
    if (Array.isArray(v)) {
        if (v.length < (schema.minItems ?? 0) || v.length > (schema.maxItems ?? Infinity))
            return `${at} has ${v.length} items`;
        for (const [i, x] of v.entries()) {
            const what = wrong(schema.items ?? {}, x, `${at}[${i}]`);
            if (what)
                return what;
        }
    }
    return types.object(v) ? wrongFields(schema, v, at) : '';
}

function wrongFields(schema, v, at) {
    for (const name of schema.required ?? [])
        if (!(name in v))
            return `${at}.${name} is missing`;
    for (const [name, x] of Object.entries(v)) {
        const inner = schema.properties?.[name];
        if (!inner && schema.additionalProperties === false)
            return `${at}.${name} is not in the schema`;
        const what = inner ? wrong(inner, x, `${at}.${name}`) : '';
        if (what)
            return what;
    }
    return '';
}
