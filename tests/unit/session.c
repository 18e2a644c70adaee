/* engine.c and session.c against stand-ins (fakes.h): what is sent down the chain, what comes out,
 * and that errors leave a session usable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sys.h"
#include "fakes.h"
#include "lingua/lingua.h"

static struct ll_error error;

static struct ll_engine *engine_of(int n_ctx, int n_sessions)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine *engine;

    opts.model_path = "fake.gguf";
    opts.n_ctx = n_ctx;
    opts.n_sessions = n_sessions;
    assert_int_equal(ll_engine_open(&opts, &engine, &error), LL_OK);
    return engine;
}

static struct ll_session *session_of(struct ll_engine *engine)
{
    struct ll_session *session;

    assert_int_equal(ll_session_open(engine, NULL, &session, &error), LL_OK);
    return session;
}

static void add(struct ll_session *session, const char *text)
{
    assert_int_equal(ll_session_add_text(session, text, -1, 0, &error), LL_OK);
}

static void add_many(struct ll_session *session, int n)
{
    int32_t *tokens = mem_alloc((size_t)n * sizeof *tokens);

    for (int i = 0; i < n; i++)
        tokens[i] = i * 7 % 100;
    assert_int_equal(ll_session_add_tokens(session, tokens, n, &error), LL_OK);
    free(tokens);
}

static void expect(struct ll_session *session, enum ll_code code, int32_t id, const char *text)
{
    struct ll_token token;

    assert_int_equal(ll_session_next(session, &token, &error), code);
    assert_int_equal(token.id, id);
    assert_int_equal(token.n_text, strlen(text));
    assert_memory_equal(token.text, text, strlen(text));
}

static void finish(struct ll_session *session, struct ll_engine *engine)
{
    ll_session_close(session);
    ll_engine_close(engine);
    assert_int_equal(fake.n_open, 0);
}

static int setup(void **state)
{
    (void)state;
    fake_reset();
    memset(&error, 0, sizeof error);
    return 0;
}

static void prompt_goes_in_chunks(void **state)
{
    struct ll_engine *engine = engine_of(1000, 1);
    struct ll_session *session = session_of(engine);
    int32_t want;

    add_many(session, 600);
    want = fake_next(ll_session_tokens(session), 600);
    assert_int_equal(fake.n_runs, 0); /* nothing is computed before it is needed */
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    assert_int_equal(fake.n_runs, 3);
    assert_int_equal(fake.rows[0], 256);
    assert_int_equal(fake.rows[1], 256);
    assert_int_equal(fake.rows[2], 88);
    assert_int_equal(fake.wanted[0] + fake.wanted[1], 0);
    assert_int_equal(fake.wanted[2], 1);
    assert_int_equal(ll_session_length(session), 601);

    /* The token just given is pending, and is the only row of the next step. */
    want = fake_next(ll_session_tokens(session), 601);
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    assert_int_equal(fake.n_runs, 4);
    assert_int_equal(fake.rows[3], 1);
    finish(session, engine);
}

static void rows_never_exceed_a_small_context(void **state)
{
    struct ll_engine *engine = engine_of(8, 1);
    struct ll_session *session = session_of(engine);

    assert_int_equal(fake.n_rows_max, 8);
    finish(session, engine);
}

static void characters_are_held_until_whole(void **state)
{
    /* a, the first byte of é, its second; then a euro cut before its last byte by the end. */
    static const int32_t script[] = {0, 'a', 0xc3, 0xa9, FAKE_EURO, 0xe2, 0x82, FAKE_END, 'z'};
    struct ll_engine *engine = engine_of(100, 1);
    struct ll_session *session = session_of(engine);

    fake.script = script;
    fake.n_script = (int)ARRAY_LEN(script);
    add(session, "x");
    expect(session, LL_OK, 'a', "a");
    expect(session, LL_OK, 0xc3, "");
    expect(session, LL_OK, 0xa9, "\xc3\xa9");
    expect(session, LL_OK, FAKE_EURO, "\xe2\x82\xac");
    expect(session, LL_OK, 0xe2, "");
    expect(session, LL_OK, 0x82, "");
    expect(session, LL_END, FAKE_END, "\xe2\x82");
    assert_int_equal(ll_session_length(session), 8); /* the end token is part of it */
    expect(session, LL_OK, 'z', "z");                /* and nothing is given twice */
    finish(session, engine);
}

static void a_long_piece_fits(void **state)
{
    static const int32_t script[] = {0, 0xc3, FAKE_LONG};
    struct ll_engine *engine = engine_of(100, 1);
    struct ll_session *session = session_of(engine);
    struct ll_token token;

    fake.script = script;
    fake.n_script = (int)ARRAY_LEN(script);
    add(session, "x");
    expect(session, LL_OK, 0xc3, "");
    assert_int_equal(ll_session_next(session, &token, &error), LL_OK);
    assert_int_equal(token.n_text, 201);
    assert_int_equal(token.text[200], 'y');
    finish(session, engine);
}

static void held_bytes_do_not_leak_into_the_next_answer(void **state)
{
    static const int32_t script[] = {0, 0xc3, 0, 'b'};
    struct ll_engine *engine = engine_of(100, 1);
    struct ll_session *session = session_of(engine);

    fake.script = script;
    fake.n_script = (int)ARRAY_LEN(script);
    add(session, "x");
    expect(session, LL_OK, 0xc3, "");
    add(session, "y");
    expect(session, LL_OK, 'b', "b");
    finish(session, engine);
}

static void a_full_context_ends_and_flushes(void **state)
{
    static const int32_t script[] = {0, 0, 0, 'a', 0xc3};
    struct ll_engine *engine = engine_of(5, 1);
    struct ll_session *session = session_of(engine);

    fake.script = script;
    fake.n_script = (int)ARRAY_LEN(script);
    assert_int_equal(ll_session_add_text(session, "sixsix", -1, 0, &error), LL_FULL);
    assert_int_equal(ll_session_length(session), 0); /* then nothing was added */
    add(session, "xyz");
    expect(session, LL_OK, 'a', "a");
    expect(session, LL_OK, 0xc3, "");
    assert_int_equal(ll_session_length(session), 5);
    expect(session, LL_FULL, -1, "\xc3");
    expect(session, LL_FULL, -1, "");
    assert_int_equal(fake.n_runs, 2);
    assert_string_equal(error.message, "the context of 5 tokens is full");

    assert_int_equal(ll_session_truncate(session, 3, &error), LL_OK);
    expect(session, LL_OK, 'a', "a");
    finish(session, engine);
}

static void cancel_now(void *session)
{
    ll_session_cancel(session);
}

static void cancel_stops_between_chunks(void **state)
{
    struct ll_engine *engine = engine_of(1000, 1);
    struct ll_session *session = session_of(engine);
    struct ll_stats stats;
    int32_t want;

    add_many(session, 600);
    want = fake_next(ll_session_tokens(session), 600);
    fake.on_run = cancel_now;
    fake.user = session;
    expect(session, LL_CANCELLED, -1, "");
    assert_int_equal(fake.n_runs, 1);
    assert_int_equal(ll_session_length(session), 600);

    /* It goes on where it stopped, with the same result. */
    fake.on_run = NULL;
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    assert_int_equal(fake.n_runs, 3);
    assert_int_equal(fake.rows[1], 256);
    assert_int_equal(fake.rows[2], 88);
    ll_session_stats(session, &stats);
    assert_int_equal(stats.n_prompt, 600);
    assert_int_equal(stats.n_cached, 0);

    /* Asked for between calls, it meets the next one, once. */
    ll_session_cancel(session);
    expect(session, LL_CANCELLED, -1, "");
    want = fake_next(ll_session_tokens(session), 601);
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    finish(session, engine);
}

static void cancel_stops_a_read(void **state)
{
    struct ll_engine *engine = engine_of(1000, 1);
    struct ll_session *session = session_of(engine);
    const float *logits;

    add_many(session, 600);
    fake.on_run = cancel_now;
    fake.user = session;
    assert_int_equal(ll_session_read(session, 1, &logits, &error), LL_CANCELLED);
    assert_null(logits);
    fake.on_run = NULL;
    assert_int_equal(ll_session_read(session, 1, &logits, &error), LL_OK);
    assert_int_equal(fake.n_runs, 3);
    finish(session, engine);
}

static void truncate_keeps_the_prefix(void **state)
{
    struct ll_engine *engine = engine_of(100, 1);
    struct ll_session *session = session_of(engine);
    struct ll_stats stats;
    int32_t want;

    add(session, "hello world");
    want = fake_next(ll_session_tokens(session), 11);
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    assert_int_equal(ll_session_truncate(session, 6, &error), LL_OK);
    assert_int_equal(fake.truncate_len, 6);
    assert_int_equal(ll_session_length(session), 6);
    add(session, "there");
    want = fake_next((const int32_t[]){'h', 'e', 'l', 'l', 'o', ' ', 't', 'h', 'e', 'r', 'e'}, 11);
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    assert_int_equal(fake.rows[1], 5); /* only the new part was computed */
    ll_session_stats(session, &stats);
    assert_int_equal(stats.n_prompt, 11);
    assert_int_equal(stats.n_cached, 6);
    assert_int_equal(stats.n_generated, 1);

    /* With nothing new, the last token is read again and nothing else. */
    assert_int_equal(ll_session_truncate(session, 11, &error), LL_OK);
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    assert_int_equal(fake.rows[2], 1);

    /* What was never read needs no word to the chain. */
    assert_int_equal(fake.n_truncates, 1);
    assert_int_equal(ll_session_truncate(session, 13, &error), LL_INPUT);
    assert_int_equal(ll_session_truncate(session, -1, &error), LL_INPUT);
    assert_int_equal(ll_session_truncate(session, 0, &error), LL_OK);
    assert_int_equal(ll_session_length(session), 0);
    finish(session, engine);
}

static void read_gives_the_last_rows(void **state)
{
    struct ll_engine *engine = engine_of(1000, 1);
    struct ll_session *session = session_of(engine);
    const float *logits;

    add_many(session, 600);
    assert_int_equal(ll_session_read(session, 0, &logits, &error), LL_INPUT);
    assert_int_equal(ll_session_read(session, 601, &logits, &error), LL_INPUT);
    assert_int_equal(ll_session_read(session, 300, &logits, &error), LL_OK);
    assert_int_equal(fake.wanted[0], 0);
    assert_int_equal(fake.wanted[1], 212);
    assert_int_equal(fake.wanted[2], 88);
    for (int i = 0; i < 300; i++) {
        int32_t want = fake_next(ll_session_tokens(session), 300 + i + 1);

        assert_true(logits[i * FAKE_VOCAB + want] == 1);
    }
    assert_int_equal(ll_session_read(session, 1, &logits, &error), LL_INPUT); /* nothing added */
    add_many(session, 400);
    assert_int_equal(ll_session_read(session, 400, &logits, &error), LL_OK);
    assert_true(logits[399 * FAKE_VOCAB + fake_next(ll_session_tokens(session), 1000)] == 1);
    finish(session, engine);
}

static void slots_run_out_and_come_back(void **state)
{
    struct ll_engine *engine = engine_of(100, 2);
    struct ll_session *a = session_of(engine), *b = session_of(engine), *c;
    int32_t want;

    assert_int_equal(ll_session_open(engine, NULL, &c, &error), LL_LIMIT);
    assert_null(c);
    assert_non_null(strstr(error.message, "all 2 sessions"));
    add(a, "aaa");
    add(b, "bb");
    want = fake_next((const int32_t[]){'a', 'a', 'a'}, 3);
    expect(a, LL_OK, want, (char[]){(char)want, 0});
    want = fake_next((const int32_t[]){'b', 'b'}, 2);
    expect(b, LL_OK, want, (char[]){(char)want, 0});
    ll_session_close(a);
    assert_int_equal(fake.slot_len[0], 0); /* the slot forgets */
    c = session_of(engine);
    add(c, "c");
    want = fake_next((const int32_t[]){'c'}, 1);
    expect(c, LL_OK, want, (char[]){(char)want, 0});
    ll_session_close(c);
    finish(b, engine);
}

static void bad_input_is_named(void **state)
{
    struct ll_sampling bad = ll_sampling_defaults();
    struct ll_engine *engine = engine_of(100, 1);
    struct ll_session *session;
    struct ll_token token;

    bad.temp = -1;
    assert_int_equal(ll_session_open(engine, &bad, &session, &error), LL_INPUT);
    assert_int_equal(error.code, LL_INPUT);
    assert_string_equal(error.message, "temp");
    session = session_of(engine); /* the refusal took no slot */
    assert_int_equal(ll_session_next(session, &token, NULL), LL_INPUT);
    assert_int_equal(ll_session_add_tokens(session, (const int32_t[]){1, FAKE_VOCAB}, 2, &error),
                     LL_INPUT);
    assert_non_null(strstr(error.message, "token 1 is 300"));
    assert_int_equal(ll_session_add_tokens(session, (const int32_t[]){-1}, 1, &error), LL_INPUT);
    assert_int_equal(ll_session_add_tokens(session, NULL, -1, &error), LL_INPUT);
    assert_int_equal(ll_session_length(session), 0);
    finish(session, engine);
}

static void a_failed_step_can_be_tried_again(void **state)
{
    struct ll_engine *engine = engine_of(1000, 1);
    struct ll_session *session = session_of(engine);
    int32_t want;

    add_many(session, 600);
    want = fake_next(ll_session_tokens(session), 600);
    fake.run_err = ERR_MEMORY;
    fake.run_err_at = 1;
    expect(session, LL_MEMORY, -1, "");
    assert_string_equal(error.message, "fake run");
    fake.run_err = ERR_NONE;
    expect(session, LL_OK, want, (char[]){(char)want, 0});
    assert_int_equal(fake.rows[2], 256);
    assert_int_equal(fake.rows[3], 88);
    finish(session, engine);
}

static void a_lost_device_is_remembered(void **state)
{
    struct ll_engine *engine = engine_of(1000, 2);
    struct ll_session *session = session_of(engine), *other = session_of(engine);
    struct ll_device_info info;
    int n_runs;

    add(session, "abc");
    fake.run_err = ERR_PROTO;
    fake.run_err_at = 0;
    expect(session, LL_GONE, -1, "");
    n_runs = fake.n_runs;
    fake.run_err = ERR_NONE;
    add(other, "abc");
    expect(other, LL_GONE, -1, "");
    assert_string_equal(error.message, "fake run");
    assert_int_equal(ll_engine_device(engine, 0, &info, &error), LL_GONE);
    assert_int_equal(fake.n_runs, n_runs); /* the chain was left alone */
    ll_session_close(other);
    finish(session, engine);
}

static void open_error(enum ll_code code, const char *message)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine *engine;

    opts.model_path = "fake.gguf";
    assert_int_equal(ll_engine_open(&opts, &engine, &error), code);
    assert_int_equal(error.code, code);
    assert_null(engine);
    assert_non_null(strstr(error.message, message));
    assert_int_equal(fake.n_open, 0);
    fake_reset();
}

static void open_errors_close_what_was_open(void **state)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine *engine;

    fake.cpu_unsuited = "this CPU lacks things";
    open_error(LL_UNSUPPORTED, "lacks things");
    fake.file_err = ERR_FILE;
    open_error(LL_FILE, "fake file");
    fake.tokenizer_err = ERR_INPUT;
    open_error(LL_INPUT, "fake tokenizer");
    fake.model_err = ERR_UNSUPPORTED;
    open_error(LL_UNSUPPORTED, "fake model");
    fake.n_tokens = FAKE_VOCAB + 1;
    open_error(LL_INPUT, "301 tokens, but the embedding only 300 rows");
    fake.text_err = ERR_LIMIT;
    open_error(LL_LIMIT, "fake text");
    fake.kv_err = ERR_UNSUPPORTED;
    open_error(LL_UNSUPPORTED, "fake kv");
    fake.chain_err = ERR_MEMORY;
    open_error(LL_MEMORY, "fake chain");
    fake.chain_err = ERR_GONE;
    open_error(LL_GONE, "fake chain");

    assert_int_equal(ll_engine_open(&opts, &engine, &error), LL_INPUT); /* no path */
    opts.model_path = "fake.gguf";
    opts.n_ctx = -1;
    assert_int_equal(ll_engine_open(&opts, &engine, &error), LL_INPUT);
    opts.n_ctx = 0;
    opts.n_sessions = 257;
    assert_int_equal(ll_engine_open(&opts, &engine, &error), LL_INPUT);
    opts.n_sessions = 0;
    opts.kv = (enum ll_kv)9;
    assert_int_equal(ll_engine_open(&opts, &engine, NULL), LL_INPUT);
    assert_int_equal(fake.n_open, 0);
}

static void context_sizes(void **state)
{
    struct ll_engine_opts opts = ll_engine_defaults();
    struct ll_engine_info info;
    struct ll_engine *engine;

    fake.n_ctx_train = 1000;
    ll_engine_close(engine_of(0, 1));
    assert_int_equal(fake.n_ctx, 1000);
    fake.n_ctx_train = 100000;
    ll_engine_close(engine_of(0, 1));
    assert_int_equal(fake.n_ctx, 4096);
    fake.n_ctx_train = 1000;
    engine = engine_of(2000, 3); /* allowed: the caller compares with n_ctx_train and warns */
    ll_engine_info(engine, &info);
    assert_int_equal(info.n_ctx, 2000);
    assert_int_equal(info.n_ctx_train, 1000);
    assert_int_equal(info.n_modules, 6);
    assert_int_equal(info.kv_bytes_per_position, 400);
    assert_int_equal(fake.n_slots, 3);
    ll_engine_close(engine);

    fake.ctx_is_hard = true;
    opts.model_path = "fake.gguf";
    opts.n_ctx = 1001;
    assert_int_equal(ll_engine_open(&opts, &engine, &error), LL_INPUT);
    assert_non_null(strstr(error.message, "maximum is 1000"));
    opts.n_ctx = 1000;
    opts.kv = LL_KV_F32;
    opts.n_threads = sys_cores() + 5; /* never more than cores */
    assert_int_equal(ll_engine_open(&opts, &engine, &error), LL_OK);
    ll_engine_info(engine, &info);
    assert_int_equal(info.n_threads, sys_cores());
    assert_int_equal(fake.n_threads, sys_cores());
    assert_int_equal(info.kv_bytes_per_position, 800);
    ll_engine_close(engine);
    assert_int_equal(fake.n_open, 0);
}

static void devices_are_reported(void **state)
{
    struct ll_engine *engine = engine_of(100, 1);
    struct ll_device_info info;

    assert_int_equal(ll_engine_device(engine, 1, &info, &error), LL_OK);
    assert_string_equal(info.name, "device 2");
    assert_string_equal(info.modules, "embed..ffn.1");
    assert_true(info.decode_ms == 2 && info.sent_bytes_per_row == 100 && info.compute_ms == 9);
    assert_int_equal(ll_engine_device(engine, 2, &info, &error), LL_INPUT);
    fake.report_err = ERR_FILE;
    assert_int_equal(ll_engine_device(engine, 0, &info, &error), LL_FILE);
    ll_engine_close(engine);
}

static void text_helpers(void **state)
{
    struct ll_message messages[] = {{"user", "hi"}, {"assistant", "yo"}, {"user", "so"}};
    struct ll_engine *engine = engine_of(100, 1);
    int32_t *tokens;
    char buf[8], *out;
    int n;

    assert_int_equal(ll_tokenize(engine, "a#", -1, LL_BOS, &tokens, &n, &error), LL_OK);
    assert_int_equal(n, 3);
    assert_int_equal(tokens[0], FAKE_BOS);
    assert_int_equal(tokens[2], '#');
    free(tokens);
    assert_int_equal(ll_tokenize(engine, "a#b", 2, LL_SPECIAL, &tokens, &n, &error), LL_OK);
    assert_int_equal(n, 2);
    assert_int_equal(tokens[1], FAKE_SPECIAL);
    free(tokens);
    assert_int_equal(ll_piece(engine, FAKE_EURO, buf, 2), -3);
    assert_int_equal(ll_piece(engine, FAKE_EURO, buf, 8), 3);
    assert_int_equal(ll_piece(engine, FAKE_SPECIAL, buf, 8), 0);

    assert_int_equal(ll_chat_render(engine, messages, 3, &out, &error), LL_UNSUPPORTED);
    fake.has_template = true;
    assert_int_equal(ll_chat_render(engine, messages, 0, &out, &error), LL_INPUT);
    assert_int_equal(ll_chat_render(engine, messages, 3, &out, &error), LL_OK);
    assert_string_equal(out, "#user:so(3)#");
    free(out);
    ll_engine_close(engine);
}

static void statistics_count_an_answer(void **state)
{
    struct ll_engine *engine = engine_of(100, 1);
    struct ll_session *session = session_of(engine);
    struct ll_token token;
    struct ll_stats stats;

    add(session, "four");
    for (int i = 0; i < 3; i++)
        assert_int_equal(ll_session_next(session, &token, &error), LL_OK);
    ll_session_stats(session, &stats);
    assert_int_equal(stats.n_prompt, 4);
    assert_int_equal(stats.n_cached, 0);
    assert_int_equal(stats.n_generated, 3);
    assert_true(stats.ttft_ms >= 0 && stats.prompt_ms >= 0 && stats.generate_ms >= 0);
    add(session, "more");
    assert_int_equal(ll_session_next(session, &token, &error), LL_OK);
    ll_session_stats(session, &stats);
    assert_int_equal(stats.n_prompt, 11);
    assert_int_equal(stats.n_cached, 6); /* the last token of the answer was still pending */
    assert_int_equal(stats.n_generated, 1);
    finish(session, engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(prompt_goes_in_chunks, setup),
        cmocka_unit_test_setup(rows_never_exceed_a_small_context, setup),
        cmocka_unit_test_setup(characters_are_held_until_whole, setup),
        cmocka_unit_test_setup(a_long_piece_fits, setup),
        cmocka_unit_test_setup(held_bytes_do_not_leak_into_the_next_answer, setup),
        cmocka_unit_test_setup(a_full_context_ends_and_flushes, setup),
        cmocka_unit_test_setup(cancel_stops_between_chunks, setup),
        cmocka_unit_test_setup(cancel_stops_a_read, setup),
        cmocka_unit_test_setup(truncate_keeps_the_prefix, setup),
        cmocka_unit_test_setup(read_gives_the_last_rows, setup),
        cmocka_unit_test_setup(slots_run_out_and_come_back, setup),
        cmocka_unit_test_setup(bad_input_is_named, setup),
        cmocka_unit_test_setup(a_failed_step_can_be_tried_again, setup),
        cmocka_unit_test_setup(a_lost_device_is_remembered, setup),
        cmocka_unit_test_setup(open_errors_close_what_was_open, setup),
        cmocka_unit_test_setup(context_sizes, setup),
        cmocka_unit_test_setup(devices_are_reported, setup),
        cmocka_unit_test_setup(text_helpers, setup),
        cmocka_unit_test_setup(statistics_count_an_answer, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
