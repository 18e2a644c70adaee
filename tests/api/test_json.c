/* JSON of strangers: src/api/json.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/api.h"
#include "api/json.h"
#include "base/mem.h"

static void refused(const char *s, size_t n, const char *words)
{
    struct fault f = {0};

    assert_null(json_body(s, n, &f));
    assert_int_equal(f.status, 400);
    if (!strstr(f.message, words))
        fail_msg("\"%s\" does not say \"%s\"", f.message, words);
}

static char *repeated(const char *s, int n, const char *middle, const char *end)
{
    size_t len = strlen(s), end_len = strlen(end);
    char *all = mem_zalloc((len + end_len) * (size_t)n + strlen(middle) + 1, 1), *at = all;

    for (int i = 0; i < n; i++, at += len)
        memcpy(at, s, len);
    at = stpcpy(at, middle);
    for (int i = 0; i < n; i++, at += end_len)
        memcpy(at, end, end_len);
    return all;
}

static void test_refused(void **state)
{
    refused("", 0, "empty");
    refused("   ", 3, "line 1");
    refused("[]", 2, "object");
    refused("\"x\"", 3, "object");
    refused("{\"a\":", 5, "line 1");
    refused("{} {}", 5, "line 1");
    refused("{\"a\":\"\xff\"}", 9, "0xff");
    refused("{\"a\":\"\\ud800\"}", 14, "line 1");
    refused("{\"a\":1e999}", 11, "line 1");
    refused("{\"a\0b\":1}", 9, "line 1");
    refused("{\"a\":\"\\", 7, "line 1");
}

static void test_truncations(void **state)
{
    static const char whole[] =
        "{\"a\":[1,2.5,\"\\u00fc\",{\"b\":null,\"c\":[true,false]}],\"d\":-3e2}";
    struct fault f;

    for (size_t n = 0; n < sizeof whole - 1; n++)
        assert_null(json_body(whole, n, &f));
    json_decref(json_body(whole, sizeof whole - 1, &f));
}

static void test_depth(void **state)
{
    char *deep = repeated("[", 20000, "", "]");
    struct fault f;
    json_t *o;

    refused(deep, strlen(deep), "nested");
    free(deep);
    deep = repeated("{\"a\":", API_JSON_DEPTH, "1", "}");
    o = json_body(deep, strlen(deep), &f);
    assert_non_null(o);
    json_decref(o);
    free(deep);
    deep = repeated("{\"a\":", API_JSON_DEPTH + 1, "1", "}");
    refused(deep, strlen(deep), "nested");
    free(deep);
    /* Brackets in strings are none. */
    deep =
        mem_strdup("{\"a\":\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
                   "[[[[[[[[[[[[[[[[[[[[\"}");
    o = json_body(deep, strlen(deep), &f);
    assert_non_null(o);
    json_decref(o);
    free(deep);
    assert_int_equal(json_depth("{\"a]\":[[1],\"[[\\\"[\"]}"), 3);
    assert_int_equal(json_depth("1"), 0);
}

static void test_many_values(void **state)
{
    char *many = mem_alloc((size_t)3 * API_JSON_VALUES_MAX), *at = many;

    at = stpcpy(at, "{\"a\":[0");
    for (int i = 0; i < API_JSON_VALUES_MAX; i++)
        at = stpcpy(at, ",0");
    at = stpcpy(at, "]}");
    refused(many, (size_t)(at - many), "values");
    free(many);
}

static void test_fields(void **state)
{
    json_t *o = json_loads(
        "{\"t\":true,\"n\":null,\"i\":7,\"f\":7.0,\"r\":0.5,\"s\":\"x\",\"big\":1e300}", 0, NULL);
    struct fault f = {0};
    bool b = false;
    int64_t i = 1;
    double r = 1;
    const char *s = "old";

    assert_true(json_get_bool(o, "t", &b, &f) && b);
    assert_true(json_get_bool(o, "n", &b, &f) && b);
    assert_true(json_get_bool(o, "none", &b, &f) && b);
    assert_false(json_get_bool(o, "i", &b, &f));
    assert_string_equal(f.param, "i");
    assert_true(json_get_int(o, "i", 0, 10, &i, &f) && i == 7);
    i = 0;
    assert_true(json_get_int(o, "f", 0, 10, &i, &f) && i == 7);
    assert_false(json_get_int(o, "r", 0, 10, &i, &f));
    assert_false(json_get_int(o, "big", 0, 10, &i, &f));
    assert_false(json_get_int(o, "i", 0, 6, &i, &f));
    assert_non_null(strstr(f.message, "from 0 to 6"));
    assert_true(json_get_number(o, "r", 0, 1, &r, &f) && r == 0.5);
    assert_true(json_get_number(o, "i", 0, 10, &r, &f) && r == 7);
    assert_false(json_get_number(o, "s", 0, 10, &r, &f));
    assert_true(json_get_string(o, "s", &s, &f) && strcmp(s, "x") == 0);
    assert_true(json_get_string(o, "n", &s, &f) && strcmp(s, "x") == 0);
    assert_false(json_get_string(o, "i", &s, &f));
    json_decref(o);
}

static void text_is(const char *bytes, size_t n, const char *is)
{
    json_t *t = json_text(bytes, n);

    assert_string_equal(json_string_value(t), is);
    json_decref(t);
}

static void test_text(void **state)
{
    text_is("", 0, "");
    text_is("gr\xc3\xbc\xc3\x9f", 6, "gr\xc3\xbc\xc3\x9f");
    text_is("a\xc3", 2, "a\xef\xbf\xbd");
    text_is("\xff\xfe!", 3, "\xef\xbf\xbd\xef\xbf\xbd!");
    text_is("\xed\xa0\x80", 3, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"); /* a surrogate */
    text_is("\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80");
}

static void test_faults(void **state)
{
    struct fault f;
    json_t *v;

    assert_false(fault_field(&f, "a\nb", "wrong: %s", "x\x1b[2J\xff"));
    assert_string_equal(f.message, "wrong: x?[2J?");
    assert_string_equal(f.param, "a?b");
    v = fault_json(&f, true);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(v, "error"), "code")), 400);
    json_decref(v);
    v = fault_json(&f, false);
    assert_true(json_is_null(json_object_get(json_object_get(v, "error"), "code")));
    json_decref(v);
    fault_err(&f, ERR_LIMIT, "full", true, 9);
    assert_int_equal(f.status, 503);
    assert_int_equal(f.retry_s, 9);
    fault_err(&f, ERR_LIMIT, "too long", false, 0);
    assert_int_equal(f.status, 400);
    fault_err(&f, ERR_GONE, NULL, false, 0);
    assert_int_equal(f.status, 503);
    assert_true(f.retry_s > 0);
    fault_err(&f, ERR_MEMORY, "none", false, 0);
    assert_int_equal(f.status, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_truncations),
        cmocka_unit_test(test_depth),   cmocka_unit_test(test_many_values),
        cmocka_unit_test(test_fields),  cmocka_unit_test(test_text),
        cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
