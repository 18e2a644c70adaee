// The drawing of a timeline: a lane for each stage, time from left to right. Zoomed and moved by
// d3-zoom (wheel with Ctrl, pinch, drag) and by keys. On a canvas: a long answer has 10,000s of spans.
import { scaleLinear } from 'd3-scale';
import { select } from 'd3-selection';
import { zoom, zoomIdentity } from 'd3-zoom';
import { ms } from '../format.js';

export const laneH = 40;
const axisH = 26;
const padX = 12;
const nameH = 14;
const leastUs = 50; /* what the whole width shows at the closest */

// The page's colours as the canvas wants them: resolved for the theme that is shown.
function palette(canvas, lanes) {
    const probe = document.createElement('span');
    canvas.parentNode.append(probe);
    const of = name => {
        probe.style.color = `var(${name})`;
        return getComputedStyle(probe).color;
    };
    const p = {
        ink: of('--ink'),
        soft: of('--soft'),
        line: of('--line'),
        bg: of('--bg'),
        wire: of('--hop'),
        wait: of('--wait'),
        head: of('--head'),
        queue: of('--queue'),
        mark: of('--accent'),
        lane: lanes.map(l => of(l.colour)),
    };
    probe.remove();
    return p;
}

export class Drawing {
    // lanes: [{name, colour}]; spans: sorted by start; onPick(span or null, x, y)
    constructor(canvas, { lanes, spans, endUs, firstUs, onPick }) {
        Object.assign(this, { canvas, lanes, spans, firstUs, onPick });
        this.end = Math.max(endUs, 1);
        this.picked = null;
        this.zoom = zoom()
            .filter(e => (e.type === 'wheel' ? e.ctrlKey || e.metaKey : !e.button))
            .on('zoom', e => {
                this.at = e.transform;
                this.draw();
            });
        this.at = zoomIdentity;
        select(canvas).call(this.zoom).on('dblclick.zoom', null);
        this.sized = new ResizeObserver(() => this.resize());
        this.sized.observe(canvas.parentNode);
        this.themed = matchMedia('(prefers-color-scheme: dark)');
        this.themed.addEventListener('change', this.recolour);
        this.marked = new MutationObserver(this.recolour);
        this.marked.observe(document.documentElement, { attributeFilter: ['data-theme'] });
        this.recolour();
    }

    close() {
        this.sized.disconnect();
        this.marked.disconnect();
        this.themed.removeEventListener('change', this.recolour);
        select(this.canvas).on('.zoom', null);
    }

    recolour = () => {
        this.colours = palette(this.canvas, this.lanes);
        this.resize();
    };

    resize() {
        const width = this.canvas.parentNode.clientWidth;
        const height = axisH + this.lanes.length * (laneH + nameH) + 6;
        const dots = devicePixelRatio || 1;
        this.width = width;
        this.canvas.width = width * dots;
        this.canvas.height = height * dots;
        this.canvas.style.height = `${height}px`;
        this.dots = dots;
        this.base = scaleLinear([0, this.end], [padX, width - padX]);
        this.zoom
            .scaleExtent([1, Math.max(1, this.end / leastUs)])
            .extent([
                [0, 0],
                [width, height],
            ])
            .translateExtent([
                [0, 0],
                [width, height],
            ]);
        this.draw();
    }

    get scale() {
        return this.at.rescaleX(this.base);
    }
    top(lane) {
        return axisH + lane * (laneH + nameH) + nameH;
    }

    draw() {
        cancelAnimationFrame(this.frame);
        this.frame = requestAnimationFrame(() => this.drawNow());
    }

    drawNow() {
        const c = this.canvas.getContext('2d');
        const x = this.scale;
        c.setTransform(this.dots, 0, 0, this.dots, 0, 0);
        c.clearRect(0, 0, this.width, this.canvas.height);
        c.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
        this.drawAxis(c, x);
        this.drawSpans(c, x);
        this.drawFirst(c, x);
        this.drawNames(c);
        if (this.picked) this.drawPicked(c, x);
    }

    drawAxis(c, x) {
        const ticks = x.ticks(Math.max(2, Math.floor(this.width / 110)));
        c.textAlign = 'center';
        for (const t of ticks) {
            const px = Math.round(x(t)) + 0.5;
            c.fillStyle = this.colours.line;
            c.fillRect(px, axisH - 4, 1, this.canvas.height);
            c.fillStyle = this.colours.soft;
            c.fillText(
                t === 0 ? '0' : ms(t / 1000),
                Math.max(14, Math.min(this.width - 22, px)),
                14,
            );
        }
    }

    drawNames(c) {
        c.textAlign = 'left';
        this.lanes.forEach((l, i) => {
            c.fillStyle = this.colours.bg; /* over whatever line passes here */
            c.fillRect(padX - 3, this.top(i) - nameH, c.measureText(l.name).width + 6, nameH);
            c.fillStyle = this.colours.ink;
            c.fillText(l.name, padX, this.top(i) - 3);
        });
    }

    // Computing fills its lane; what is not computing is lower, so that kinds differ in shape, too.
    shape(s) {
        const top = this.top(s.lane);
        if (s.kind === 'compute' || s.kind === 'head') return [top + 2, laneH - 10];
        if (s.kind === 'queue') return [top + 2, laneH - 10];
        if (s.kind === 'wire') return [top + laneH - 30, 8];
        return [top + laneH - 18, 8];
    }

    colour(s) {
        return s.kind === 'compute' ? this.colours.lane[s.lane] : this.colours[s.kind];
    }

    // Spans narrower than a pixel that touch are drawn as one.
    drawSpans(c, x) {
        const [from, to] = x.domain();
        const drawn = new Map();
        for (const s of this.spans) {
            if (s.start > to) break;
            if (s.end < from) continue;
            const x0 = Math.max(x(s.start), 0),
                x1 = Math.min(x(s.end), this.width);
            const key = `${s.lane} ${s.kind}`;
            const last = drawn.get(key) ?? -1;
            if (x1 - x0 < 0.5 && x1 < last + 0.5) continue;
            drawn.set(key, x1);
            const [y, h] = this.shape(s);
            c.fillStyle = this.colour(s);
            c.fillRect(x0, y, Math.max(x1 - x0 - (x1 - x0 > 4 ? 1 : 0), 0.5), h);
        }
    }

    drawFirst(c, x) {
        if (!(this.firstUs > 0)) return;
        const px = Math.round(x(this.firstUs));
        if (px < 0 || px > this.width) return;
        c.fillStyle = this.colours.mark;
        c.fillRect(px, axisH - 6, 1.5, this.canvas.height);
        c.textAlign = px > this.width - 80 ? 'right' : 'left';
        c.fillText('first token', px + (c.textAlign === 'left' ? 5 : -4), axisH + 1);
    }

    drawPicked(c, x) {
        const s = this.picked;
        const [y, h] = this.shape(s);
        c.strokeStyle = this.colours.ink;
        c.lineWidth = 2;
        c.strokeRect(x(s.start) - 1, y - 2, Math.max(x(s.end) - x(s.start), 1) + 2, h + 4);
    }

    pick(s) {
        this.picked = s;
        this.draw();
        const x = this.scale;
        const at = s && Math.min(Math.max((x(s.start) + x(s.end)) / 2, 0), this.width);
        this.onPick(s, at, s ? this.shape(s)[0] : 0);
    }

    // The span under a point; one that is hardly to be seen is found some pixels beside it, too.
    find(px, py) {
        const x = this.scale;
        let best = null,
            least = 4;
        for (const s of this.spans) {
            const [y, h] = this.shape(s);
            if (py < y - 1 || py > y + h + 1) continue;
            const off = Math.max(x(s.start) - px, px - x(s.end), 0);
            if (off < least) [best, least] = [s, off];
        }
        return best;
    }

    hover(e) {
        const box = this.canvas.getBoundingClientRect();
        this.pick(this.find(e.clientX - box.left, e.clientY - box.top));
    }

    // At once: a glide would be cut short by the next key, and what it had still to go be lost.
    zoomBy(k) {
        select(this.canvas).call(this.zoom.scaleBy, k);
    }
    moveBy(px) {
        select(this.canvas).call(this.zoom.translateBy, px / this.at.k, 0);
    }
    look(at) {
        select(this.canvas).call(this.zoom.transform, at);
    }
    fit() {
        select(this.canvas).call(this.zoom.transform, zoomIdentity);
    }

    // The span after (by 1) or before (by -1) the one that is picked, brought into view.
    step(by) {
        const i = this.picked ? this.spans.indexOf(this.picked) + by : 0;
        const s = this.spans[Math.min(Math.max(i, 0), this.spans.length - 1)];
        if (!s) return;
        const [from, to] = this.scale.domain();
        if (s.start < from || s.end > to)
            select(this.canvas).call(this.zoom.translateTo, this.base((s.start + s.end) / 2), 0);
        this.pick(s);
    }

    key(e) {
        const moves = { ArrowLeft: 80, ArrowRight: -80 };
        if (e.ctrlKey || e.metaKey || e.altKey) return;
        if (moves[e.key]) this.moveBy(moves[e.key]);
        else if (e.key === '+' || e.key === '=') this.zoomBy(1.6);
        else if (e.key === '-') this.zoomBy(1 / 1.6);
        else if (e.key === '0' || e.key === 'Home') this.fit();
        else if (e.key === ']') this.step(1);
        else if (e.key === '[') this.step(-1);
        else return;
        e.preventDefault();
        e.stopPropagation();
    }
}
