# What the tests of the program's commands share. Sourced, with $lingua the program and $expect_s the
# seconds a command may take; the functions work in the current folder.
# shellcheck shell=bash disable=SC2034,SC2154
failures=0

fail() {
    echo "FAILED: $*"
    [ -s err ] && sed 's/^/    stderr: /' err | tail -n 12
    failures=$((failures + 1))
}

# expect STATUS ARGS...: runs lingua with nothing on stdin; stdout to ./out, stderr to ./err.
expect() {
    local want=$1 got
    shift
    timeout "$expect_s" "$lingua" "$@" </dev/null >out 2>err
    got=$?
    [ $got = "$want" ] || fail "lingua $*: exit status $got, not $want"
}
says() { grep -qF -- "$1" err || fail "stderr does not say \"$1\""; }
prints() { grep -qF -- "$1" out || fail "stdout does not have \"$1\""; }
silent() { [ ! -s out ] || fail "stdout has: $(head -c 200 out)"; }

# json FILE EXPRESSION: whether the expression about j holds.
json() {
    if command -v node >/dev/null; then
        node -e "const j = JSON.parse(require('fs').readFileSync('$1'))
            process.exit(($2) ? 0 : 1)" 2>>err
    else
        python3 -c "import json; json.load(open('$1'))" 2>>err
    fi || fail "JSON in $1: not so: $2"
}
