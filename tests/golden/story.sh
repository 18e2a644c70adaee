#!/bin/sh
# Greedy text of the default model, whole and as three processes. In f16 it is libllama's text on the
# same file, to the byte, unless the CPU multiplies in f16 itself: its engine then rounds where our
# attention does not, and may decide a near tie the other way. In q8_0 the cuts must not change it; against libllama it is judged row by
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

# As same, or equal for a good while where the CPU's own f16 arithmetic may decide a near tie.
nearly() { # nearly LABEL A B
    if [ "$2" != "$3" ] && grep -q avx512_fp16 /proc/cpuinfo &&
        [ "$(printf %.100s "$2")" = "$(printf %.100s "$3")" ]; then
        echo "$1: equal up to a near tie of this CPU's f16 arithmetic; test_story judges it by rows"
        return
    fi
    same "$1" "$2" "$3"
}

for prompt in "Once upon a time" "There was a big tree" "In the forest, a bear"; do
    file=$LINGUA_MODELS/stories15M-f16.gguf
    nearly "f16, lingua and libllama" "$(ours "$file")" "$("$ref" "$file" $tokens "$prompt")"
    for type in f16 q8_0; do
        file=$LINGUA_MODELS/stories15M-$type.gguf
        whole=$(ours "$file")
        same "$type, whole and three processes" "$whole" "$(ours "$file" --split 3)"
        same "$type, whole and cut elsewhere" "$whole" "$(ours "$file" --split 0-2+13,3-7,8-12)"
    done
done
