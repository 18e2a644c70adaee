/* src/text on a small vocabulary the test writes itself. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/apart.h"
#include "base/mem.h"
#include "support/open_text.h"
#include "text/text.h"
#include "text/text_shim.h"

#define CHATML                                                                                     \
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"     \
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

static const struct text_message talk[] = {{"system", "Be brief."},
                                           {"user", "hello \xf0\x9f\x98\x80"},
                                           {"assistant", "hello"},
                                           {"user", "in time"}};

static struct text *open_template(const char *chat_template)
{
    return open_tiny(&(struct tiny_vocab){.chat_template = chat_template});
}

static struct text *open_plain(void)
{
    return open_tiny(&(struct tiny_vocab){0});
}

static int32_t *tokens_of(const struct text *t, const char *s, bool add, bool parse, int *n)
{
    int32_t *ids = NULL;
    struct err_text et = {{0}};

    assert_int_equal(text_tokenize(t, s, strlen(s), add, parse, &ids, n, &et), ERR_NONE);
    assert_non_null(ids);
    return ids;
}

static char *text_of(const struct text *t, const int32_t *ids, int n, bool special)
{
    char *s = mem_zalloc((size_t)n * 16 + 1, 1);
    size_t at = 0;

    for (int i = 0; i < n; i++) {
        int got = text_piece(t, ids[i], special, s + at, 16);

        assert_true(got >= 0);
        at += (size_t)got;
    }
    s[at] = '\0';
    return s;
}

static void test_facts(void **state)
{
    struct text *t = open_plain();

    assert_true(text_n_vocab(t) > TINY_PIECE_FIRST + 90);
    assert_int_equal(text_bos(t), TINY_BOS);
    assert_true(text_adds_bos(t));
    assert_true(text_is_end(t, TINY_EOS));
    assert_true(text_is_end(t, TINY_IM_END));
    assert_false(text_is_end(t, TINY_BOS));
    assert_false(text_is_end(t, -1));
    assert_false(text_is_end(t, text_n_vocab(t)));
    assert_false(text_has_template(t));
    assert_null(text_template(t));
    text_close(t);

    t = open_tiny(&(struct tiny_vocab){.no_bos = true, .chat_template = CHATML, .n_vocab = 512});
    assert_int_equal(text_n_vocab(t), 512);
    assert_false(text_adds_bos(t));
    assert_true(text_has_template(t));
    assert_string_equal(text_template(t), CHATML);
    text_close(t);
    text_close(NULL);
}

static void test_open_errors(void **state)
{
    char path[] = "/tmp/lingua-test-text-XXXXXX";
    struct text *t = (struct text *)1;
    struct err_text et = {{0}};
    int fd;

    assert_int_equal(text_open("/nonexistent/model.gguf", &t, &et), ERR_FILE);
    assert_null(t);
    assert_non_null(strstr(et.text, "/nonexistent/model.gguf: No such file"));

    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "this is no model", 16), 16);
    close(fd);
    assert_int_equal(text_open(path, &t, &et), ERR_INPUT);
    assert_non_null(strstr(et.text, path));
    assert_null(strchr(et.text, '\n'));
    unlink(path);
}

static void test_tokens(void **state)
{
    static const char *const texts[] = {
        "",
        "a",
        "hello world",
        " leading and  double  spaces ",
        "line\nand\ttab\r\n",
        "na\xc3\xafve \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7",
        "a byte that is not UTF-8: \xc3(",
    };
    struct text *t = open_plain();

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int n, n_bos;
        int32_t *ids = tokens_of(t, texts[i], false, false, &n);
        int32_t *with_bos = tokens_of(t, texts[i], true, false, &n_bos);
        char *back = text_of(t, ids, n, false);

        /* SentencePiece puts one space in front of a text; the caller drops it. */
        assert_string_equal(texts[i][0] ? back + 1 : back, i == 6 ? back + 1 : texts[i]);
        assert_int_equal(n_bos, n + 1);
        assert_int_equal(with_bos[0], TINY_BOS);
        assert_memory_equal(with_bos + 1, ids, (size_t)n * sizeof *ids);
        free(back);
        free(with_bos);
        free(ids);
    }
    text_close(t);
}

static void test_merges(void **state)
{
    struct text *t = open_plain();
    char buf[16];
    int n;
    int32_t *ids = tokens_of(t, "hello world", false, false, &n);

    /* "hello" is one piece with the space in front, and so is " world". */
    assert_int_equal(n, 2);
    assert_int_equal(text_piece(t, ids[0], false, buf, sizeof buf), 6);
    assert_memory_equal(buf, " hello", 6);
    assert_int_equal(text_piece(t, ids[1], false, buf, 3), -6);
    assert_int_equal(text_piece(t, ids[1], false, NULL, 0), -6);
    free(ids);

    ids = tokens_of(t, "\xf0\x9f\x98\x80", false, false, &n);
    assert_int_equal(n, 5); /* the space, then four bytes */
    assert_int_equal(ids[1], TINY_BYTE0 + 0xf0);
    assert_int_equal(text_piece(t, ids[1], false, buf, sizeof buf), 1);
    assert_int_equal((unsigned char)buf[0], 0xf0);
    free(ids);
    text_close(t);
}

static void test_special_tokens(void **state)
{
    struct text *t = open_plain();
    char buf[16];
    int n, i;
    int32_t *ids = tokens_of(t, "hello<|im_end|>", false, false, &n);
    char *back;

    for (i = 0; i < n; i++)
        assert_true(ids[i] != TINY_IM_END);
    back = text_of(t, ids, n, false);
    assert_string_equal(back, " hello<|im_end|>");
    free(back);
    free(ids);

    ids = tokens_of(t, "hello<|im_end|>", false, true, &n);
    assert_int_equal(n, 2);
    assert_int_equal(ids[1], TINY_IM_END);
    back = text_of(t, ids, n, false);
    assert_string_equal(back, " hello");
    free(back);
    back = text_of(t, ids, n, true);
    assert_string_equal(back, " hello<|im_end|>");
    free(back);
    free(ids);

    assert_int_equal(text_piece(t, TINY_BOS, false, buf, sizeof buf), 0);
    assert_int_equal(text_piece(t, TINY_BOS, true, buf, sizeof buf), 3);
    assert_memory_equal(buf, "<s>", 3);
    assert_int_equal(text_piece(t, -1, true, buf, sizeof buf), 0);
    assert_int_equal(text_piece(t, text_n_vocab(t), true, buf, sizeof buf), 0);
    assert_int_equal(text_piece(t, INT32_MAX, true, buf, sizeof buf), 0);
    text_close(t);
}

static void test_text_too_long(void **state)
{
    struct text *t = open_plain();
    struct err_text et = {{0}};
    int32_t *ids = (int32_t *)1;
    int n = 1;

    assert_int_equal(text_tokenize(t, "", (size_t)TEXT_BYTES_MAX + 1, true, true, &ids, &n, &et),
                     ERR_LIMIT);
    assert_null(ids);
    assert_int_equal(n, 0);
    assert_non_null(strstr(et.text, "16 MiB"));
    text_close(t);
}

/* A word longer than llama.cpp's recursive splitter survives on a usual stack. */
static void test_long_words(void **state)
{
    static const char *const pres[] = {"bloom", "gpt-2", "deepseek-llm"};
    const size_t n_long = 200000, n_max = 512 << 10;
    char *word = mem_zalloc(n_max + 2, 1);

    for (size_t i = 0; i < ARRAY_LEN(pres); i++) {
        struct text *t = open_tiny(&(struct tiny_vocab){.bpe = pres[i], .no_bos = true});
        struct err_text et = {{0}};
        int32_t *ids;
        char *back;
        int n;

        ids = tokens_of(t, "the hello \xf0\x9f\x98\x80", false, false, &n);
        back = text_of(t, ids, n, false);
        assert_string_equal(back, "the hello \xf0\x9f\x98\x80");
        assert_true(n < 9);
        free(back);
        free(ids);

        memset(word, 0, n_max + 2);
        memset(word, 'a', n_long);
        ids = tokens_of(t, word, false, false, &n);
        assert_int_equal(n, n_long);
        assert_int_equal(ids[n - 1], TINY_BYTE0 + 'a');
        free(ids);

        memset(word, 'a', n_max + 1);
        assert_int_equal(text_tokenize(t, word, n_max + 1, false, false, &ids, &n, &et), ERR_LIMIT);
        assert_null(ids);
        assert_non_null(strstr(et.text, "524289 bytes without a space"));
        text_close(t);
    }
    free(word);
}

static void test_utf8_whole(void **state)
{
    static const struct {
        const char *s;
        size_t n, whole;
    } rows[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"a\xc3", 2, 1},
        {"a\xc3\xa9", 3, 3},
        {"\xe4", 1, 0},
        {"\xe4\xbd", 2, 0},
        {"\xe4\xbd\xa0", 3, 3},
        {"x\xf0\x9f\x98", 4, 1},
        {"x\xf0\x9f", 3, 1},
        {"x\xf0", 2, 1},
        {"x\xf0\x9f\x98\x80", 5, 5},
        {"\xf0\x9f\x98\x80\xc3", 5, 4},
        {"\x80", 1, 1},             /* a continuation of nothing */
        {"\x80\x80\x80\x80", 4, 4}, /* and more of it */
        {"\xff", 1, 1},             /* never UTF-8 */
        {"\xc0", 1, 1},             /* only overlong forms start so */
        {"\xc1\x80", 2, 2},
        {"\xe0\x80", 2, 2}, /* overlong */
        {"\xe0\xa0", 2, 0},
        {"\xed\xa0", 2, 2}, /* surrogate */
        {"\xed\x9f", 2, 0},
        {"\xf0\x8f", 2, 2}, /* overlong */
        {"\xf0\x90", 2, 0},
        {"\xf4\x90", 2, 2}, /* past U+10FFFF */
        {"\xf4\x8f\xbf", 3, 0},
        {"\xf4\x8f"
         "a",
         3, 3},
        {"\xf5\x80\x80", 3, 3},
        {"\xe4\xc3", 2, 1}, /* broken, then a new beginning */
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (text_utf8_whole(rows[i].s, rows[i].n) != rows[i].whole)
            print_error("row %zu\n", i);
        assert_int_equal(text_utf8_whole(rows[i].s, rows[i].n), rows[i].whole);
    }
}

static char *render(const struct text *t, const struct text_message *m, int n, bool add)
{
    struct err_text et = {{0}};
    char *out = NULL;
    enum err e = text_render_chat(t, m, n, add, &out, &et);

    if (e)
        print_error("%s\n", et.text);
    assert_int_equal(e, ERR_NONE);
    assert_non_null(out);
    return out;
}

static void test_render(void **state)
{
    const char *want = "<|im_start|>system\nBe brief.<|im_end|>\n"
                       "<|im_start|>user\nhello \xf0\x9f\x98\x80<|im_end|>\n"
                       "<|im_start|>assistant\nhello<|im_end|>\n"
                       "<|im_start|>user\nin time<|im_end|>\n";
    struct text *t = open_template(CHATML);
    char *out = render(t, talk, 4, false);
    char *more;

    assert_string_equal(out, want);
    free(out);
    out = render(t, talk, 4, true);
    more = mem_printf("%s<|im_start|>assistant\n", want);
    assert_string_equal(out, more);
    free(more);
    free(out);
    text_close(t);
}

/* What the child writes is what llama.cpp gives in this process. */
static void test_render_like_in_process(void **state)
{
    static const char *const templates[] = {
        CHATML,
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] "
        "| trim }} "
        "[/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}{{ "
        "ns.n }}. "
        "{{ m.role | upper }}: {{ m.content | tojson }}\n{% endfor %}",
        "chatml",
    };

    for (size_t i = 0; i < ARRAY_LEN(templates); i++) {
        struct text *t = open_template(templates[i]);
        struct err_text et = {{0}};
        char *here = NULL, *child;
        size_t n;

        assert_int_equal(shim_render(t, talk, 4, true, &here, &n, &et), ERR_NONE);
        child = render(t, talk, 4, true);
        assert_int_equal(strlen(child), n);
        assert_true(n > 20);
        assert_string_equal(child, here);
        free(here);
        free(child);
        text_close(t);
    }
}

/* A template that writes BOS itself, and a tokenizer that adds one: there must be one. */
static void test_one_bos(void **state)
{
    const char *source = "{{ bos_token }}" CHATML;
    struct text *t = open_template(source);
    char *out = render(t, talk, 4, true);
    int n, count = 0;
    int32_t *ids = tokens_of(t, out, true, true, &n);

    for (int i = 0; i < n; i++)
        count += ids[i] == TINY_BOS;
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], TINY_BOS);
    assert_int_equal(ids[1], TINY_IM_START);
    free(ids);
    free(out);
    text_close(t);

    t = open_tiny(&(struct tiny_vocab){.chat_template = source, .no_bos = true});
    out = render(t, talk, 4, true);
    assert_memory_equal(out, "<s><|im_start|>", 15);
    ids = tokens_of(t, out, true, true, &n);
    assert_int_equal(ids[0], TINY_BOS);
    assert_int_equal(ids[1], TINY_IM_START);
    free(ids);
    free(out);
    text_close(t);
}

static void test_no_template(void **state)
{
    struct text *t = open_plain();
    struct err_text et = {{0}};
    char *out = (char *)1;

    assert_int_equal(text_render_chat(t, talk, 4, true, &out, &et), ERR_INPUT);
    assert_null(out);
    assert_non_null(strstr(et.text, "no chat template"));
    text_close(t);
}

/* Renders a bad template; leaves the sentence in *et. */
static enum err render_bad(const char *source, struct err_text *et)
{
    struct text *t = open_template(source);
    char *out = (char *)1;
    enum err e;

    memset(et, 0, sizeof *et);
    e = text_render_chat(t, talk, 4, true, &out, et);
    print_message("    %s\n", et->text);
    assert_null(out);
    assert_true(strlen(et->text) > 20);
    assert_null(strchr(et->text, '\n'));
    text_close(t);
    /* Nothing is left behind. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    return e;
}

static void test_complaints(void **state)
{
    struct err_text et;

    assert_int_equal(render_bad("{{ raise_exception('roles must alternate') }}", &et), ERR_INPUT);
    assert_non_null(strstr(et.text, "roles must alternate"));
    assert_int_equal(render_bad("{% for m in messages %}never closed", &et), ERR_INPUT);
    assert_int_equal(render_bad("{{ no_such_function('x') }}", &et), ERR_INPUT);
    assert_int_equal(render_bad("{% break %}", &et), ERR_INPUT);
}

static void test_hostile(void **state)
{
    char *deep = mem_zalloc(200001, 1), *source;
    struct err_text et;

    assert_int_equal(render_bad("{% for i in range(100000) %}{% for j in range(100000) %}"
                                "{% endfor %}{% endfor %}",
                                &et),
                     ERR_LIMIT);
    assert_int_equal(render_bad("{% for i in range(1000000000) %}x{% endfor %}", &et), ERR_LIMIT);
    assert_int_equal(render_bad("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", &et),
                     ERR_LIMIT);
    assert_int_equal(render_bad("{% set ns = namespace(s='0123456789abcdef') %}"
                                "{% for i in range(16) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
                                "{% for i in range(17) %}{{ ns.s }}{% endfor %}",
                                &et),
                     ERR_LIMIT);
    memset(deep, '(', 200000);
    source = mem_printf("{{ %s }}", deep);
    assert_int_equal(render_bad(source, &et), ERR_LIMIT);
    free(source);
    free(deep);
}

static void test_render_sizes(void **state)
{
    char *big = mem_zalloc((size_t)TEXT_BYTES_MAX + 1, 1);
    struct text_message m = {"user", big};
    struct err_text et = {{0}};
    struct text *t = open_template(CHATML);
    char *out = NULL;

    memset(big, 'x', TEXT_BYTES_MAX - 1000);
    assert_int_equal(text_render_chat(t, &m, 1, true, &out, &et), ERR_NONE);
    assert_int_equal(strlen(out), TEXT_BYTES_MAX - 1000 +
                                      strlen("<|im_start|>user\n<|im_end|>\n"
                                             "<|im_start|>assistant\n"));
    free(out);
    memset(big, 'x', TEXT_BYTES_MAX - 8); /* fits; what the template adds does not */
    assert_int_equal(text_render_chat(t, &m, 1, true, &out, &et), ERR_LIMIT);
    assert_null(out);
    assert_non_null(strstr(et.text, "writes more than 16 MiB"));
    memset(big, 'x', TEXT_BYTES_MAX);
    assert_int_equal(text_render_chat(t, &m, 1, true, &out, &et), ERR_LIMIT);
    assert_null(out);
    text_close(t);

    memset(big, 0, (size_t)TEXT_BYTES_MAX);
    memset(big, ' ', 300 << 10);
    assert_int_equal(render_bad(big, &et), ERR_LIMIT);
    assert_non_null(strstr(et.text, "256 KiB"));
    free(big);
}

static int handled;

static void on_signal(int sig)
{
    (void)sig;
    handled++;
}

/* The child shares no fate with the parent's descriptors, buffers and handlers. */
static void test_render_leaves_no_trace(void **state)
{
    struct sigaction mine = {.sa_handler = on_signal}, before, ignore = {.sa_handler = SIG_IGN};
    struct text *t = open_template(CHATML);
    sigset_t mask_before, mask_after;
    int ends[2];
    FILE *f;
    char c, *out;

    assert_int_equal(pipe(ends), 0);
    f = fdopen(ends[1], "w");
    assert_non_null(f);
    fputs("once", f); /* still in the buffer when the child starts */
    sigaction(SIGSEGV, &mine, &before);
    sigprocmask(SIG_SETMASK, NULL, &mask_before);
    out = render(t, talk, 4, true);
    free(out);
    sigprocmask(SIG_SETMASK, NULL, &mask_after);
    for (int sig = 1; sig < NSIG; sig++)
        assert_int_equal(sigismember(&mask_before, sig), sigismember(&mask_after, sig));
    sigaction(SIGSEGV, &before, NULL);
    fclose(f);
    assert_int_equal(read(ends[0], &c, 1), 1);
    assert_int_equal(c, 'o');
    assert_int_equal(read(ends[0], (char[8]){0}, 8), 3);
    close(ends[0]);
    assert_int_equal(handled, 0);

    /* An app that ignores its children still gets the text. */
    sigaction(SIGCHLD, &ignore, &before);
    out = render(t, talk, 4, true);
    sigaction(SIGCHLD, &before, NULL);
    assert_true(strlen(out) > 20);
    free(out);
    text_close(t);
}

/* kill -9 on us takes the renderer along. The process in the middle is killed while its child
 * renders a loop; as a subreaper we inherit that child and see what ended it. */
static void test_renderer_dies_with_parent(void **state)
{
    struct text *t = open_template("{% for i in range(100000) %}{% for j in range(100000) %}"
                                   "{% endfor %}{% endfor %}");
    char path[64], line[32];
    int status, child = 0;
    pid_t middle;

    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    middle = fork();
    assert_true(middle >= 0);
    if (middle == 0) {
        struct err_text et;
        char *out;

        _exit(text_render_chat(t, talk, 4, true, &out, &et) == ERR_LIMIT ? 3 : 4);
    }
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)middle, (int)middle);
    while (child == 0) {
        FILE *f = fopen(path, "r");

        assert_non_null(f);
        if (fgets(line, sizeof line, f))
            child = atoi(line);
        fclose(f);
        assert_int_equal(waitpid(middle, &status, WNOHANG), 0);
    }
    kill(middle, SIGKILL);
    assert_int_equal(waitpid(middle, &status, 0), middle);
    assert_int_equal(waitpid(child, &status, 0), child);
    /* Not by its own limit; or it saw on its first line that we had gone. */
    assert_true((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
                (WIFEXITED(status) && WEXITSTATUS(status) == APART_EXIT_LIMITS));
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
    text_close(t);
}

static void test_sampling_check(void **state)
{
    static const struct {
        struct sampling s;
        const char *names; /* NULL: good */
    } rows[] = {
        {{.temp = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f}, NULL},
        {{.temp = 0, .top_k = 0, .top_p = 1, .min_p = 0}, NULL},
        {{.temp = 1, .top_k = INT32_MAX, .top_p = 0.001f, .min_p = 1}, NULL},
        {{.temp = -0.1f, .top_p = 1}, "temp"},
        {{.temp = NAN, .top_p = 1}, "temp"},
        {{.temp = INFINITY, .top_p = 1}, "temp"},
        {{.temp = 1, .top_k = -1, .top_p = 1}, "top-k"},
        {{.temp = 1, .top_p = 0}, "top-p"},
        {{.temp = 1, .top_p = 1.01f}, "top-p"},
        {{.temp = 1, .top_p = NAN}, "top-p"},
        {{.temp = 1, .top_p = 1, .min_p = -0.1f}, "min-p"},
        {{.temp = 1, .top_p = 1, .min_p = 1.5f}, "min-p"},
        {{.temp = 1, .top_p = 1, .min_p = NAN}, "min-p"},
    };
    struct sampling usual = SAMPLING_DEFAULT;

    assert_int_equal(sampling_check(&usual, NULL), ERR_NONE);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct err_text et = {{0}};

        if (!rows[i].names) {
            assert_int_equal(sampling_check(&rows[i].s, &et), ERR_NONE);
            continue;
        }
        assert_int_equal(sampling_check(&rows[i].s, &et), ERR_INPUT);
        assert_int_equal(strncmp(et.text, rows[i].names, strlen(rows[i].names)), 0);
    }
}

enum { PICKS = 64 };

static void pick_many(const struct text *t, struct sampling s, int32_t *out)
{
    struct sampler *p = open_sampler(t, &s);
    struct err_text et;

    assert_int_equal(sampling_check(&s, &et), ERR_NONE);
    for (int i = 0; i < PICKS; i++) {
        float *l = logits_random(t, (uint32_t)i);

        out[i] = picked(p, l);
        assert_in_range(out[i], 0, text_n_vocab(t) - 1);
        free(l);
    }
    sampler_free(p);
}

static void test_greedy(void **state)
{
    struct text *t = open_plain();
    int n = text_n_vocab(t);
    struct sampling greedy = {.temp = 0, .top_k = 3, .top_p = 0.5f, .min_p = 0.1f, .seed = 7};
    struct sampler *s = open_sampler(t, &greedy);
    float *l = mem_zalloc((size_t)n, sizeof *l);

    for (int i = 0; i < n; i++)
        l[i] = -5;
    l[20] = l[10] = l[30] = 2;
    assert_int_equal(picked(s, l), 10);
    l[n - 1] = 3;
    assert_int_equal(picked(s, l), n - 1);
    l[0] = NAN; /* broken weights must not win, nor crash */
    assert_int_equal(picked(s, l), n - 1);
    assert_true(isnan(l[0]) && l[20] == 2);
    sampler_free(s);
    sampler_free(NULL);
    free(l);
    text_close(t);
}

static void test_seeds(void **state)
{
    struct text *t = open_plain();
    struct sampling s = {.temp = 1, .top_k = 0, .top_p = 1, .min_p = 0, .seed = 0};
    int32_t a[PICKS], b[PICKS];
    uint32_t seeds[] = {0, 1, 4242, UINT32_MAX};

    for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
        s.seed = seeds[i];
        pick_many(t, s, a);
        pick_many(t, s, b);
        assert_memory_equal(a, b, sizeof a);
        s.seed = seeds[i] + 1;
        pick_many(t, s, b);
        assert_memory_not_equal(a, b, sizeof a);
    }
    text_close(t);
}

static void test_top_k_one_is_greedy(void **state)
{
    struct text *t = open_plain();
    struct sampling k1 = {.temp = 1.5f, .top_k = 1, .top_p = 1, .min_p = 0, .seed = 3};
    struct sampling greedy = {.temp = 0, .top_p = 1};
    struct sampling cold = {.temp = 1e-30f, .top_p = 1};
    int32_t a[PICKS], b[PICKS];

    pick_many(t, greedy, b);
    pick_many(t, k1, a);
    assert_memory_equal(a, b, sizeof a);
    pick_many(t, cold, a);
    assert_memory_equal(a, b, sizeof a);
    text_close(t);
}

/* Which of the first four tokens, with probabilities near 1/2, 1/4, 1/6 and 1/12, are ever chosen
 * in 400 picks; every other token is hopeless. */
static unsigned chosen(const struct text *t, struct sampling s)
{
    struct sampler *p = open_sampler(t, &s);
    float *l = mem_zalloc((size_t)text_n_vocab(t), sizeof *l);
    unsigned seen = 0;

    for (int i = 0; i < text_n_vocab(t); i++)
        l[i] = -100;
    l[5] = logf(6);
    l[6] = logf(3);
    l[7] = logf(2);
    l[8] = logf(1);
    for (int i = 0; i < 400; i++) {
        int32_t id = picked(p, l);

        assert_in_range(id, 5, 8);
        seen |= 1u << (id - 5);
    }
    assert_float_equal(l[5], logf(6), 0); /* not changed */
    sampler_free(p);
    free(l);
    return seen;
}

static void test_tail_is_cut(void **state)
{
    struct text *t = open_plain();

    assert_int_equal(chosen(t, (struct sampling){.temp = 1, .top_p = 1}), 15);
    assert_int_equal(chosen(t, (struct sampling){.temp = 1, .top_p = 0.7f}), 3);
    assert_int_equal(chosen(t, (struct sampling){.temp = 1, .top_p = 0.4f}), 1);
    assert_int_equal(chosen(t, (struct sampling){.temp = 1, .top_p = 1, .min_p = 0.3f}), 7);
    assert_int_equal(chosen(t, (struct sampling){.temp = 1, .top_p = 1, .min_p = 1}), 1);
    assert_int_equal(chosen(t, (struct sampling){.temp = 1, .top_k = 2, .top_p = 1}), 3);
    assert_int_equal(
        chosen(t, (struct sampling){.temp = 1, .top_k = 3, .top_p = 0.7f, .min_p = 0.6f}), 1);
    /* Cut before the temperature is applied: heat does not bring the tail back. */
    assert_int_equal(chosen(t, (struct sampling){.temp = 5, .top_p = 0.7f}), 3);
    text_close(t);
}

static void test_broken_logits(void **state)
{
    struct text *t = open_plain();
    struct sampling s = {.temp = 0.001f, .top_k = 0, .top_p = 0.9f, .min_p = 0.1f};
    int n = text_n_vocab(t);
    float *l = mem_zalloc((size_t)n, sizeof *l);
    static const float values[] = {NAN, INFINITY, -INFINITY, 3e38f};

    for (size_t v = 0; v < ARRAY_LEN(values); v++) {
        for (int k = 0; k <= 200; k += 100) {
            struct sampler *p;

            s.top_k = k;
            p = open_sampler(t, &s);
            for (int i = 0; i < n; i++)
                l[i] = i % 3 ? values[v] : (float)i;
            assert_in_range(picked(p, l), 0, n - 1);
            for (int i = 0; i < n; i++)
                l[i] = values[v];
            assert_in_range(picked(p, l), 0, n - 1);
            sampler_free(p);
        }
    }
    free(l);
    text_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_open_errors),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_text_too_long),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_utf8_whole),
        cmocka_unit_test(test_render),
        cmocka_unit_test(test_render_like_in_process),
        cmocka_unit_test(test_one_bos),
        cmocka_unit_test(test_no_template),
        cmocka_unit_test(test_complaints),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_render_sizes),
        cmocka_unit_test(test_render_leaves_no_trace),
        cmocka_unit_test(test_renderer_dies_with_parent),
        cmocka_unit_test(test_sampling_check),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_top_k_one_is_greedy),
        cmocka_unit_test(test_tail_is_cut),
        cmocka_unit_test(test_broken_logits),
    };

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
