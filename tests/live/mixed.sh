#!/usr/bin/env bash
# A cluster of two kinds of CPU: the head on this machine, and a device that is the join-only arm64
# program in qemu's user mode (make join-only-arm64). They pair, the weights travel, and the story is
# the one the head tells alone. The head's memory is too small for the whole model.
set -euo pipefail
lingua=$1 arm=$2

fail() {
    echo "mixed: $*" >&2
    tail -n 20 "$dir"/*.log >&2
    exit 1
}

command -v qemu-aarch64 >/dev/null && [[ -x $arm ]] || {
    echo "SKIPPED: needs qemu-aarch64 and $arm (make join-only-arm64)"
    exit 77
}
dir=$(mktemp -d)
head='' phone=''
finish() {
    for p in $phone $head; do
        kill "$p" 2>/dev/null || true
        wait "$p" 2>/dev/null || true
    done
    rm -rf "$dir"
}
trap finish EXIT

story=(-p "Once upon a time" -n 16 --temp 0)
"$lingua" run "${story[@]}" -t 1 >"$dir/alone" 2>"$dir/alone.log" || fail "no story alone"

"$lingua" serve --name head --state "$dir/head" --listen 127.0.0.1:0 --no-announce --port 0 -t 1 \
    --equal --memory 48M --ctx 256 --slots 1 </dev/null >"$dir/head.log" 2>&1 &
head=$!
token='' address=''
for _ in $(seq 100); do
    token=$(sed -n 's/^.*token: *//p' "$dir/head.log" | head -n 1)
    address=$(sed -n 's/^.*reached at \([0-9.:]*\).*/\1/p' "$dir/head.log" | head -n 1)
    [[ -n $token ]] && break
    sleep 0.1
done
[[ -n $token && -n $address ]] || fail "the head shows no token"

LINGUA_TOKEN=$token qemu-aarch64 "$arm" join "$address" --name phone --state "$dir/phone" -t 1 \
    </dev/null >"$dir/phone.log" 2>&1 &
phone=$!
for _ in $(seq 300); do
    "$lingua" devices --state "$dir/head" >"$dir/devices" 2>/dev/null || true
    grep -qE '^phone +ready +[a-z]+[.]' "$dir/devices" && break
    kill -0 "$phone" 2>/dev/null || fail "the arm64 device is gone"
    sleep 0.2
done
grep -qE '^phone +ready +[a-z]+[.]' "$dir/devices" || fail "the arm64 device got no part: $(cat "$dir/devices")"

timeout 240 "$lingua" run --cluster --state "$dir/head" "${story[@]}" >"$dir/both" 2>"$dir/both.log" ||
    fail "no story together"
cmp -s "$dir/alone" "$dir/both" || fail "alone: $(cat "$dir/alone"); together: $(cat "$dir/both")"
grep '^phone' "$dir/both.log" | grep -q 'TLSv1.3' || fail "no link by TLS 1.3"
echo "mixed: ok ($(grep '^phone' "$dir/both.log"))"
