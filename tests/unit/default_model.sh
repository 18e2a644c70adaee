#!/bin/sh
# default_model.sh PROGRAM FOLDER SHA256_Q8_0 SHA256_F16: FOLDER gets the default model in both
# types, anew when the program is newer than what is there, and both are what they should be.
set -eu
program=$1 folder=$2
mkdir -p "$folder"

make_one() { # make_one FILE SHA256 [--f16]
    file=$folder/$1 sha256=$2
    shift 2
    if [ ! -e "$file" ] || [ "$program" -nt "$file" ]; then
        new=$folder/new-$$.gguf
        "$program" "$@" "$new"
        mv "$new" "$file" # at once, for another build's tests may be reading the old one
    fi
    echo "$sha256  $file" | sha256sum -c -
}
make_one stories15M-q8_0.gguf "$3"
make_one stories15M-f16.gguf "$4" --f16
