// lingua top in a terminal that is looked at (tmux): three devices, another size, a head that stands
// still, one that ends and comes back, and a terminal that is as it was.
import test from 'node:test';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { defaultModel, skipFile, until, withRig } from './rig.mjs';

if (spawnSync('tmux', ['-V']).status !== 0)
    skipFile('there is no tmux: tools/install-deps build terminal');

const quoted = words => words.map(w => `'${w}'`).join(' ');

// A terminal of its own, in which `command` runs under a shell that tells how it ended.
class Terminal {
    constructor(rig, command, { width = 80, height = 24, env = {} } = {}) {
        this.socket = `${rig.folder}/tmux`;
        const told = 'echo "left with $?; after $(stty -g)"; sleep 600';
        this.tmux('-f', '/dev/null', 'new-session', '-d', '-x', width, '-y', height,
            ...Object.entries(env).flatMap(([k, v]) => ['-e', `${k}=${v}`]),
            `echo "before $(stty -g)"; ${quoted(command)}; ${told}`);
        rig.closers.push(() => this.tmux('kill-server'));
    }
    tmux(...args) {
        const r = spawnSync('tmux', ['-u', '-S', this.socket, ...args.map(String)],
            { encoding: 'utf8', env: { ...process.env, TERM: 'xterm-256color', LANG: 'C.UTF-8' } });
        assert.equal(r.status, 0, `tmux ${args}: ${r.stderr}`);
        return r.stdout;
    }
    get text() { return this.tmux('capture-pane', '-p'); }
    get colours() { return this.tmux('capture-pane', '-p', '-e'); }
    keys(...keys) { this.tmux('send-keys', ...keys); }
    resize(width, height) { this.tmux('resize-window', '-x', width, '-y', height); }
    async shows(pattern, ms) {
        let text;
        try {
            return await until(() => pattern.test(text = this.text) && text, pattern, ms);
        } catch (e) {
            throw new Error(`${e.message}; it shows\n${text}`);
        }
    }
}

const lines = text => text.replace(/\n$/, '').split('\n');

async function three(rig) {
    await rig.serve({ model: defaultModel() });
    for (const name of ['one', 'two'])
        rig[name] = await rig.join(name);
    await rig.ready(['one', 'two']);
}
const top = (rig, ...more) =>
    [process.env.LINGUA_PROGRAM, 'top', '--state', rig.state('head'), ...more];

test('three devices, another size, and a terminal as it was', withRig(async rig => {
    await three(rig);
    await rig.tokens('Once upon a time', 20);
    const t = new Terminal(rig, top(rig));
    const text = await t.shows(/A head +ready.*\nB (one|two) +ready.*\nC (one|two) +ready/);
    assert.match(text, /stories/);
    assert.ok(lines(text).length <= 24 && lines(text).every(l => l.length <= 80), text);
    assert.match(lines(text).at(-1), /q leaves$/);
    assert.ok(t.colours.includes('\x1b['), 'there are colours on a terminal');
    t.resize(120, 40);
    const wide = await until(() => {
        const now = lines(t.text);
        return now.length === 40 && /^ {112}q leaves$/.test(now[39]) && now;
    }, 'a larger picture');
    assert.match(wide[0], /tokens\/s$|running$/);
    t.resize(60, 12);
    await until(() => /q leaves$/.test(lines(t.text)[11] ?? ''), 'a smaller picture');
    t.resize(120, 40);
    t.keys('q');
    const left = (await t.shows(/left with 0; after [^]*\n/)).replace(/(\S)\n(\S)/g, '$1$2');
    assert.doesNotMatch(left, /q leaves/, 'what stood there before is back');
    const [, before, after] = /before ([0-9a-f:]+?)left with 0; after ([0-9a-f:]+)/.exec(left);
    assert.equal(after, before, 'the terminal is as it was');
}));

test('a head that stands still, ends, and comes back', withRig(async rig => {
    await three(rig);
    const t = new Terminal(rig, top(rig));
    await t.shows(/\nC (one|two) +ready/);
    rig.head.signal('SIGSTOP');
    const still = await t.shows(/the head does not answer/);
    assert.match(still, /\nC (one|two) +ready/, 'the last picture stays');
    rig.head.signal('SIGCONT');
    await until(() => !/does not answer/.test(t.text), 'it answers again');
    await rig.head.kill('SIGKILL');
    const lost = await t.shows(/lost for \d+ s: (the head has ended|no head runs)/);
    assert.match(lost, /\nA head +ready/);
    await rig.serve({ model: defaultModel() });
    await until(() => !/lost for/.test(t.text), 'it has found the head');
    rig.head.signal('SIGSTOP'); // and q works whatever the head does
    await t.shows(/does not answer/);
    t.keys('q');
    await t.shows(/left with 0/, 3000);
    rig.head.signal('SIGCONT');
}));

test('Ctrl-C leaves; Ctrl-Z stops it and fg brings it back', withRig(async rig => {
    await rig.serve({ model: defaultModel() });
    const t = new Terminal(rig, ['bash', '--norc', '-i'], { env: { NO_COLOR: '1' } });
    await t.shows(/^bash-\S+[#$]/m);
    t.keys(quoted(top(rig)), 'Enter');
    await t.shows(/A head +ready/);
    assert.ok(!/\x1b\[[0-9;]*3[0-9]m/.test(t.colours), 'no colours with NO_COLOR');
    t.keys('C-z');
    await t.shows(/Stopped/);
    t.keys('fg', 'Enter');
    await t.shows(/A head +ready[^]*q leaves/);
    t.keys('C-c');
    await until(() => !/q leaves/.test(t.text), 'it has left');
    t.keys('echo again $((1 + 1))', 'Enter');
    await t.shows(/again 2/);
}));

test('once, for machines, and without a head', withRig(async rig => {
    await three(rig);
    const once = await rig.lingua(...top(rig).slice(1));
    assert.equal(once.code, 0);
    assert.match(once.out, /\nA head +ready/);
    assert.ok(!once.out.includes('\x1b'), 'no control where there is no terminal');
    const json = await rig.lingua(...top(rig, '--json').slice(1));
    assert.deepEqual(JSON.parse(json.out).devices.map(d => d.name).sort(), ['head', 'one', 'two']);
    await rig.head.kill('SIGTERM');
    const none = await rig.lingua(...top(rig).slice(1));
    assert.equal(none.code, 1);
    assert.match(none.err, /no head runs/);
}));
