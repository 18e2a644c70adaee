// Tokens per second over the last minute.
const windowMs = 60000;

export function Sparkline({ history, width = 72, height = 20, area }) {
    const now = history.at(-1)?.at ?? 0;
    const most = Math.max(1e-9, ...history.map(h => h.speed));
    const x = h => Math.max(0, width - ((now - h.at) / windowMs) * width);
    const y = h => height - 1 - (h.speed / most) * (height - 3);
    const points = history.map(h => `${x(h).toFixed(1)},${y(h).toFixed(1)}`);
    if (points.length < 2)
        points.splice(0, points.length, `0,${height - 1}`, `${width},${height - 1}`);
    const line = `M${points.join('L')}`;
    return (
        <svg
            class="sparkline"
            viewBox={`0 0 ${width} ${height}`}
            preserveAspectRatio="none"
            aria-hidden="true"
        >
            <path class="ground" d={`M0,${height - 0.5}H${width}`} />
            {area && <path class="below" d={`${line}V${height}H${points[0].split(',')[0]}Z`} />}
            <path d={line} />
        </svg>
    );
}
