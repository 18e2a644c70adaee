#!/usr/bin/env bash
# The network under the live tests does what it is told: it delays, cuts, blocks, loses, and leaves
# nothing behind. Least round trips are compared, which a busy machine cannot make shorter.
set -euo pipefail
export LINGUA_NETSWITCH=$1 CLUSTER_NET=lgtest$$
net=$(dirname "$0")/../../bench/net/cluster-net

fail() {
    echo "netswitch: $*" >&2
    exit 1
}

[[ $(id -u) == 0 && -c /dev/net/tun ]] || {
    echo "SKIPPED: needs root and /dev/net/tun"
    exit 77
}
trap '"$net" down' EXIT
"$net" up 3 --owner $$

least() { # least A B: the shortest of some round trips, in microseconds
    "$net" exec "$1" ping -n -q -c 10 -i 0.02 -W 2 "$("$net" address "$2")" |
        sed -n 's/^rtt [^=]*= \([0-9]*\)\.\([0-9]*\).*/\1\2/p' | sed 's/^0*//'
}
reaches() {
    "$net" exec "$1" ping -n -q -c 3 -i 0.05 -W 1 "$("$net" address "$2")" >/dev/null
}

near=$(least 0 1)
"$net" ctl delay 5
far=$(least 0 1)
((far >= 10000)) || fail "5 ms each way, and a round trip took $far us"
((near < 5000 && far - near >= 5000)) || fail "no delay: $near us, 5 ms: $far us"
# A port's own delay is that of what it sends.
"$net" ctl delay 0
"$net" ctl delay 1 4
one=$(least 0 1)
((one >= 4000 && one < far)) || fail "4 ms one way only, and a round trip took $one us"
"$net" ctl delay 0

"$net" ctl block 0 1
reaches 0 1 && fail "a blocked pair talks"
reaches 0 2 && reaches 1 2 || fail "blocking 0 and 1 cut others"
"$net" ctl unblock 0 1
reaches 0 1 || fail "0 and 1 stay blocked"

"$net" ctl cut 2
reaches 0 2 && fail "2 is cut off and answers"
reaches 0 1 || fail "cutting 2 cut others"
"$net" ctl join 2
reaches 0 2 || fail "2 stays cut off"

"$net" ctl loss 100
reaches 0 1 && fail "what is lost arrives"
"$net" ctl loss 0

# 1448 bytes take 11.6 ms at 1 Mbit/s, once over the shared air; twice over lines of their own.
reaches 0 1
"$net" ctl air 1
air=$("$net" exec 0 ping -n -q -c 4 -i 0.1 -s 1400 "$("$net" address 1)" |
    sed -n 's/^rtt [^=]*= \([0-9]*\)\..*/\1/p')
((air >= 23)) || fail "1400 bytes and back over 1 Mbit/s of air took $air ms"
"$net" ctl air 0
"$net" ctl rate 1
rate=$("$net" exec 0 ping -n -q -c 4 -i 0.1 -s 1400 "$("$net" address 1)" |
    sed -n 's/^rtt [^=]*= \([0-9]*\)\..*/\1/p')
((rate >= 46)) || fail "1400 bytes and back over two lines of 1 Mbit/s took $rate ms"

"$net" down
"$net" exec 0 true 2>/dev/null && fail "still there"
# The network ends with its owner, even one that is killed.
sleep 300 &
owner=$!
"$net" up 2 --owner $owner
kill -9 $owner
for _ in $(seq 100); do
    "$net" exec 0 true 2>/dev/null || {
        echo "netswitch: ok (round trips $near us, with 5 ms each way $far us)"
        exit 0
    }
    sleep 0.05
done
fail "it outlives its owner"
