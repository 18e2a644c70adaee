#!/bin/sh
# Greedy text of the default model, whole and as three processes. In f16 it is libllama's text on the
# same file, to the byte. In q8_0 the cuts must not change it; against libllama it is judged row by
# row (test_story.c says why).
# usage: text.sh LINGUA REF_GREEDY WORK, with LINGUA_MODELS the folder of the models.
set -eu
lingua=$1 ref=$2 work=$3
tokens=128
mkdir -p "$work"

ours() { # ours FILE ARGS...: what lingua continues the prompt with
    file=$1
    shift
    "$lingua" run "$file" -p "$prompt" -n $tokens --temp 0 "$@" 2>"$work/stderr" || {
        cat "$work/stderr" >&2
        exit 1
    }
}

same() { # same LABEL A B
    if [ "$2" != "$3" ] || [ ${#2} -lt 200 ]; then
        printf '%s: the texts differ\n--- one\n%s\n--- other\n%s\n' "$1" "$2" "$3"
        exit 1
    fi
    echo "$1: $tokens tokens, the same text"
}

for prompt in "Once upon a time" "There was a big tree" "In the forest, a bear"; do
    file=$LINGUA_MODELS/stories15M-f16.gguf
    same "f16, lingua and libllama" "$(ours "$file")" "$("$ref" "$file" $tokens "$prompt")"
    for type in f16 q8_0; do
        file=$LINGUA_MODELS/stories15M-$type.gguf
        whole=$(ours "$file")
        same "$type, whole and three processes" "$whole" "$(ours "$file" --split 3)"
        same "$type, whole and cut elsewhere" "$whole" "$(ours "$file" --split 0-2+13,3-7,8-12)"
    done
done
