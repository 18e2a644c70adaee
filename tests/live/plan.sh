#!/bin/bash
# lingua plan on paper, as a person meets it: the example files, what is asked for and what is wrong.
# usage: plan.sh path/to/lingua path/to/lingua-test-model
set -u
lingua=$(realpath "$1")
test_model=$(realpath "$2")
examples=$(realpath "$(dirname "$0")/../../docs/examples")
expect_s=60
. "$(dirname "$0")/lib.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
"$test_model" wide:4 m.gguf || exit 1

# xml FILE: whether it is well-formed, by whichever parser is here.
xml() {
    if command -v xmllint >/dev/null; then
        xmllint --noout "$1" 2>>err || fail "$1 is not well-formed"
    elif command -v python3 >/dev/null; then
        python3 -c "import sys, xml.dom.minidom as m; m.parse(sys.argv[1])" "$1" 2>>err ||
            fail "$1 is not well-formed"
    fi
}

for name in phones pis home; do
    file=$examples/$name.json
    expect 0 plan m.gguf --devices "$file" --svg $name.svg
    prints "in 10 modules; devices: $file"
    prints "ms/token"; prints "predicted"; prints "tokens/s for 1 stream"; prints "limit "
    xml $name.svg
    grep -q "<script\|href\|@import\|url(" $name.svg && fail "$name.svg reaches out"
    expect 0 plan m.gguf --devices "$file" --concurrency 4 --json
    cp out $name.json
    json $name.json 'j.concurrency === 4 && j.devices[0].head && j.devices[0].used'
    json $name.json 'j.hops.length === j.stages.length + 1 && j.stages[0].first === 0'
    json $name.json 'j.stages.at(-1).end === j.model.n_modules'
    json $name.json 'Math.abs(j.prediction.ms_per_token - j.prediction.head_ms -
        [...j.prediction.compute_ms, ...j.prediction.hop_ms].reduce((a, b) => a + b)) < 1e-3'
    json $name.json 'j.devices.every(d => d.head || d.why || (d.used ? "loses_percent" : "costs_percent") in d)'
    json $name.json 'j.program.gap >= 0 && j.program.bound_ms <= j.program.score_ms * 1.000001'
    # The same question gets the same answer, but for the time it took.
    expect 0 plan m.gguf --devices "$file" --concurrency 4 --json
    sed '/solve_ms/d' out >again
    sed '/solve_ms/d' $name.json | cmp -s - again || fail "$name: two answers"
done

home=(plan m.gguf --devices "$examples/home.json")
expect 0 "${home[@]}"
prints "old-phone is left out: with it"; prints "--use old-phone forces it"
expect 0 "${home[@]}" --use old-phone --json
json out 'j.devices.find(d => d.name === "old-phone").used'
expect 0 "${home[@]}" --without pi,phone --json
json out 'j.devices.every(d => !["pi", "phone"].includes(d.name) || (!d.used && d.why.startsWith("as asked")))'
expect 0 "${home[@]}" --equal --json
json out 'j.devices.every(d => d.used && d.n_modules <= 3)'
expect 0 "${home[@]}" --private --json
json out 'j.private && j.devices.every(d => d.mine || !/embed|output|attn.0|ffn.0/.test(d.modules))'
expect 0 "${home[@]}" --explain
prints "program"; prints "proof"; prints "gap"; prints "groups"; prints "guessed from the speed of"
expect 0 "${home[@]}" --measured; says "nothing was measured"
expect 0 "${home[@]}" --context 128 --slots 2 --kv q8_0 --prompt 64 --depth 8 --json
json out 'j.n_ctx === 128 && j.n_slots === 2 && j.prompt === 64 && j.depth === 8'

expect 0 help plan; prints "usage: lingua plan"
expect 1 plan --state nobody; silent; says "no head runs here"; says "lingua serve"; says "--devices"
expect 1 plan m.gguf --devices missing.json; silent; says "missing.json: No such file"
expect 1 plan missing.gguf --devices "$examples/pis.json"; silent; says "missing.gguf"
expect 1 "${home[@]}" --use old-fone; silent; says 'did you mean "old-phone"?'
expect 1 "${home[@]}" --without laptop; silent; says "laptop is the head"
expect 2 "${home[@]}" --use pi --without phone,pi; silent; says 'both name "pi"'
expect 1 "${home[@]}" --ctx 128 --prompt 500; silent; says "a context of 128"
expect 1 "${home[@]}" --svg nowhere/x.svg; says "nowhere/x.svg"
expect 2 "${home[@]}" --concurrency 0; says "--concurrency takes a whole number"
echo '{"devices": [{"name": "a", "spede": 1}]}' >bad.json
expect 1 plan m.gguf --devices bad.json; silent
says 'bad.json: device 1 (a): "spede" is no field of it; did you mean "speed"?'
echo '{"devices": [{"name": "a", "speed": "1G", "memory": "40M"}]}' >small.json
expect 1 plan m.gguf --devices small.json; silent; says "too small by"; says "MiB"
cat >split.json <<'END'
{"devices": [{"name": "a", "speed": "1G", "memory": "90M"}, {"name": "b", "speed": "1G"}],
 "links": {"pairs": [{"from": "a", "to": "b", "there": false}]}}
END
expect 1 plan m.gguf --devices split.json --use b; silent; says "device b must be used"

cat >hostile.json <<'END'
{"devices": [{"name": "<script>alert(1)</script>", "speed": "1G"},
             {"name": "a & \"b\" 'c' ]]>", "speed": "2G", "use": "must"},
             {"name": "電脑 &#0;", "speed": "1G"}],
 "links": {"default": {"latency_ms": 1, "rate_mbit": 100}}}
END
expect 0 plan m.gguf --devices hostile.json --svg hostile.svg
xml hostile.svg
grep -q "<script" hostile.svg && fail "a name became markup"
grep -q "&lt;script&gt;" hostile.svg || fail "a name is missing"

[ $failures = 0 ] || exit 1
echo "all as expected"
