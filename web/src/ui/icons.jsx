// Small drawings, of one stroke and one size. They never stand alone: whatever they sit in has a name.
const paths = {
    plus: 'M8 3v10M3 8h10',
    menu: 'M2.5 4.5h11M2.5 8h11M2.5 11.5h7',
    send: 'M8 13V3M3.5 7.5L8 3l4.5 4.5',
    stop: 'M4.5 4.5h7v7h-7z',
    again: 'M13 8a5 5 0 1 1-1.6-3.7M13 2.2v2.6h-2.6',
    edit: 'M3 13l.7-2.9L10.9 3l2.1 2.1-7.1 7.2L3 13z',
    copy: 'M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z',
    sliders: 'M2.5 5h5M11 5h2.5M9.2 3.2v3.6M2.5 11H5M8.5 11h5M6.8 9.2v3.6',
    bin: 'M3 4.5h10M6.2 4.5V3h3.6v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5',
    out: 'M8 2.5v7M5 7l3 3 3-3M3 13h10',
    sun: 'M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6zM8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9',
    moon: 'M13 9.4A5.4 5.4 0 0 1 6.6 3a5.4 5.4 0 1 0 6.4 6.4z',
    auto: 'M8 2.5a5.5 5.5 0 1 1 0 11zM8 2.5a5.5 5.5 0 0 0 0 11',
    keys: 'M2 4.5h12v7H2zM4.5 7h.1M7 7h.1M9.5 7h.1M12 7h.1M5.5 9.5h5',
    close: 'M4 4l8 8M12 4l-8 8',
    down: 'M8 3v10M3.5 8.5L8 13l4.5-4.5',
    on: 'M3 8h9M8.5 4.5L12 8l-3.5 3.5',
    clock: 'M8 2.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 0 1 0-11zM8 5v3l2 1.5',
    pen: 'M2.5 13.5h11M4 11l.5-2L10 3.5l1.5 1.5L6 10.5 4 11z',
};

export function Icon({ name }) {
    return (
        <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
            <path d={paths[name]} />
        </svg>
    );
}

// A button that shows an icon alone, with its name for those who do not see it and on hovering.
export function IconButton({ icon, label, keys, ...rest }) {
    return (
        <button
            type="button"
            class="icon-button"
            aria-label={label}
            title={keys ? `${label} (${keys})` : label}
            {...rest}
        >
            <Icon name={icon} />
        </button>
    );
}
