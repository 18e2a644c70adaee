#!/bin/sh
# A CPU without what the build uses is refused with a sentence, before anything can meet an unknown
# instruction. Played by qemu-x86_64 (Debian: qemu-user); without it the test is skipped.
# usage: cpu.sh LINGUA
lingua=$1
command -v qemu-x86_64 >/dev/null || {
    echo "no qemu-x86_64: install qemu-user to run this test"
    exit 77
}
said=$(qemu-x86_64 -cpu Nehalem "$lingua" version 2>&1)
status=$?
case $status:$said in
0:"lingua "*) echo "a portable build: runs on a Nehalem" ;;
1:"lingua: this CPU has no "*", which this build of lingua uses"*) echo "$said" ;;
*) echo "status $status: $said"; exit 1 ;;
esac
