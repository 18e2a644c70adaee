# The front door. CMake and Ninja do the work, below build/; `make help` lists what there is.
#
# Every target first sees that what it needs is installed, so any of them may be the first command
# after cloning.

B            := build
JOBS         := $(shell nproc)
PREFIX       ?= /usr/local
MODEL        ?=
BENCH_ARGS   ?=
FUZZ_SECONDS ?= 600
SOAK_SEED    ?= $(shell date +%s)

# A step is parallel inside; two steps at once would fight over the build folders.
.NOTPARALLEL:
.PHONY: all help demo demo-chat test test-chat check bench bench-net bench-cluster bench-plan \
	bench-serve bench-load bench-pages fuzz soak format install portable join-only-arm64 clean deps \
	deps-check

all: deps $(B)/build.ninja ## build everything (plain `make` does this)
	@tools/build $(B) $(JOBS)

help: ## print this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1@\2/p' Makefile | \
		while IFS=@ read -r target what; do printf '  make %-15s %s\n' "$$target" "$$what"; done

demo: all ## three devices on this machine tell a story together [MODEL=file.gguf]
	@tools/demo $(MODEL)

demo-chat: all ## chat with a real model over three devices (fetched once, 323 MB)
	@tools/chat-model $(B)/models/tinyllama-chat.gguf
	@tools/demo --chat $(B)/models/tinyllama-chat.gguf

test: all ## run all tests
	@ctest --test-dir $(B) --output-on-failure --no-label-summary -j 2

test-chat: all ## the slow tests with a real chat model (fetched once, 323 MB)
	@tools/chat-model $(B)/models/tinyllama-chat.gguf
	@LINGUA_CHAT_MODEL=$(CURDIR)/$(B)/models/tinyllama-chat.gguf \
		ctest --test-dir $(B) --output-on-failure --no-label-summary -V -R '^test_story$$'

check: deps-check all ## format, layers, cppcheck, gcc and clang warnings, sanitized tests
	@tools/check $(JOBS)

bench: all ## measure against libllama in the same run [BENCH_ARGS=--help]
	@$(B)/lingua-bench-vs-llama $(BENCH_ARGS)

bench-net: all ## what the network costs a token: delays, TLS; needs root [BENCH_ARGS=--rounds 3]
	@test -e $(B)/plain/build.ninja || tools/configure $(B)/plain -DLINGUA_BENCH_PLAINTEXT=ON -DLINGUA_BENCH=OFF
	@tools/build $(B)/plain $(JOBS) lingua
	@node bench/net/bench-net.mjs $(B) $(B)/plain $(BENCH_ARGS)

bench-cluster: all ## the plan against equal parts on emulated phones; needs root [BENCH_ARGS=--quick]
	@node bench/cluster/bench-cluster.mjs $(B) $(BENCH_ARGS)

bench-plan: all ## how long plans take, and how near to the best they are proved to be [BENCH_ARGS=20]
	@$(B)/lingua-bench-plan $(BENCH_ARGS)

bench-serve: all ## what many users get of an emulated cluster; needs root [BENCH_ARGS=--quick]
	@node bench/serve/bench-serve.mjs $(B) $(BENCH_ARGS)

bench-load: all ## 64 clients for ten minutes: errors, memory, descriptors [BENCH_ARGS=--seconds=60]
	@node bench/serve/load.mjs $(B) $(BENCH_ARGS)

soak: all ## solve 100,000 random plans and check every rule [SOAK_SEED=1]
	@$(B)/test_place_rules 100000 $(SOAK_SEED)

bench-pages: all ## what 20 open pages cost 8 streams [BENCH_ARGS=--rounds=5]
	@node bench/serve/pages.mjs $(B) $(BENCH_ARGS)

fuzz: deps-check ## fuzz every parser, for long [FUZZ_SECONDS=600 each]
	@tools/fuzz $(JOBS) $(FUZZ_SECONDS)

format: deps-check ## put every source file into shape
	@tools/sources | xargs clang-format -i
	@node_modules/.bin/prettier --log-level warn --write web tests/live/page

install: all ## install the program [PREFIX=/usr/local] [DESTDIR=]
	@cmake --install $(B) --prefix $(PREFIX)

portable: deps ## build build/portable/lingua, for any CPU of this family
	@test -e $(B)/portable/build.ninja || tools/configure $(B)/portable -DLINGUA_NATIVE=OFF
	@tools/build $(B)/portable $(JOBS) lingua

join-only-arm64: ## build build/arm64/lingua, static, to lend phones and boards to a cluster
	@tools/install-deps build arm64
	@test -e $(B)/arm64/build.ninja || tools/configure $(B)/arm64 -DLINGUA_JOIN_ONLY=ON \
		-DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/cmake/aarch64.cmake
	@tools/build $(B)/arm64 $(JOBS) lingua

clean: ## remove what was built, save the engine (it takes minutes) and the default model
	@test ! -d $(B) || find $(B) -mindepth 1 -maxdepth 1 ! -name engine ! -name models \
		-exec rm -rf {} +

deps: ## install what building and testing need (Debian and npm packages)
	@tools/install-deps build

deps-check:
	@tools/install-deps build check

$(B)/build.ninja:
	@tools/configure $(B)
