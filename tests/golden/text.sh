#!/bin/sh
# Greedy text of the default model, whole and as three processes, against libllama's on the same
# file. usage: text.sh LINGUA REF_GREEDY WORK, with LINGUA_MODELS the folder of the models.
set -eu
lingua=$1 ref=$2 work=$3
prompt="Once upon a time"
tokens=128
mkdir -p "$work"

compare() { # compare LABEL FILE ARGS...: the same text on stdout, to the byte
    label=$1 file=$2
    shift 2
    "$lingua" run "$file" -p "$prompt" -n $tokens --temp 0 "$@" >"$work/ours" 2>"$work/ours.err" || {
        cat "$work/ours.err"
        exit 1
    }
    "$ref" "$file" $tokens "$prompt" >"$work/theirs"
    # Whether the prompt is shown again and how the last line ends is the program's choice; the text
    # between is not.
    ours=$(cat "$work/ours")
    ours=${ours#"$prompt"}
    theirs=$(cat "$work/theirs")
    if [ "$ours" != "$theirs" ] || [ ${#theirs} -lt 200 ]; then
        printf '%s: the texts differ\n--- ours\n%s\n--- libllama\n%s\n' "$label" "$ours" "$theirs"
        exit 1
    fi
    echo "$label: $tokens tokens, the same text"
}

for type in f16 q8_0; do
    file=$LINGUA_MODELS/stories15M-$type.gguf
    compare "$type, whole" "$file"
    compare "$type, three processes" "$file" --split 3
    compare "$type, three processes, the head holding both ends" "$file" --split 0-2+13,3-7,8-12
done
