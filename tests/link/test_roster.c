/* Who belongs to the cluster, on the head and on its members. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "link/roster.h"

static struct err_text et;

struct cluster {
    char *head_folder, *member_folder;
    struct identity *head, *one, *two;
    struct roster *r, *m; /* the head's, a member's */
};

static int set_up(void **state)
{
    struct cluster *c = calloc(1, sizeof *c);

    c->head_folder = folder_new();
    c->member_folder = folder_new();
    c->head = identity_new();
    c->one = identity_new();
    c->two = identity_new();
    assert_int_equal(roster_open_head(c->head_folder, c->head, "desk", &c->r, &et), ERR_NONE);
    assert_int_equal(roster_open_member(c->member_folder, identity_key(c->head), &c->m, &et),
                     ERR_NONE);
    *state = c;
    return 0;
}

static int tear_down(void **state)
{
    struct cluster *c = *state;

    roster_close(c->r);
    roster_close(c->m);
    identity_close(c->head);
    identity_close(c->one);
    identity_close(c->two);
    folder_remove(c->head_folder);
    folder_remove(c->member_folder);
    free(c);
    return 0;
}

static void again(struct cluster *c)
{
    roster_close(c->r);
    assert_int_equal(roster_open_head(c->head_folder, c->head, "desk", &c->r, &et), ERR_NONE);
}

static enum err member_again(struct cluster *c)
{
    roster_close(c->m);
    c->m = NULL;
    return roster_open_member(c->member_folder, identity_key(c->head), &c->m, &et);
}

static enum err pass_on(struct cluster *c)
{
    struct wire_roster w = roster_signed(c->r);

    return roster_take(c->m, &w, identity_certificate(c->head), &et);
}

static void begins_with_the_head(void **state)
{
    struct cluster *c = *state;
    struct stat st;

    assert_int_equal(roster_version(c->r), 1);
    assert_int_equal(roster_body(c->r)->n, 1);
    assert_string_equal(roster_find(c->r, identity_key(c->head))->name, "desk");
    assert_null(roster_find(c->r, identity_key(c->one)));
    assert_int_equal(roster_version(c->m), 0);
    assert_null(roster_find(c->m, identity_key(c->head)));
    assert_int_equal(stat(folder_path(c->head_folder, "roster"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void grows_and_persists(void **state)
{
    struct cluster *c = *state;
    char name[WIRE_NAME_MAX];

    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", name, &et), ERR_NONE);
    assert_string_equal(name, "phone");
    assert_int_equal(roster_add(c->r, identity_key(c->two), "phone", name, &et), ERR_NONE);
    assert_string_equal(name, "phone-2");
    /* The same key again keeps its place and its name, or gets a new one. */
    assert_int_equal(roster_add(c->r, identity_key(c->two), "phone-2", name, &et), ERR_NONE);
    assert_string_equal(name, "phone-2");
    assert_int_equal(roster_add(c->r, identity_key(c->one), "tablet", NULL, &et), ERR_NONE);
    assert_int_equal(roster_body(c->r)->n, 3);
    assert_int_equal(roster_mine(c->r, "tablet", true, &et), ERR_NONE);
    assert_int_equal(roster_version(c->r), 6);
    again(c);
    assert_int_equal(roster_version(c->r), 6);
    assert_string_equal(roster_find(c->r, identity_key(c->one))->name, "tablet");
    assert_true(roster_named(c->r, "tablet")->mine);
    assert_false(roster_named(c->r, "phone-2")->mine);
    assert_int_equal(roster_mine(c->r, "tablet", true, &et), ERR_NONE); /* it is already */
    assert_int_equal(roster_version(c->r), 6);
    assert_int_equal(roster_mine(c->r, "tablet", false, &et), ERR_NONE);
    assert_int_equal(roster_version(c->r), 7);
}

static void odd_names(void **state)
{
    struct cluster *c = *state;
    char name[WIRE_NAME_MAX], lengthy[WIRE_NAME_MAX] = "";

    assert_int_equal(roster_add(c->r, identity_key(c->one), "", name, &et), ERR_NONE);
    assert_string_equal(name, "device");
    for (int i = 0; i < 31; i++)
        strcat(lengthy, "\xc3\xa9"); /* 62 bytes of e-acute */
    assert_int_equal(roster_add(c->r, identity_key(c->one), lengthy, name, &et), ERR_NONE);
    assert_string_equal(name, lengthy);
    assert_int_equal(roster_add(c->r, identity_key(c->two), lengthy, name, &et), ERR_NONE);
    assert_int_equal(strlen(name), 62);
    assert_string_equal(name + 60, "-2");
    assert_memory_equal(name, lengthy, 60);
    again(c);
    assert_non_null(roster_named(c->r, name));
}

static void a_head_may_be_renamed(void **state)
{
    struct cluster *c = *state;

    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", NULL, &et), ERR_NONE);
    roster_close(c->r);
    assert_int_equal(roster_open_head(c->head_folder, c->head, "phone", &c->r, &et), ERR_NONE);
    assert_string_equal(roster_find(c->r, identity_key(c->head))->name, "phone-2");
    assert_int_equal(roster_version(c->r), 3);
    roster_close(c->r);
    assert_int_equal(roster_open_head(c->head_folder, c->head, "phone", &c->r, &et), ERR_NONE);
    assert_int_equal(roster_version(c->r), 3);
}

static void is_limited(void **state)
{
    struct cluster *c = *state;
    struct key_id key = {{0}};
    char name[16];

    for (int i = 1; i < WIRE_MEMBERS_MAX; i++) {
        key.bytes[0] = (uint8_t)i;
        snprintf(name, sizeof name, "d%d", i);
        assert_int_equal(roster_add(c->r, &key, name, NULL, &et), ERR_NONE);
    }
    assert_int_equal(roster_add(c->r, identity_key(c->one), "late", NULL, &et), ERR_LIMIT);
    assert_int_equal(roster_version(c->r), WIRE_MEMBERS_MAX);
    assert_int_equal(roster_add(c->r, &key, "renamed", NULL, &et), ERR_NONE);
    assert_int_equal(pass_on(c), ERR_NONE);
    assert_int_equal(roster_body(c->m)->n, WIRE_MEMBERS_MAX);
}

static void revokes(void **state)
{
    struct cluster *c = *state;
    struct key_id key;

    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", NULL, &et), ERR_NONE);
    assert_int_equal(roster_add(c->r, identity_key(c->two), "pi", NULL, &et), ERR_NONE);
    assert_int_equal(roster_revoke(c->r, "nobody", &key, &et), ERR_INPUT);
    assert_int_equal(roster_revoke(c->r, "desk", &key, &et), ERR_INPUT);
    assert_int_equal(roster_version(c->r), 3);
    assert_int_equal(roster_revoke(c->r, "phone", &key, &et), ERR_NONE);
    assert_true(key_id_equal(&key, identity_key(c->one)));
    assert_null(roster_find(c->r, identity_key(c->one)));
    assert_non_null(roster_find(c->r, identity_key(c->two)));
    again(c);
    assert_null(roster_find(c->r, identity_key(c->one)));
    assert_int_equal(roster_version(c->r), 4);
}

/* When the disk refuses, the head goes on with what it had. */
static void nothing_changes_on_error(void **state)
{
    struct cluster *c = *state;
    struct wire_roster before = roster_signed(c->r);
    uint8_t copy[WIRE_ROSTER_BODY_MAX];
    char name[WIRE_NAME_MAX] = "untouched";

    memcpy(copy, before.body, before.body_len);
    /* A folder where the temporary file should be: not even root can write that. */
    assert_int_equal(mkdir(folder_path(c->head_folder, "roster.new"), 0700), 0);
    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", name, &et), ERR_FILE);
    assert_string_equal(name, "untouched");
    assert_int_equal(roster_version(c->r), 1);
    assert_null(roster_find(c->r, identity_key(c->one)));
    assert_int_equal(roster_signed(c->r).body_len, before.body_len);
    assert_memory_equal(roster_signed(c->r).body, copy, before.body_len);
    assert_int_equal(rmdir(folder_path(c->head_folder, "roster.new")), 0);
    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", name, &et), ERR_NONE);
    assert_int_equal(roster_version(c->r), 2);
}

static void a_member_takes_and_keeps(void **state)
{
    struct cluster *c = *state;

    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", NULL, &et), ERR_NONE);
    assert_int_equal(pass_on(c), ERR_NONE);
    assert_int_equal(pass_on(c), ERR_NONE); /* the same again is fine */
    assert_int_equal(roster_version(c->m), 2);
    assert_non_null(roster_find(c->m, identity_key(c->one)));
    assert_int_equal(member_again(c), ERR_NONE);
    assert_int_equal(roster_version(c->m), 2);
    assert_non_null(roster_named(c->m, "phone"));
    assert_non_null(roster_named(c->m, "desk"));
}

/* The point of versions: an old roster, replayed, does not bring a revoked device back. */
static void old_ones_are_refused(void **state)
{
    struct cluster *c = *state;
    struct wire_roster w;
    uint8_t body[WIRE_ROSTER_BODY_MAX], signature[SIGNATURE_BYTES];
    struct key_id key;

    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", NULL, &et), ERR_NONE);
    w = roster_signed(c->r);
    memcpy(body, w.body, w.body_len);
    memcpy(signature, w.signature, sizeof signature);
    w.body = body;
    w.signature = signature;
    assert_int_equal(pass_on(c), ERR_NONE);
    assert_int_equal(roster_revoke(c->r, "phone", &key, &et), ERR_NONE);
    assert_int_equal(pass_on(c), ERR_NONE);
    for (int restarted = 0; restarted < 2; restarted++) {
        assert_int_equal(roster_take(c->m, &w, identity_certificate(c->head), &et), ERR_PROTO);
        assert_non_null(strstr(et.text, "older"));
        assert_int_equal(roster_version(c->m), 3);
        assert_null(roster_find(c->m, identity_key(c->one)));
        assert_int_equal(member_again(c), ERR_NONE);
    }
}

static void strangers_cannot_sign(void **state)
{
    struct cluster *c = *state;
    struct wire_roster w = roster_signed(c->r);
    struct wire_roster_body body = *roster_body(c->r);
    uint8_t bytes[WIRE_ROSTER_BODY_MAX], signature[SIGNATURE_BYTES];
    size_t len;

    /* Our head's words by another's link; another's words under our head's name. */
    assert_int_equal(roster_take(c->m, &w, identity_certificate(c->one), &et), ERR_PROTO);
    body.version = 9;
    len = wire_roster_body_encode(&body, bytes);
    identity_sign(c->one, bytes, len, signature);
    w = (struct wire_roster){bytes, signature, len, sizeof signature};
    assert_int_equal(roster_take(c->m, &w, identity_certificate(c->one), &et), ERR_PROTO);
    assert_int_equal(roster_take(c->m, &w, identity_certificate(c->head), &et), ERR_PROTO);
    /* Our head's signature on another cluster's roster. */
    memcpy(body.head, identity_key(c->one)->bytes, WIRE_KEY_BYTES);
    len = wire_roster_body_encode(&body, bytes);
    identity_sign(c->head, bytes, len, signature);
    w = (struct wire_roster){bytes, signature, len, sizeof signature};
    assert_int_equal(roster_take(c->m, &w, identity_certificate(c->head), &et), ERR_PROTO);
    assert_int_equal(roster_version(c->m), 0);
}

static void damaged_words_are_refused(void **state)
{
    struct cluster *c = *state;
    struct wire_roster w = roster_signed(c->r);
    uint8_t body[WIRE_ROSTER_BODY_MAX], signature[SIGNATURE_BYTES];

    memcpy(body, w.body, w.body_len);
    memcpy(signature, w.signature, sizeof signature);
    w.body = body;
    w.signature = signature;
    for (size_t i = 0; i < w.body_len; i++) {
        body[i] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(roster_take(c->m, &w, identity_certificate(c->head), &et), ERR_PROTO);
        body[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t n = 0; n < w.body_len; n++) {
        struct wire_roster cut = w;

        cut.body_len = n;
        assert_int_equal(roster_take(c->m, &cut, identity_certificate(c->head), &et), ERR_PROTO);
    }
    w.signature_len = 63;
    assert_int_equal(roster_take(c->m, &w, identity_certificate(c->head), &et), ERR_PROTO);
    w.signature_len = 64;
    assert_int_equal(roster_version(c->m), 0);
    assert_int_equal(roster_take(c->m, &w, identity_certificate(c->head), &et), ERR_NONE);
}

/* A full disk: the new roster still counts, for safety's sake, and the error is told. */
static void counts_even_when_it_cannot_be_kept(void **state)
{
    struct cluster *c = *state;

    assert_int_equal(mkdir(folder_path(c->member_folder, "roster.new"), 0700), 0);
    assert_int_equal(pass_on(c), ERR_FILE);
    assert_int_equal(roster_version(c->m), 1);
    assert_int_equal(rmdir(folder_path(c->member_folder, "roster.new")), 0);
}

static void damaged_files_are_refused(void **state)
{
    struct cluster *c = *state;
    struct roster *r = NULL;
    uint8_t *bytes;
    size_t len;

    assert_int_equal(roster_add(c->r, identity_key(c->one), "phone", NULL, &et), ERR_NONE);
    assert_int_equal(pass_on(c), ERR_NONE);
    bytes = folder_read(c->member_folder, "roster", &len);
    for (size_t n = 0; n < len; n++) {
        folder_write(c->member_folder, "roster", bytes, n);
        assert_int_equal(member_again(c), ERR_INPUT);
        assert_non_null(strstr(et.text, "remove it"));
    }
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        folder_write(c->member_folder, "roster", bytes, len);
        assert_int_equal(member_again(c), ERR_INPUT);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    bytes[len] = 0;
    folder_write(c->member_folder, "roster", bytes, len + 1);
    assert_int_equal(member_again(c), ERR_INPUT);
    folder_write(c->member_folder, "roster", bytes, len);
    assert_int_equal(chmod(folder_path(c->member_folder, "roster"), 0644), 0);
    assert_int_equal(member_again(c), ERR_INPUT);
    assert_int_equal(chmod(folder_path(c->member_folder, "roster"), 0600), 0);
    /* Another head's, by someone who swapped files. */
    assert_int_equal(roster_open_member(c->member_folder, identity_key(c->two), &r, &et),
                     ERR_INPUT);
    assert_int_equal(roster_open_head(c->member_folder, c->two, "x", &r, &et), ERR_INPUT);
    assert_non_null(strstr(et.text, "pair every device again"));
    assert_null(r);
    assert_int_equal(member_again(c), ERR_NONE);
    assert_int_equal(roster_version(c->m), 2);
    free(bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(begins_with_the_head),
        TEST(grows_and_persists),
        TEST(odd_names),
        TEST(a_head_may_be_renamed),
        TEST(is_limited),
        TEST(revokes),
        TEST(nothing_changes_on_error),
        TEST(a_member_takes_and_keeps),
        TEST(old_ones_are_refused),
        TEST(strangers_cannot_sign),
        TEST(damaged_words_are_refused),
        TEST(counts_even_when_it_cannot_be_kept),
        TEST(damaged_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
