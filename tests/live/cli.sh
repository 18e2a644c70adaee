#!/bin/bash
# The program as a person meets it: exit codes, what goes to which stream, signals, pipes.
# usage: cli.sh path/to/lingua, with LINGUA_MODELS holding the default model.
set -u
lingua=$(realpath "$1")
expect_s=120
. "$(dirname "$0")/lib.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
prompt="Once upon a time"
story=", there was a little girl named Lily."

# wait_for FILE TEXT: until the text stands in the file, at most 60 s.
wait_for() {
    for _ in $(seq 3000); do
        grep -aqF -- "$2" "$1" 2>/dev/null && return
        sleep 0.02
    done
    fail "\"$2\" never came"
}

help_and_usage() {
    expect 0 help; prints "usage: lingua"
    expect 0 --help; prints "perplexity"
    ! grep -q "^  device " out || fail "help lists the hidden command"
    for c in run bench perplexity classify inspect; do
        expect 0 help $c; prints "usage: lingua $c"
        expect 0 $c --help; prints "usage: lingua $c"
    done
    expect 0 version; prints "lingua 0."
    expect 2; silent; says "usage: lingua"
    expect 2 rnu; silent; says "did you mean run?"
    expect 2 run --tmp 1; says "did you mean --temp?"
    expect 2 run --temp; says "needs a value"
    expect 2 run --temp=hot; says "from 0 to 100"
    expect 2 run -n 0 -p x; says "--predict takes a whole number"
    expect 2 run -p a --file b; says "not both"
    expect 2 run one two; says 'unexpected argument "two"'
    expect 2 run --kv q3; says "f16|q8_0|f32"
    expect 2 bench -t 1,two; says "joined by commas"
    expect 2 bench -p 0 -n 0; says "nothing to measure"
    expect 2 perplexity; says "which text"
    expect 1 run missing.gguf -p x; silent; says "missing.gguf: No such file or directory"
    expect 1 run --file missing.txt; says "missing.txt: No such file or directory"
    expect 1 perplexity missing.txt; says "missing.txt: No such file or directory"
    echo "not a model" >junk.gguf
    expect 1 run junk.gguf -p x; silent; says "junk.gguf"
    expect 1 inspect junk.gguf; silent; says "junk.gguf"
}

text() {
    expect 0 run -p "$prompt" --temp 0 -n 40
    case $(cat out) in "$story"*) ;; *) fail "the story begins: $(head -c 100 out)" ;; esac
    tail -n 1 err | grep -q "40 tokens after .*first token in .*decode .* tokens/s" ||
        fail "the last line is: $(tail -n 1 err)"
    cp out story
    # The same prompt by every door gives the same text.
    echo "$prompt" >prompt.txt
    expect 0 run --file prompt.txt --temp=0 -n40; cmp -s out story || fail "--file differs"
    "$lingua" run --temp 0 -n 40 <prompt.txt >out 2>err; cmp -s out story || fail "stdin differs"
    expect 0 run -p "$prompt" --temp 0 -n 40 --threads 1
    cmp -s out story || fail "one thread differs"
    # A seed repeats a random answer; without one, the last line tells it.
    expect 0 run -p "$prompt" --temp 1 -n 40; cp out random
    expect 0 run -p "$prompt" --temp 1 -n 40 --seed "$(sed -n 's/.*seed \([0-9]*\)$/\1/p' err)"
    cmp -s out random || fail "the seed does not repeat the answer"
    # No stop before the end of the story or of the context; both say so or stop quietly.
    expect 0 run -p "$prompt" --temp 0 --ctx 24; says "the context of 24 tokens is full; --ctx 48"
    expect 1 run -p "$prompt $prompt $prompt $prompt" --ctx 8; silent; says "--ctx N holds more"
    expect 0 run -p "$prompt" --temp 0 -n 2 --ctx 300; says "was trained for 256"
    expect 1 run -p "$prompt" --temp 0 -n 8 --kv q8_0; says "multiple of 32" # its heads have 48
    expect 0 run -p "$prompt" --temp 0 -n 8 --kv f32
    expect 1 run; says "the prompt is empty" # nothing on stdin
    expect 0 run -p "" --temp 0 -n 4         # but the start token alone is a fair prompt
}

machine_output() {
    expect 0 run -p "$prompt" --temp 0 -n 40 --json
    json out "j.text.startsWith('$story') && j.tokens.length == 40 && j.finish_reason == 'length'"
    json out "j.timings.generated_tokens == 40 && j.timings.ttft_ms > 0 && j.devices.length == 1"
    expect 0 run -p "$prompt" --temp 0 --ctx 24 --json; json out "j.finish_reason == 'context'"
    expect 2 run --json one two
    expect 0 inspect; prints "attn.0..5 (x6)"; prints "legal"
    [ "$(wc -L <out)" -le 100 ] || fail "inspect is wider than 100 columns"
    expect 0 inspect --json
    json out "j.arch == 'llama' && j.modules.length == 14 && j.cuts.length == 13"
    json out "j.modules[1].kv_bytes_per_position == 1152 && j.cuts[0].bytes_per_row == 1152"
    expect 0 bench -p 16 -n 4 -r 2 -d 0,8; prints "| pp16"; prints "tg4 @ d8"; prints "| model"
    expect 0 bench -p 8 -n 2 -r 3 -t 1 --json
    json out "j.length == 2 && j[0].threads == 1 && j[0].tokens_per_second.length == 3"
    for _ in 1 2 3 4 5 6; do cat story; done >text.txt
    expect 0 perplexity text.txt --ctx 64; prints "Final estimate: PPL = "; says "[2/"
    expect 0 perplexity text.txt --ctx 64 --chunks 2 --json
    json out "j.perplexity > 1 && j.running.length == 2 && j.scored_tokens == 62"
    expect 1 perplexity text.txt --ctx 4096; silent; says "at least twice as many"
}

streams() {
    local status
    "$lingua" run -p "$prompt" --temp 0 -n 8 </dev/null >/dev/full 2>err
    status=$?; [ $status = 1 ] || fail "a full stdout: exit status $status"; says "No space left"
    "$lingua" run -p "$prompt" --temp 0 -n 8 </dev/null >&- 2>err
    status=$?; [ $status = 1 ] || fail "a closed stdout: exit status $status"
    says "standard output"
    "$lingua" run -p "$prompt" --temp 0 -n 200 </dev/null 2>err | head -c 1 >out
    status=${PIPESTATUS[0]}; [ "$status" = 0 ] || fail "a reader that left: exit status $status"
    [ ! -s err ] || fail "a reader that left is worth no words"
    # Ctrl-C before the end: what was told is kept, the shell sees 130.
    "$lingua" run -p "$prompt" --temp 0 --threads 1 </dev/null >out 2>err &
    wait_for out ","
    kill -INT $!; wait $!
    status=$?; [ $status = 130 ] || [ $status = 0 ] || fail "Ctrl-C: exit status $status"
    says "first token in"
}

split() {
    local n=3
    expect 0 run -p "$prompt" --temp 0 -n 40 --split "$n"
    cmp -s out story || fail "$n devices tell another story: $(head -c 100 out)"
    says "device $((n - 1))"; says "ms/token"; says "bytes/hop"
    expect 0 run -p "$prompt" --temp 0 -n 40 --split 0-4,5-
    cmp -s out story || fail "ranges differ"
    expect 0 run -p "$prompt" --temp 0 -n 8 --split "$n" --json; json out "j.devices.length == $n"
    expect 1 run -p x --split 99; silent
    expect 1 run -p x --split 0-3; silent
}

# A terminal for the program: what we write to fd 3 is typed, what it shows is in ./screen.
terminal() {
    mkfifo keys 2>/dev/null
    script -qefc "$lingua run --temp 0 --threads 1 $*" /dev/null <keys >screen 2>&1 &
    terminal=$!
    exec 3>keys
    wait_for screen "> "
}

chat() {
    local status
    command -v script >/dev/null || { echo "no script(1): chat is not tested"; return; }
    terminal
    wait_for screen "no chat template"
    echo "/help" >&3; wait_for screen "/save FILE"
    echo "/save $work/no/such/folder" >&3; wait_for screen "No such file or directory"
    echo "/nonsense" >&3; wait_for screen "there is no /nonsense"
    echo "$prompt" >&3
    wait_for screen "there was"
    printf '\003' >&3
    wait_for screen "first token in"
    grep -aq stopped screen || echo "note: the answer was over before Ctrl-C came"
    echo "/save $work/saved" >&3; wait_for screen "saved to"
    grep -q "^$prompt, there was" saved || fail "saved: $(head -c 100 saved)"
    echo "/reset" >&3; wait_for screen "starts anew"
    printf '\003' >&3; wait_for screen "Ctrl-C again"
    printf '\003' >&3
    exec 3>&-
    wait $terminal
    status=$?; [ $status = 0 ] || fail "leaving a chat: exit status $status"

    terminal --ctx 24
    echo "$prompt" >&3; wait_for screen "/reset starts anew, and --ctx 48"
    echo "/quit" >&3
    exec 3>&-
    wait $terminal
    status=$?; [ $status = 0 ] || fail "/quit: exit status $status"
}

classify() {
    local sad="Lily lost her toy and cried." template="{input} She felt very {label}."

    expect 2 classify text; silent; says "which labels? --labels good,bad"
    expect 2 classify --cluster model.gguf text --labels a,b; says "has its model already"
    expect 2 classify --state . text --labels a,b; says "--state belongs to --cluster"
    expect 1 classify --labels a,a text; silent; says "label 1 is the same as label 0"
    expect 1 classify --labels a,b --template "{input}" text; says "{label} 0 times"
    expect 1 classify --labels a,b --ctx 8 "$sad"; says "but the context holds 8"
    expect 0 classify --labels "happy, sad" --template "$template" "$sad"; prints "log p/token"
    sed -n 2p out | grep -q "^sad " || fail "the likeliest comes first: $(cat out)"
    expect 0 classify --labels happy,sad --template "$template" --json "$sad"
    json out "j.label == 'sad' && j.labels[0].label == 'happy' && j.labels[1].tokens == 2 &&
        Math.abs(j.labels[0].probability + j.labels[1].probability - 1) < 1e-6 &&
        j.labels[1].probability > 0.99 && j.labels[1].logprob < 0"
    # The cut changes no bit, and the text may come by a pipe.
    cp out whole
    expect 0 classify --labels happy,sad --template "$template" --json --split 3 "$sad"
    cmp -s out whole || fail "--split differs"
    echo "$sad" | timeout "$expect_s" "$lingua" classify --labels happy,sad \
        --template "$template" --json - >out 2>err
    cmp -s out whole || fail "a pipe differs"
}

for part in help_and_usage text machine_output streams split classify chat; do
    echo "== $part"
    $part
done
[ $failures = 0 ] && echo "all good"
exit $((failures > 0))
