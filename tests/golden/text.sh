#!/bin/sh
# Greedy text of the default model, whole and as three processes, against libllama's on the same file.
# usage: text.sh LINGUA REF_GREEDY MAKE_F16 MODELS WORK
#   MAKE_F16 writes the default model in f16 (lingua-default-model); MODELS holds it in q8_0.
set -eu
lingua=$1 ref=$2 make=$3 models=$4 work=$5
prompt="Once upon a time"
tokens=128
mkdir -p "$work"
[ -s "$work/f16.gguf" ] || "$make" --f16 "$work/f16.gguf"
q8=$(ls "$models"/*.gguf | head -n 1)

compare() { # compare LABEL FILE ARGS...: the same text on stdout, to the byte
    label=$1 file=$2
    shift 2
    "$lingua" run "$file" -p "$prompt" -n $tokens --temp 0 "$@" >"$work/ours.raw" 2>"$work/ours.err" || {
        cat "$work/ours.err"
        exit 1
    }
    "$ref" "$file" $tokens "$prompt" >"$work/theirs.txt"
    [ "$(wc -c <"$work/theirs.txt")" -gt 200 ] || { echo "$label: libllama's text is too short to prove anything"; exit 1; }
    # Whether the prompt is shown again and how the last line ends is the program's choice; the text between is not.
    ours=$(cat "$work/ours.raw")
    ours=${ours#"$prompt"}
    theirs=$(cat "$work/theirs.txt")
    if [ "$ours" != "$theirs" ]; then
        printf '%s: the texts differ\n--- ours\n%s\n--- libllama\n%s\n' "$label" "$ours" "$theirs"
        exit 1
    fi
    echo "$label: $tokens tokens, the same text"
}

for file in "$work/f16.gguf" "$q8"; do
    compare "$(basename "$file"), whole" "$file"
    compare "$(basename "$file"), three devices" "$file" --split 3
done
