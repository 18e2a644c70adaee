/* src/api/session.h: the cookie among others, and which hosts and origins are ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/session.h"

static void test_keys_are_new_and_their_own(void **state)
{
    struct session a, b;
    char longer[SESSION_KEY_TEXT + 1];

    session_init(&a, 8080, false);
    session_init(&b, 8080, false);
    assert_int_equal(strlen(a.key), SESSION_KEY_TEXT - 1);
    assert_string_not_equal(a.key, b.key);
    assert_string_not_equal(a.cookie, b.cookie);
    assert_string_not_equal(a.key, a.cookie);
    assert_true(session_key_is(&a, a.key, strlen(a.key)));
    assert_false(session_key_is(&a, b.key, strlen(b.key)));
    assert_false(session_key_is(&a, a.cookie, strlen(a.cookie)));
    assert_false(session_key_is(&a, a.key, strlen(a.key) - 1));
    assert_false(session_key_is(&a, "", 0));
    snprintf(longer, sizeof longer, "%s0", a.key);
    assert_false(session_key_is(&a, longer, strlen(longer)));
    session_wipe(&a);
    for (size_t i = 0; i < sizeof a.key; i++)
        assert_int_equal(a.key[i], 0);
}

static bool has(const struct session *s, const char *fmt, const char *value)
{
    char text[512];

    snprintf(text, sizeof text, fmt, value);
    return session_has_cookie(s, text);
}

static void test_cookies(void **state)
{
    char set[SESSION_COOKIE_MAX], want[SESSION_COOKIE_MAX];
    struct session s;

    session_init(&s, 8080, false);
    session_set_cookie(&s, set);
    snprintf(want, sizeof want, "lingua_8080=%s; Path=/; HttpOnly; SameSite=Strict", s.cookie);
    assert_string_equal(set, want);
    assert_true(has(&s, "lingua_8080=%s", s.cookie));
    assert_true(has(&s, "a=b; lingua_8080=%s; c=d", s.cookie));
    assert_true(has(&s, "a=b;lingua_8080=%s", s.cookie));
    assert_true(has(&s, "lingua_8080=another; lingua_8080=%s", s.cookie));
    assert_true(has(&s, "lingua_8081=x;;; ;lingua_8080=%s;", s.cookie));
    assert_false(has(&s, "lingua_8081=%s", s.cookie));
    assert_false(has(&s, "xlingua_8080=%s", s.cookie));
    assert_false(has(&s, "lingua_8080=x%s", s.cookie));
    assert_false(has(&s, "lingua_8080=%sx", s.cookie));
    assert_false(has(&s, "lingua_8080=\"%s\"", s.cookie));
    assert_false(has(&s, "lingua_8080 =%s", s.cookie));
    assert_false(has(&s, "LINGUA_8080=%s", s.cookie));
    assert_false(has(&s, "lingua_8080=%s", s.key));
    assert_false(has(&s, "%s", ""));
    assert_false(has(&s, "lingua_8080=%s", ""));
    assert_false(has(&s, "lingua_8080%s", ""));
    assert_false(session_has_cookie(&s, NULL));
    session_init(&s, 8443, true);
    session_set_cookie(&s, set);
    assert_non_null(strstr(set, "; Secure"));
}

static void test_hosts(void **state)
{
    static const char *const ours[] = {
        "127.0.0.1:8080", "localhost:8080",        "LocalHost:8080", "192.168.1.5:8080",
        "[::1]:8080",     "[fe80::1:2:3:4]:8080",  "10.0.0.1:08080", "box:8080",
        "BOX.local:8080", "[::ffff:1.2.3.4]:8080",
    };
    static const char *const not_ours[] = {
        "",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:8081",
        "127.0.0.1:80800",
        "127.0.0.1:8080x",
        "127.0.0.1:+8080",
        "127.0.0.1:8080:8080",
        "127.0.0.1.evil.test:8080",
        "localhost.evil.test:8080",
        "evil.test:8080",
        "box.evil.test:8080",
        "box.locale:8080",
        "boxer:8080",
        "127.1:8080",
        "2130706433:8080",
        "0x7f000001:8080",
        "256.0.0.1:8080",
        "[::1:8080",
        "[::1]8080",
        "[evil.test]:8080",
        "::1:8080",
        "[]:8080",
        ":8080",
        "user@127.0.0.1:8080",
        " 127.0.0.1:8080",
    };
    char name[600];
    struct session s;

    session_init(&s, 8080, false);
    strcpy(s.machine, "box");
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (!session_is_us(&s, ours[i]))
            fail_msg("%s is ours", ours[i]);
    for (size_t i = 0; i < sizeof not_ours / sizeof *not_ours; i++)
        if (session_is_us(&s, not_ours[i]))
            fail_msg("%s is not ours", not_ours[i]);
    assert_false(session_is_us(&s, NULL));
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_false(session_is_us(&s, name));
    s.machine[0] = '\0'; /* a machine without a name */
    assert_false(session_is_us(&s, ":8080"));
    assert_false(session_is_us(&s, ".local:8080"));
    s.port = 80;
    assert_true(session_is_us(&s, "127.0.0.1"));
    s.tls = true;
    assert_false(session_is_us(&s, "127.0.0.1"));
    s.port = 443;
    assert_true(session_is_us(&s, "[::1]"));
}

static void test_origins(void **state)
{
    struct session s;

    session_init(&s, 8080, false);
    assert_true(session_is_origin(&s, "127.0.0.1:8080", "http://127.0.0.1:8080"));
    assert_true(session_is_origin(&s, "localhost:8080", "http://LOCALHOST:8080"));
    assert_false(session_is_origin(&s, "127.0.0.1:8080", "https://127.0.0.1:8080"));
    assert_false(session_is_origin(&s, "127.0.0.1:8080", "http://localhost:8080"));
    assert_false(session_is_origin(&s, "127.0.0.1:8080", "http://127.0.0.1:8081"));
    assert_false(session_is_origin(&s, "127.0.0.1:8080", "http://127.0.0.1:8080/"));
    assert_false(session_is_origin(&s, "127.0.0.1:8080", "null"));
    assert_false(session_is_origin(&s, "127.0.0.1:8080", ""));
    assert_false(session_is_origin(&s, "127.0.0.1:8080", NULL));
    /* A name that has come to mean us: the two agree, and are lies. */
    assert_false(session_is_origin(&s, "evil.test:8080", "http://evil.test:8080"));
    assert_false(session_is_origin(&s, NULL, "http://127.0.0.1:8080"));
    session_init(&s, 8443, true);
    assert_true(session_is_origin(&s, "127.0.0.1:8443", "https://127.0.0.1:8443"));
    assert_false(session_is_origin(&s, "127.0.0.1:8443", "http://127.0.0.1:8443"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_are_new_and_their_own),
        cmocka_unit_test(test_cookies),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_origins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
