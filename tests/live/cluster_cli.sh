#!/bin/bash
# The commands of the cluster as a person meets them: what they refuse, where tokens come from and
# where they never show, who joins, leaves and is thrown out.
# usage: cluster_cli.sh path/to/lingua, with LINGUA_MODELS holding the default model.
set -u
lingua=$(realpath "$1")
expect_s=60
. "$(dirname "$0")/lib.sh"
work=$(mktemp -d)
pids=()
prompt="Once upon a time"
unset LINGUA_TOKEN
export XDG_STATE_HOME=$work/state XDG_CACHE_HOME=$work/cache

finish() {
    local pid
    for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
cd "$work" || exit 1

holds() { grep -qF -- "$2" "$1" || fail "$1 does not hold \"$2\": $(tail -n 5 "$1")"; }

# until_so TEXT COMMAND...: waits until the command succeeds, at most 60 s.
until_so() {
    local what=$1
    shift
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    fail "$what: never came"
    return 1
}
ended() { ! kill -0 "$1" 2>/dev/null; }
devices_json() { "$lingua" devices --json --state head >devices.json 2>/dev/null; }
# state_of NAME STATE: whether that device is in that state
state_of() {
    devices_json && node -e "const j = JSON.parse(require('fs').readFileSync('devices.json'))
        const d = j.devices.find(d => d.name == process.argv[1])
        process.exit(d && d.state == process.argv[2] ? 0 : 1)" "$1" "$2"
}
# part_of NAME: whether it takes part, or waits without one because it would not help
part_of() { state_of "$1" ready || state_of "$1" idle; }
invite() { "$lingua" devices invite --state head 2>/dev/null; }
# secret FILE...: no token that was ever given out stands in them
secret() {
    local token file
    for file in "$@"; do
        while read -r token; do
            grep -qaF -e "$token" -e "${token//-/}" "$file" && fail "a token stands in $file"
        done <tokens
    done
}

usage_errors() {
    local c
    for c in serve join devices; do
        expect 0 help $c; prints "usage: lingua $c"
        expect 0 $c --help; prints "usage: lingua $c"
        expect 2 $c --bogus=hush; silent; says "unknown option --bogus"
        grep -q hush err && fail "$c repeats what stands behind ="
    done
    expect 0 help; prints "  join "
    [ "$(wc -L <out)" -le 100 ] || fail "help is wider than 100 columns"
    expect 2 serve --memory lots; says "512M or 2G"
    expect 2 serve --memory 3K; says "at least"
    expect 2 serve --memory 1Q; says "512M or 2G"
    expect 2 serve --name "$(printf 'a\nb')"; says "control characters"
    expect 2 serve --name ""; says "is empty"
    expect 2 join --name "$(printf 'x%.0s' $(seq 70))"; says "longer than"
    expect 2 serve --slots 0; says "from 1 to"
    expect 2 serve --split 2 --equal; says "leave out --equal"
    expect 2 serve --use a,b --without "c, b"; says 'both name "b"'
    expect 2 serve --name here --without here; says "cannot be left out"
    expect 2 serve --slots 2 --concurrency 3; says "need as many slots"
    expect 2 serve one two; says "unexpected argument"
    expect 2 join one two; says "two addresses"
    expect 2 devices lst; says "did you mean list?"
    expect 2 devices show; says "lingua devices show NAME"
    expect 2 devices list two; says 'unexpected argument "two"'
    expect 2 devices revoke x --off; says "--off belongs to mine"
    expect 2 run --cluster model.gguf -p x; says "has its model already"
    expect 2 run --cluster --threads 2 -p x; says "the head decides"
    expect 2 run --state head -p x; says "belongs to --cluster"
    expect 2 run --trace t.json -p x; says "belongs to --cluster"
    expect 1 serve missing.gguf; silent; says "missing.gguf"
    expect 1 devices; silent; says "no head runs"
    expect 1 run --cluster -p x; silent; says "no head runs"
}

# Before there is any head: tokens that are none, from every door, are refused and not repeated.
bad_tokens() {
    local junk="abcd-efgh-ijkl-mnop-qrst-uvwx-yzab-cdef-ghij-klmn-opqr-s"
    echo "$junk" >tokens
    expect 1 join 127.0.0.1:1; says "needs a token"
    expect 1 join 127.0.0.1:1 --token "$junk"; says "the token on the command line"
    secret err
    expect 1 join "$junk" 127.0.0.1:1; says "warning: a token on the command line"; secret err
    expect 1 join "lingua:$junk@127.0.0.1:1"; says "the token on the command line"; secret err
    echo "$junk" >token.txt
    expect 1 join 127.0.0.1:1 --token-file token.txt; says "others on this machine can read"
    says "the token in the file"; secret err
    chmod 600 token.txt
    expect 1 join 127.0.0.1:1 --token-file token.txt
    grep -q "others on" err && fail "a file of mode 600 is warned about"
    expect 1 join 127.0.0.1:1 --token-file none.txt; says "none.txt: No such file"
    LINGUA_TOKEN=$junk expect 1 join 127.0.0.1:1; says "in LINGUA_TOKEN"; secret err
    echo "  $junk  " | timeout 60 "$lingua" join 127.0.0.1:1 >out 2>err
    [ "${PIPESTATUS[1]}" = 1 ] || fail "a bad token on stdin is taken"
    says "on standard input"; secret err
}

head_starts() {
    "$lingua" serve --state head --name "the head" --listen 127.0.0.1:0 --no-announce --port 0 \
        --threads 1 --equal </dev/null >head.out 2>head.err &
    head=$!
    pids+=("$head")
    until_so "the head" devices_json || exit 1
    until_so "an answer alone" state_of "the head" ready
    cp devices.json alone.json
    json alone.json "j.head == 'the head' && j.devices.length == 1 && j.devices[0].head"
    json alone.json "j.state == 'running' && /^127.0.0.1:\d+$/.test(j.address)"
    address=$(sed -n 's/^  "address": "\(.*\)",*$/\1/p' alone.json)
    holds head.err "devices join with: lingua join $address"
    sed -n 's/^lingua: token: //p' head.err >>tokens
    expect 1 serve --state head --listen 127.0.0.1:0; says "another lingua uses"
    expect 0 devices --state head; prints "the head (head)"; says "alone so far"
    expect 0 devices show "the head" --state head; prints "this program"
    expect 0 devices invite --state head --json; json out "j.token.length > 40 && j.expires_s > 0"
    [ "$(invite | wc -l)" = 1 ] || fail "invite prints more than the token on stdout"
    # What is secret is the owner's alone.
    [ "$(stat -c %a head)" = 700 ] || fail "the state folder has mode $(stat -c %a head)"
    find head -type f ! -perm 600 >open_files
    [ ! -s open_files ] || fail "others may read $(cat open_files)"
    [ "$(stat -c %a head/head.sock)" = 600 ] || fail "the socket has mode $(stat -c %a head/head.sock)"
}

# join STATE ARGS...: in the background; its words in STATE.err, its process in $joined
join() {
    local state=$1
    shift
    "$lingua" join --state "$state" --listen 127.0.0.1:0 --threads 1 "$@" >"$state.out" \
        2>"$state.err" &
    joined=$!
    pids+=("$joined")
}
hidden() { # hidden PID: no token in what every process can see, nor in its environment
    cat "/proc/$1/cmdline" "/proc/$1/environ" >seen
    secret seen
}

joining() {
    local token odd="k'tchen π <b> \$(x)"
    # By a file, with an odd name.
    token=$(invite); echo "$token" >>tokens; echo "$token" >good.txt; chmod 600 good.txt
    join one "$address" --name "$odd" --token-file good.txt </dev/null
    until_so "the first device" state_of "$odd" ready
    one=$joined
    hidden "$one"
    expect 0 devices --state head; prints "$odd"
    expect 0 devices show "$odd" --state head; prints "TLSv1.3"
    expect 0 devices show "$odd" --state head --json; json out "j.state == 'ready' && !j.head"
    expect 1 devices show "k'tchen π <b> \$(y)" --state head; says "did you mean \"$odd\"?"
    # The same token, again, and by another device: used is used.
    timeout 20 "$lingua" join "$address" --state again --token-file good.txt </dev/null >out 2>err
    [ $? != 0 ] || fail "a used token let a device in"
    secret err
    # Two processes of one state folder.
    expect 1 join "$address" --state one; says "another lingua uses"

    # By an argument: taken, hidden at once, warned about.
    token=$(invite); echo "$token" >>tokens
    join two --name two --token "$token" "$address" </dev/null
    until_so "the second device" part_of two
    two=$joined
    hidden "$two"
    holds two.err "warning: a token on the command line"

    # By what a QR code holds, through standard input, with a name that is taken.
    token=$(invite); echo "$token" >>tokens
    join three --name two < <(echo "lingua:${token//-/}@$address")
    until_so "the third device" part_of two-2
    # By the environment.
    token=$(invite); echo "$token" >>tokens
    LINGUA_TOKEN=$token join four "$address" --name four </dev/null
    until_so "the fourth device" part_of four
    hidden "$joined"
    sed '/^lingua: token: /d' head.err >head.log # there it is shown on purpose
    secret head.log one.err two.err three.err four.err
    for f in head one two three four; do [ ! -s "$f.out" ] || fail "$f wrote to stdout"; done
    find one two three four -type f -name '*.pem' ! -perm 600 >open_files
    [ ! -s open_files ] || fail "others may read $(cat open_files)"
}

answers() {
    expect 0 run -p "$prompt" --temp 0 -n 40 --threads 1; cp out story
    expect 0 run --cluster=head -p "$prompt" --temp 0 -n 40
    cmp -s out story || fail "the cluster tells another story: $(head -c 100 out)"
    says "bytes/hop"; says "TLS"
    expect 0 run --cluster --state head -p "$prompt" --temp 0 -n 8 --json
    json out "j.devices.length >= 2 && j.devices.some(d => /TLS/.test(d.link))"
    expect 0 run --cluster=head -p "$prompt" --temp 0 -n 8 --trace trace.json; says "trace.json"
    json trace.json "(j.traceEvents || j).length > 8"
    expect 1 run --cluster=head -p "$prompt" --temp 0 -n 8 --trace /nowhere/trace.json
    says "/nowhere/trace.json"
    expect 0 classify --labels happy,sad --json --threads 1 "Lily cried."; cp out whole
    expect 0 classify --labels happy,sad --json --cluster=head "Lily cried."
    cmp -s out whole || fail "the cluster classifies otherwise: $(cat out)"
}

leaving() {
    local began
    expect 0 devices mine two --state head; silent; says "is marked as yours"
    devices_json; json devices.json "j.devices.find(d => d.name == 'two').mine"
    expect 0 devices mine two --off --state head
    devices_json; json devices.json "!j.devices.find(d => d.name == 'two').mine"
    # Stopped and started again: no token, nothing fetched.
    kill -TERM "$two"; until_so "the end of two" ended "$two"
    wait "$two"; [ $? = 0 ] || fail "join ends on TERM with another status than 0"
    join two "$address" --name two </dev/null
    two=$joined
    until_so "two is back" part_of two
    sleep 1 # it may get its part only now
    ! grep -E "[1-9][0-9.]* [kMG]?B of weights were received" two.err || fail "weights came twice"
    expect 0 devices drain two-2 --state head --json; json out "j.name == 'two-2'"
    until_so "drained" state_of two-2 idle
    # Thrown out: at once, and for good.
    expect 0 devices revoke two --state head; says "thrown out"
    until_so "the end of the revoked" ended "$two"
    wait "$two"; [ $? = 1 ] || fail "a revoked device ends with another status than 1"
    expect 1 join "$address" --state two; says "needs a token"
    expect 1 devices revoke two --state head; says "no device is called"
    expect 1 devices revoke "the head" --state head
    # The end of the head, within two seconds, with devices and a socket in use.
    began=$(date +%s%N)
    kill -TERM "$head"; until_so "the end of the head" ended "$head"
    [ $((($(date +%s%N) - began) / 1000000)) -lt 4000 ] || fail "the head took long to end"
    wait "$head"; [ $? = 0 ] || fail "serve ends on TERM with another status than 0"
    [ ! -e head/head.sock ] || fail "the socket stays behind"
    expect 1 devices --state head; says "no head runs"
    [ ! -s head.out ] || fail "serve wrote to stdout"
}

for part in usage_errors bad_tokens head_starts joining answers leaving; do
    echo "== $part"
    $part
done
[ $failures = 0 ] && echo "all good"
exit $((failures > 0))
