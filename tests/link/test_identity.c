/* The key and its file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "folder.h"
#include "link/identity.h"

static struct err_text et;

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void signs_and_verifies(void **state)
{
    struct identity *a = identity_new(), *b = identity_new();
    uint8_t signature[SIGNATURE_BYTES];
    const char words[] = "these words";

    identity_sign(a, words, sizeof words, signature);
    assert_true(
        identity_verify(identity_certificate(a), words, sizeof words, signature, sizeof signature));
    assert_false(
        identity_verify(identity_certificate(b), words, sizeof words, signature, sizeof signature));
    assert_false(identity_verify(identity_certificate(a), words, sizeof words - 1, signature,
                                 sizeof signature));
    assert_false(identity_verify(identity_certificate(a), words, sizeof words, signature,
                                 sizeof signature - 1));
    for (size_t i = 0; i < sizeof signature; i++) {
        signature[i] ^= 4;
        assert_false(identity_verify(identity_certificate(a), words, sizeof words, signature,
                                     sizeof signature));
        signature[i] ^= 4;
    }
    identity_close(a);
    identity_close(b);
    identity_close(NULL);
}

static void is_known_by_its_certificate(void **state)
{
    struct identity *a = identity_new(), *b = identity_new();
    X509 *x = identity_certificate(a);
    struct key_id id;
    uint8_t *der = NULL, digest[KEY_ID_BYTES];
    int len = i2d_X509(x, &der);
    char text[KEY_ID_TEXT_MAX];

    assert_int_equal(EVP_Digest(der, (size_t)len, digest, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(identity_key(a)->bytes, digest, KEY_ID_BYTES);
    key_id_of(x, &id);
    assert_true(key_id_equal(&id, identity_key(a)));
    assert_false(key_id_equal(&id, identity_key(b)));
    assert_int_equal(EVP_PKEY_get_id(identity_private_key(a)), EVP_PKEY_ED25519);
    assert_int_equal(X509_verify(x, identity_private_key(a)), 1);
    memcpy(id.bytes, "\x3f\x9a\x0c\x41\x00\xff\x10\x01\x77", 9);
    assert_string_equal(key_id_short(&id, text), "3f9a:0c41:00ff:1001");
    OPENSSL_free(der);
    identity_close(a);
    identity_close(b);
}

static void is_kept(void **state)
{
    char *top = folder_new(), folder[512];
    struct identity *a, *b;

    strcpy(folder, folder_path(top, "x/state"));
    assert_int_equal(identity_open(folder, &a, &et), ERR_NONE);
    assert_int_equal(mode_of(folder), 0700);
    assert_int_equal(mode_of(folder_path(folder, "identity.pem")), 0600);
    assert_int_equal(identity_open(folder, &b, &et), ERR_NONE);
    assert_true(key_id_equal(identity_key(a), identity_key(b)));
    identity_close(a);
    identity_close(b);
    assert_int_equal(access(folder_path(folder, "identity.pem.new"), F_OK), -1);
    assert_int_equal(unlink(folder_path(folder, "identity.pem")), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(rmdir(folder_path(top, "x")), 0);
    folder_remove(top);
}

/* A wide umask makes no wide file, and what a power cut left behind is no obstacle. */
static void is_private_whatever_the_umask(void **state)
{
    char *folder = folder_new();
    struct identity *a;
    mode_t old = umask(0);

    folder_write(folder, "identity.pem.new", "half a k", 8);
    assert_int_equal(identity_open(folder, &a, &et), ERR_NONE);
    umask(old);
    assert_int_equal(mode_of(folder_path(folder, "identity.pem")), 0600);
    identity_close(a);
    folder_remove(folder);
}

static void refuse(const char *folder, enum err expected, const char *words)
{
    struct identity *id = (void *)1;

    assert_int_equal(identity_open(folder, &id, &et), expected);
    assert_null(id);
    if (!strstr(et.text, words))
        fail_msg("\"%s\" does not say \"%s\"", et.text, words);
}

static void is_refused_when_others_may_read_it(void **state)
{
    static const mode_t wide[] = {0640, 0604, 0620, 0601, 0644, 0666};
    char *folder = folder_new();
    struct identity *a;

    assert_int_equal(identity_open(folder, &a, &et), ERR_NONE);
    identity_close(a);
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        assert_int_equal(chmod(folder_path(folder, "identity.pem"), wide[i]), 0);
        refuse(folder, ERR_INPUT, "chmod 600");
    }
    assert_int_equal(chmod(folder_path(folder, "identity.pem"), 0600), 0);
    assert_int_equal(chmod(folder, 0777), 0);
    refuse(folder, ERR_INPUT, "chmod go-w");
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(identity_open(folder, &a, &et), ERR_NONE);
    identity_close(a);
    folder_remove(folder);
}

static void is_refused_when_damaged(void **state)
{
    char *folder = folder_new();
    struct identity *a, *b;
    uint8_t *bytes, *second;
    size_t len, second_len;
    char *certificate, big[17 << 10];

    assert_int_equal(identity_open(folder, &a, &et), ERR_NONE);
    bytes = folder_read(folder, "identity.pem", &len);
    for (size_t n = 0; n < len - 1; n += 7) { /* the last newline may go */
        folder_write(folder, "identity.pem", bytes, n);
        refuse(folder, ERR_INPUT, "identity.pem");
    }
    /* The key of one and the certificate of another. */
    assert_int_equal(unlink(folder_path(folder, "identity.pem")), 0);
    assert_int_equal(identity_open(folder, &b, &et), ERR_NONE);
    second = folder_read(folder, "identity.pem", &second_len);
    second[second_len] = '\0';
    certificate = strstr((char *)second, "-----BEGIN CERTIFICATE");
    assert_non_null(certificate);
    bytes[len] = '\0';
    strcpy(strstr((char *)bytes, "-----BEGIN CERTIFICATE"), certificate);
    folder_write(folder, "identity.pem", bytes, strlen((char *)bytes));
    refuse(folder, ERR_INPUT, "identity.pem");
    memset(big, 'x', sizeof big);
    folder_write(folder, "identity.pem", big, sizeof big);
    refuse(folder, ERR_INPUT, "too large");
    assert_int_equal(unlink(folder_path(folder, "identity.pem")), 0);
    assert_int_equal(symlink("/dev/null", folder_path(folder, "identity.pem")), 0);
    refuse(folder, ERR_FILE, "identity.pem");
    free(bytes);
    free(second);
    identity_close(a);
    identity_close(b);
    folder_remove(folder);
}

static void needs_a_folder(void **state)
{
    refuse("/proc/no/such", ERR_FILE, "/proc/no/such");
    refuse("/dev/null", ERR_FILE, "/dev/null");
}

/* Of several that start for the first time at once, all end up with one key. */
static void is_one_for_all_who_start(void **state)
{
    enum { N = 6 };
    char *folder = folder_new();
    struct identity *id;
    int pipes[2];
    uint8_t keys[N][KEY_ID_BYTES];

    assert_int_equal(pipe(pipes), 0);
    for (int i = 0; i < N; i++)
        if (fork() == 0) {
            if (identity_open(folder, &id, &et) ||
                write(pipes[1], identity_key(id)->bytes, KEY_ID_BYTES) != KEY_ID_BYTES)
                _exit(1);
            _exit(0);
        }
    for (int i = 0; i < N; i++) {
        int status;

        wait(&status);
        assert_int_equal(status, 0);
        assert_int_equal(read(pipes[0], keys[i], KEY_ID_BYTES), KEY_ID_BYTES);
        assert_memory_equal(keys[i], keys[0], KEY_ID_BYTES);
    }
    close(pipes[0]);
    close(pipes[1]);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signs_and_verifies),
        cmocka_unit_test(is_known_by_its_certificate),
        cmocka_unit_test(is_kept),
        cmocka_unit_test(is_private_whatever_the_umask),
        cmocka_unit_test(is_refused_when_others_may_read_it),
        cmocka_unit_test(is_refused_when_damaged),
        cmocka_unit_test(needs_a_folder),
        cmocka_unit_test(is_one_for_all_who_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
