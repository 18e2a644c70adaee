/* Mirrors: what comes in pieces, stays over a restart, is checked, makes room, and a disk that is
 * full. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cache_rig.h"
#include "device/mirror_impl.h"

static struct err_text et;

static const uint64_t sizes[] = {5000, 300000, 1, 65536, 1 << 20, 777};
enum { N = 6 };

struct bench {
    struct folder folder;
    struct fake fake;
    struct cache *cache;
    struct mirror *m;
    struct lines lines;
};

static void reopen(struct bench *b, uint64_t limit)
{
    struct log log = lines_log(&b->lines);

    if (cache_open(b->folder.path, limit, &log, &b->cache, &et) != ERR_NONE)
        fail_msg("%s", et.text);
    if (cache_add(b->cache, b->fake.manifest, &b->m, &et) != ERR_NONE)
        fail_msg("%s", et.text);
}

static void bench_open(struct bench *b)
{
    memset(b, 0, sizeof *b);
    folder_make(&b->folder);
    fake_make(&b->fake, sizes, N, 1);
    reopen(b, 0);
}

static void shut(struct bench *b)
{
    mirror_close(b->m);
    cache_close(b->cache);
}

static void bench_close(struct bench *b)
{
    shut(b);
    fake_free(&b->fake);
    folder_remove(&b->folder);
}

static void path_in(const struct bench *b, const char *name, char *buf, size_t cap)
{
    snprintf(buf, cap, "%.*s/%s", (int)(strrchr(mirror_path(b->m), '/') - mirror_path(b->m)),
             mirror_path(b->m), name);
}

/* Does the mirror give every part it says it has, and only those? */
static void gives_what_it_has(const struct bench *b)
{
    uint8_t *bytes = mem_alloc(1 << 20);

    for (int i = 0; i < N; i++) {
        enum err e = mirror_read(b->m, i, 0, bytes, sizes[i], &et);

        assert_int_equal(e, mirror_has(b->m, i) ? ERR_NONE : ERR_INPUT);
        if (!e)
            assert_memory_equal(bytes, fake_part(&b->fake, i), sizes[i]);
    }
    free(bytes);
}

static void a_full_mirror_is_the_file(void **state)
{
    struct bench b;
    struct mirror *found;
    uint8_t *file, four[4];
    size_t len;
    struct stat st;

    (void)state;
    bench_open(&b);
    assert_int_equal(stat(mirror_path(b.m), &st), 0);
    assert_int_equal(st.st_size, b.fake.manifest->file_bytes);
    assert_true(st.st_blocks < 16); /* sparse */
    for (int i = N; i-- > 0;) {
        assert_false(mirror_has(b.m, i));
        fake_write(&b.fake, b.m, i, 4096);
        gives_what_it_has(&b);
    }
    assert_int_equal(cache_bytes(b.cache), b.fake.manifest->file_bytes);
    file = file_read(mirror_path(b.m), &len);
    assert_int_equal(len, b.fake.manifest->file_bytes);
    assert_memory_equal(file, b.fake.bytes, len);
    free(file);
    assert_int_equal(mirror_read(b.m, 1, 299996, four, 4, &et), ERR_NONE);
    assert_memory_equal(four, fake_part(&b.fake, 1) + 299996, 4);
    assert_int_equal(mirror_read(b.m, 1, 299997, four, 4, &et), ERR_INPUT);
    assert_int_equal(mirror_read(b.m, 1, UINT64_MAX, four, 4, &et), ERR_INPUT);
    assert_int_equal(mirror_read(b.m, N, 0, four, 1, &et), ERR_INPUT);
    assert_int_equal(mirror_read(b.m, -1, 0, four, 1, &et), ERR_INPUT);

    assert_int_equal(cache_find(b.cache, b.fake.manifest->id, &found, &et), ERR_NONE);
    assert_non_null(found);
    assert_true(mirror_has(found, 4));
    mirror_close(found);
    b.fake.manifest->id[31] ^= 1;
    assert_int_equal(cache_find(b.cache, b.fake.manifest->id, &found, &et), ERR_NONE);
    assert_null(found);
    bench_close(&b);
}

/* A child writes and dies without a word; what it wrote is there for the next. */
static void write_and_die(const struct bench *b, int part, size_t bytes)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct cache *c;
        struct mirror *m;
        bool complete;
        enum err e = cache_open(b->folder.path, 0, NULL, &c, &et);

        if (!e)
            e = cache_add(c, b->fake.manifest, &m, &et);
        for (size_t at = 0; at < bytes && !e; at += 1000)
            e = mirror_write(m, part, mirror_received(m, part),
                             fake_part(&b->fake, part) + mirror_received(m, part), 1000, &complete,
                             &et);
        if (e)
            _exit(1);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void what_came_survives_a_kill(void **state)
{
    struct bench b;

    (void)state;
    bench_open(&b);
    fake_write(&b.fake, b.m, 0, 1 << 20);
    shut(&b);
    write_and_die(&b, 4, 100000);
    write_and_die(&b, 4, 50000);
    write_and_die(&b, 1, 7000);
    reopen(&b, 0);
    assert_int_equal(b.lines.n, 0);
    assert_true(mirror_has(b.m, 0));
    assert_int_equal(mirror_received(b.m, 4), 150000);
    assert_int_equal(mirror_received(b.m, 1), 7000);
    assert_int_equal(cache_bytes(b.cache), 5000 + 150000 + 7000);
    /* One goes on by itself, the other in steps. */
    fake_write(&b.fake, b.m, 4, 99991);
    assert_false(mirror_resume(b.m, 1, 3000));
    assert_false(mirror_resume(b.m, 1, 3000));
    assert_true(mirror_resume(b.m, 1, 3000));
    fake_write(&b.fake, b.m, 1, 99991);
    gives_what_it_has(&b);
    bench_close(&b);
}

static void a_byte_that_flipped_while_away_is_found(void **state)
{
    struct bench b;
    bool complete = true;

    (void)state;
    bench_open(&b);
    shut(&b);
    write_and_die(&b, 4, 100000);
    reopen(&b, 0);
    file_flip(mirror_path(b.m), b.fake.manifest->part[4].offset + 31234);
    assert_int_equal(mirror_write(b.m, 4, 100000, fake_part(&b.fake, 4) + 100000, sizes[4] - 100000,
                                  &complete, &et),
                     ERR_PROTO);
    assert_false(complete);
    assert_int_equal(mirror_received(b.m, 4), 0);
    assert_int_equal(cache_bytes(b.cache), 0);
    fake_write(&b.fake, b.m, 4, 1 << 16);
    bench_close(&b);
}

static void a_wrong_last_byte_begins_again(void **state)
{
    struct bench b;
    bool complete;
    uint8_t wrong;

    (void)state;
    bench_open(&b);
    assert_int_equal(mirror_write(b.m, 1, 0, fake_part(&b.fake, 1), sizes[1] - 1, &complete, &et),
                     ERR_NONE);
    assert_false(complete);
    wrong = fake_part(&b.fake, 1)[sizes[1] - 1] ^ 1;
    assert_int_equal(mirror_write(b.m, 1, sizes[1] - 1, &wrong, 1, &complete, &et), ERR_PROTO);
    assert_non_null(strstr(et.text, "part 1"));
    assert_false(complete);
    assert_false(mirror_has(b.m, 1));
    assert_int_equal(mirror_received(b.m, 1), 0);
    assert_int_equal(cache_bytes(b.cache), 0);
    fake_write(&b.fake, b.m, 1, 1000);
    gives_what_it_has(&b);
    bench_close(&b);
}

static void a_flipped_byte_is_found_and_named(void **state)
{
    struct bench b;
    bool good;
    char name[MANIFEST_PART_MAX_SHOWN + 16];

    (void)state;
    bench_open(&b);
    for (int i = 0; i < N; i++)
        fake_write(&b.fake, b.m, i, 1 << 16);
    shut(&b);
    reopen(&b, 0);
    file_flip(mirror_path(b.m), b.fake.manifest->part[3].offset + 65535);
    for (int i = 0; i < N; i++) {
        assert_int_equal(mirror_check(b.m, i, &good, &et), ERR_NONE);
        assert_int_equal(good, i != 3);
        assert_int_equal(mirror_has(b.m, i), i != 3);
        manifest_part_name(mirror_manifest(b.m), NULL, i, name);
        assert_int_equal(strcmp(name, "part 3") == 0, !good);
    }
    gives_what_it_has(&b);
    fake_write(&b.fake, b.m, 3, 1 << 16);
    assert_int_equal(mirror_check(b.m, 3, &good, &et), ERR_NONE);
    assert_true(good);
    shut(&b);
    reopen(&b, 0);
    assert_true(mirror_has(b.m, 3));
    bench_close(&b);
}

/* Damage to the files between two processes: never believed, never fatal. */
static void damaged_files_are_begun_again(void **state)
{
    struct bench b;
    char path[256], manifest[256];
    uint8_t big[STATE_RECORD_BYTES];

    (void)state;
    bench_open(&b);
    for (int i = 0; i < N; i++)
        fake_write(&b.fake, b.m, i, 1 << 16);
    /* One record says more than there can be. */
    path_in(&b, "state", path, sizeof path);
    shut(&b);
    state_encode(&(struct part_state){.received = 5001, .checked = true}, big);
    {
        FILE *f = fopen(path, "r+b");

        assert_non_null(f);
        assert_int_equal(fwrite(big, 1, sizeof big, f), sizeof big);
        fclose(f);
    }
    b.lines.wanted = "1 of 6 parts";
    reopen(&b, 0);
    assert_int_equal(b.lines.n_wanted, 1);
    assert_false(mirror_has(b.m, 0));
    assert_int_equal(mirror_received(b.m, 0), 0);
    assert_true(mirror_has(b.m, 1));
    shut(&b);

    assert_int_equal(truncate(path, 40), 0);
    reopen(&b, 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(mirror_received(b.m, i), 0);
    assert_int_equal(cache_bytes(b.cache), 0);
    fake_write(&b.fake, b.m, 1, 1 << 16);

    /* The model's file is gone, then of another size: the state speaks of nothing. */
    path_in(&b, "model.gguf", path, sizeof path);
    path_in(&b, "manifest", manifest, sizeof manifest);
    shut(&b);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(i ? truncate(path, 1000) : unlink(path), 0);
        reopen(&b, 0);
        assert_int_equal(mirror_received(b.m, 1), 0);
        assert_int_equal(cache_bytes(b.cache), 0);
        shut(&b);
        reopen(&b, 0); /* and goes on saying so */
        assert_int_equal(mirror_received(b.m, 1), 0);
        fake_write(&b.fake, b.m, 1, 1 << 16);
        shut(&b);
    }

    /* Without a manifest the folder is of no use. */
    file_flip(manifest, 20);
    b.lines = (struct lines){.wanted = "no good manifest"};
    reopen(&b, 0);
    assert_int_equal(b.lines.n_wanted, 1);
    assert_int_equal(cache_bytes(b.cache), 0);
    fake_write(&b.fake, b.m, 1, 1 << 16);
    bench_close(&b);
}

static void one_process_at_a_time(void **state)
{
    struct bench b;
    struct cache *second;

    (void)state;
    bench_open(&b);
    assert_int_equal(cache_open(b.folder.path, 0, NULL, &second, &et), ERR_FILE);
    assert_non_null(strstr(et.text, "another lingua"));
    assert_null(second);
    shut(&b);
    reopen(&b, 0);
    bench_close(&b);
}

/* ---- room ---- */

/* The time of last use, as an earlier process wrote it. */
static void set_used(const char *state, int part, uint64_t used)
{
    FILE *f = fopen(state, "r+b");
    uint8_t bytes[8];

    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(used >> 8 * i);
    assert_int_equal(fseek(f, part * STATE_RECORD_BYTES + 8, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, 8, f), 8);
    fclose(f);
}

static void the_longest_unused_makes_room(void **state)
{
    static const uint64_t ages[N] = {600, 100, 400, 300, 200, 500};
    static const uint64_t small[] = {100, 2000};
    struct bench b;
    struct fake other;
    struct mirror *m;
    char path[300], gone[256];
    uint8_t need[N] = {0}, *file;
    struct stat before, after;
    size_t len;
    uint64_t all;

    (void)state;
    bench_open(&b);
    fake_make(&other, small, 2, 9);
    all = b.fake.manifest->file_bytes + 2100;
    for (int i = 0; i < N; i++)
        fake_write(&b.fake, b.m, i, 1 << 16);
    assert_int_equal(cache_add(b.cache, other.manifest, &m, &et), ERR_NONE);
    fake_write(&other, m, 0, 1 << 16);
    fake_write(&other, m, 1, 1 << 16);
    snprintf(gone, sizeof gone, "%.*s", (int)(strrchr(mirror_path(m), '/') - mirror_path(m)),
             mirror_path(m));
    mirror_close(m);
    path_in(&b, "state", path, sizeof path);
    shut(&b);
    for (int i = 0; i < N; i++)
        set_used(path, i, ages[i]);
    snprintf(path, sizeof path, "%s/state", gone);
    set_used(path, 0, 50);
    set_used(path, 1, 150);

    reopen(&b, all);
    assert_int_equal(cache_bytes(b.cache), all);
    assert_int_equal(cache_make_room(b.cache, 0, NULL, NULL, &et), ERR_NONE);
    assert_int_equal(cache_bytes(b.cache), all);
    /* One byte: the other model's header goes, as it is the oldest. */
    assert_int_equal(cache_make_room(b.cache, 1, NULL, NULL, &et), ERR_NONE);
    assert_int_equal(cache_bytes(b.cache), all - 100);
    /* 250000: part 1 (100), which frees 300000. */
    assert_int_equal(stat(mirror_path(b.m), &before), 0);
    assert_int_equal(cache_make_room(b.cache, 250000, NULL, NULL, &et), ERR_NONE);
    assert_int_equal(cache_bytes(b.cache), all - 300100);
    assert_false(mirror_has(b.m, 1));
    assert_int_equal(stat(mirror_path(b.m), &after), 0);
    assert_true((before.st_blocks - after.st_blocks) * 512 >= 280000); /* the disk has it back */
    assert_int_equal(after.st_size, before.st_size);
    assert_int_equal(stat(gone, &after), 0);
    /* The next is the rest of the other model, and with it its folder; then part 4, but it is kept.
     */
    need[4] = 1;
    assert_int_equal(cache_make_room(b.cache, 302101, b.m, need, &et), ERR_NONE);
    assert_int_equal(stat(gone, &after), -1);
    assert_true(mirror_has(b.m, 4));
    assert_false(mirror_has(b.m, 3));
    assert_true(mirror_has(b.m, 2) && mirror_has(b.m, 5) && mirror_has(b.m, 0));
    gives_what_it_has(&b);
    /* What is left is as it was. */
    file = file_read(mirror_path(b.m), &len);
    for (int i = 0; i < N; i++)
        if (mirror_has(b.m, i))
            assert_memory_equal(file + b.fake.manifest->part[i].offset, fake_part(&b.fake, i),
                                sizes[i]);
    free(file);
    /* More than can be had: nothing goes for nothing. */
    all = cache_bytes(b.cache);
    assert_int_equal(cache_make_room(b.cache, b.fake.manifest->file_bytes, b.m, need, &et),
                     ERR_LIMIT);
    assert_non_null(strstr(et.text, "1 MiB"));
    assert_int_equal(cache_bytes(b.cache), all);
    /* What a handle holds stays, too. */
    mirror_hold(b.m, (const uint8_t[N]){1, 0, 1, 0, 1, 1});
    assert_int_equal(cache_make_room(b.cache, 400000, NULL, NULL, &et), ERR_LIMIT);
    assert_int_equal(cache_bytes(b.cache), all);
    fake_free(&other);
    bench_close(&b);
}

static void use_is_remembered(void **state)
{
    struct bench b;
    char path[256];

    (void)state;
    bench_open(&b);
    fake_write(&b.fake, b.m, 0, 1 << 16);
    fake_write(&b.fake, b.m, 3, 1 << 16);
    path_in(&b, "state", path, sizeof path);
    shut(&b);
    set_used(path, 0, 100);
    set_used(path, 3, 200);
    reopen(&b, 0);
    mirror_use(b.m, 0);
    shut(&b);
    reopen(&b, 5000 + 65536);
    assert_int_equal(cache_make_room(b.cache, 1, NULL, NULL, &et), ERR_NONE);
    assert_true(mirror_has(b.m, 0));
    assert_false(mirror_has(b.m, 3));
    shut(&b);
    /* A time that is still to come counts as now. */
    set_used(path, 0, UINT64_MAX);
    reopen(&b, 0);
    assert_true(mirror_has(b.m, 0));
    bench_close(&b);
}

static void a_full_disk_says_so(void **state)
{
    static const uint64_t big[] = {4096, 8 << 20, 8 << 20};
    struct bench b;
    struct rlimit limit = {0}, before;
    bool complete, mounted;
    enum err e = ERR_NONE;
    uint64_t was;
    uint8_t *bytes;

    (void)state;
    memset(&b, 0, sizeof b);
    folder_make(&b.folder);
    fake_make(&b.fake, big, 3, 3);
    mounted = mount("tmpfs", b.folder.path, "tmpfs", 0, "size=10m") == 0;
    reopen(&b, 0);
    fake_write(&b.fake, b.m, 0, 4096);
    if (mounted) { /* said before anything is fetched */
        assert_int_equal(cache_make_room(b.cache, 16 << 20, b.m, NULL, &et), ERR_FILE);
        assert_non_null(strstr(et.text, b.folder.path));
        assert_non_null(strstr(et.text, "is full: 7 MiB more are needed"));
        assert_non_null(strstr(et.text, "--cache"));
        assert_true(mirror_has(b.m, 0));
        assert_int_equal(cache_make_room(b.cache, 9 << 20, b.m, NULL, &et), ERR_NONE);
    } else {
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
        limit = (struct rlimit){10 << 20, before.rlim_max};
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    }
    fake_write(&b.fake, b.m, 1, 1 << 20);
    while (!e && mirror_received(b.m, 2) < big[2])
        e = mirror_write(b.m, 2, mirror_received(b.m, 2),
                         fake_part(&b.fake, 2) + mirror_received(b.m, 2), 1 << 16, &complete, &et);
    assert_int_equal(e, ERR_FILE);
    assert_non_null(strstr(et.text, "is full"));
    assert_non_null(strstr(et.text, "--cache"));
    was = mirror_received(b.m, 2);
    assert_in_range(was, 1 << 20, 2 << 20);
    assert_true(mirror_has(b.m, 1)); /* the rest goes on */
    bytes = mem_alloc(big[1]);
    assert_int_equal(mirror_read(b.m, 1, 0, bytes, big[1], &et), ERR_NONE);
    assert_memory_equal(bytes, fake_part(&b.fake, 1), big[1]);
    free(bytes);
    /* Room again: it goes on where it was. */
    if (mounted)
        assert_int_equal(mount(NULL, b.folder.path, "tmpfs", MS_REMOUNT, "size=40m"), 0);
    else
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(mirror_received(b.m, 2), was);
    fake_write(&b.fake, b.m, 2, 1 << 20);
    shut(&b);
    if (mounted)
        assert_int_equal(umount(b.folder.path), 0);
    fake_free(&b.fake);
    folder_remove(&b.folder);
}

static void folders_that_cannot_be_are_named(void **state)
{
    struct folder f = {""};
    struct cache *c;
    char path[128];

    (void)state;
    folder_make(&f);
    snprintf(path, sizeof path, "%s/a/b/c", f.path);
    assert_int_equal(cache_open(path, 0, NULL, &c, &et), ERR_NONE);
    cache_close(c);
    snprintf(path, sizeof path, "%s/file", f.path);
    file_write(path, "x", 1);
    snprintf(path, sizeof path, "%s/file/b", f.path);
    assert_int_equal(cache_open(path, 0, NULL, &c, &et), ERR_FILE);
    assert_non_null(strstr(et.text, path));
    assert_null(c);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_mirror_is_the_file),
        cmocka_unit_test(what_came_survives_a_kill),
        cmocka_unit_test(a_byte_that_flipped_while_away_is_found),
        cmocka_unit_test(a_wrong_last_byte_begins_again),
        cmocka_unit_test(a_flipped_byte_is_found_and_named),
        cmocka_unit_test(damaged_files_are_begun_again),
        cmocka_unit_test(one_process_at_a_time),
        cmocka_unit_test(the_longest_unused_makes_room),
        cmocka_unit_test(use_is_remembered),
        cmocka_unit_test(a_full_disk_says_so),
        cmocka_unit_test(folders_that_cannot_be_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
