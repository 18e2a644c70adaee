/* The last answer as a timeline, from hand-made records: what counts where, and what a device that
 * lies can do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "head/timeline.h"

enum { START = 5000000, LINE_US = 1000 };

/* Head, device 1, head: as a plan of two devices is. */
static struct answer_log *log_new(void)
{
    struct answer_log *l = answer_log_new(3, START, 9);

    l->started_us = START + 100;
    l->first_us = START + 1500;
    l->ended_us = START + 3000;
    l->n_tokens = 2;
    l->plan = (struct plan){
        .epoch = 4, .n_devices = 2, .n_stages = 3, .stage = {{0, 0, 3}, {1, 3, 6}, {0, 6, 7}}};
    return l;
}

static void sent(struct answer_log *l, uint32_t epoch, uint64_t number, int64_t from, int64_t to)
{
    answer_log_sent(l, &(struct answer_step){
                           .number = number, .epoch = epoch, .rows = 1, .sent_us = START + from});
    if (to)
        answer_log_home(l, epoch, number, START + to);
}

static bool take(struct timeline_in *in, uint64_t number, uint64_t stage, int64_t arrived,
                 int64_t begun, int64_t ended, int64_t left)
{
    const struct wire_trace_record r = {.number = number,
                                        .stage = stage,
                                        .rows = 1,
                                        .arrived_us = (uint64_t)(START + arrived),
                                        .begun_us = (uint64_t)(START + begun),
                                        .ended_us = (uint64_t)(START + ended),
                                        .sent_us = (uint64_t)(START + left)};

    return timeline_take(in, stage == 1, 0, &r);
}

static void near(double a, double b)
{
    assert_true(a - b < 1e-6 && b - a < 1e-6);
}

/* The sums hold whatever went in. */
static void adds_up(const struct timeline_in *in, const struct timeline *t)
{
    const struct timeline_parts *parts[] = {&t->all, &t->first, &t->rest};

    for (int i = 0; i < 3; i++) {
        const struct timeline_parts *p = parts[i];
        double sum = p->queue + p->head + p->other + p->wire[in->n_stages];

        for (int s = 0; s < in->n_stages; s++)
            sum += p->compute[s] + p->wait[s] + p->wire[s];
        near(sum, p->total);
    }
    near(t->all.total, (double)(in->ended_us - in->begun_us));
    near(t->first.total + t->rest.total, t->all.total);
    for (int i = 0; i < t->n_spans; i++) {
        const struct timeline_span *s = &t->spans[i];

        assert_true(s->start_us >= 0 && s->start_us < s->end_us &&
                    s->end_us <= in->ended_us - in->begun_us);
        assert_true(s->lane >= 0 && s->lane <= in->n_stages);
        assert_true(i == 0 || t->spans[i - 1].start_us <= s->start_us);
    }
}

static void test_parts(void **state)
{
    struct answer_log *l = log_new();
    struct timeline_in *in;
    struct timeline t;

    (void)state;
    sent(l, 4, 1, 200, 1400);
    sent(l, 4, 2, 1600, 2800);
    in = timeline_new(l, 0);
    for (int i = 0; i < 2; i++) { /* the second 1400 behind the first */
        int64_t at = 1400 * i;

        assert_true(take(in, (uint64_t)i + 1, 0, at + 210, at + 220, at + 500, at + 510));
        assert_true(take(in, (uint64_t)i + 1, 1, at + 610, at + 650, at + 1050, at + 1060));
        assert_true(take(in, (uint64_t)i + 1, 2, at + 1200, at + 1200, at + 1390, at + 1395));
    }
    timeline_make(in, &t);
    adds_up(in, &t);
    assert_true(t.complete);
    near(t.all.queue, 100);
    near(t.all.head, 100 + 200 + 200);
    near(t.all.compute[0], 560);
    near(t.all.compute[1], 800);
    near(t.all.compute[2], 380);
    near(t.all.wait[0], 40);
    near(t.all.wait[1], 100);
    near(t.all.wait[2], 10);
    near(t.all.wire[0], 20);
    near(t.all.wire[1], 200);
    near(t.all.wire[2], 280);
    near(t.all.wire[3], 10);
    near(t.all.other, 0);
    near(t.first.total, 1500);
    near(t.first.head, 200);
    near(t.first.compute[1], 400);
    timeline_fini(&t);
    timeline_free(in);
    answer_log_free(l);
}

/* Chunks of a prompt overlap: an instant counts once, computing first, and two that compute at once
 * share it. */
static void test_pipelined(void **state)
{
    struct answer_log *l = log_new();
    struct timeline_in *in;
    struct timeline t;

    (void)state;
    sent(l, 4, 1, 100, 1300);
    sent(l, 4, 2, 110, 3000);
    in = timeline_new(l, 0);
    assert_true(take(in, 1, 0, 100, 100, 500, 500));
    assert_true(take(in, 1, 1, 600, 600, 1200, 1200));
    assert_true(take(in, 1, 2, 1300, 1300, 1300, 1300));
    assert_true(take(in, 2, 0, 110, 500, 1000, 1000)); /* at once with step 1 from 600 to 1000 */
    assert_true(take(in, 2, 1, 1100, 1200, 2000, 2000));
    assert_true(take(in, 2, 2, 2000, 2000, 3000, 3000));
    timeline_make(in, &t);
    adds_up(in, &t);
    near(t.all.compute[0], 500 + 200);
    near(t.all.compute[1], 200 + 200 + 800);
    near(t.all.compute[2], 1000);
    near(t.all.wait[0] + t.all.wait[1], 0); /* somebody computed all the time */
    near(t.all.wire[1], 0);
    near(t.all.head, 0);
    near(t.all.queue, 100);
    timeline_fini(&t);
    timeline_free(in);
    answer_log_free(l);
}

static void test_missing_records(void **state)
{
    struct answer_log *l = log_new();
    struct timeline_in *in;
    struct timeline t;

    (void)state;
    sent(l, 4, 1, 200, 1400);
    in = timeline_new(l, 0);
    assert_true(take(in, 1, 0, 210, 220, 500, 510));
    assert_true(take(in, 1, 2, 1200, 1200, 1390, 1395)); /* stage 1 sent nothing */
    timeline_make(in, &t);
    adds_up(in, &t);
    assert_false(t.complete);
    near(t.all.other, 1200 - 510);
    near(t.all.compute[1] + t.all.wire[1] + t.all.wire[2], 0);
    timeline_fini(&t);
    timeline_free(in);

    in = timeline_new(l, 0); /* nobody sent anything */
    timeline_make(in, &t);
    adds_up(in, &t);
    assert_false(t.complete);
    near(t.all.other, 1200);
    timeline_fini(&t);
    timeline_free(in);
    answer_log_free(l);
}

/* A clock that is ahead is set back; what it is off beyond that moves borders within the step. */
static void test_clocks(void **state)
{
    struct answer_log *l = log_new();
    struct wire_trace_record r = {.number = 1, .stage = 1};

    (void)state;
    sent(l, 4, 1, 200, 1400);
    for (int64_t off = -2000; off <= 2000; off += 250) {
        struct timeline_in *in = timeline_new(l, 0);
        struct timeline t;
        int64_t ahead = 77000000, at = START + ahead + off;

        r.arrived_us = (uint64_t)(at + 600);
        r.begun_us = (uint64_t)(at + 610);
        r.ended_us = (uint64_t)(at + 1000);
        r.sent_us = (uint64_t)(at + 1010);
        assert_true(take(in, 1, 0, 210, 220, 500, 510));
        assert_true(timeline_take(in, 1, ahead, &r));
        assert_true(take(in, 1, 2, 1200, 1200, 1390, 1395));
        timeline_make(in, &t);
        adds_up(in, &t);
        near(t.all.other, 0);
        near(t.all.compute[0], 280);
        if (off == 0)
            near(t.all.compute[1], 390);
        assert_true(t.all.compute[1] <= 390);
        timeline_fini(&t);
        timeline_free(in);
    }
    answer_log_free(l);
}

/* Steps are numbered from 1 again in a new epoch: records are of the last one, and the steps of the
 * one before are said not to be known, as is the time in which devices loaded. */
static void test_epochs(void **state)
{
    struct answer_log *l = log_new();
    struct timeline_in *in;
    struct timeline t;
    uint64_t first = 0, last = 0;

    (void)state;
    sent(l, 3, 1, 200, 600);
    sent(l, 3, 2, 700, 0); /* lost with its epoch */
    sent(l, 4, 1, 1600, 2800);
    in = timeline_new(l, 0);
    assert_int_equal(in->epoch, 4);
    assert_true(timeline_range(in, &first, &last));
    assert_true(first == 1 && last == 1);
    assert_true(take(in, 1, 0, 1610, 1620, 1900, 1910));
    assert_true(take(in, 1, 1, 2010, 2050, 2450, 2460));
    assert_true(take(in, 1, 2, 2600, 2600, 2790, 2795));
    assert_false(take(in, 2, 0, 700, 700, 700, 700)); /* there is no step 2 in this epoch */
    timeline_make(in, &t);
    adds_up(in, &t);
    assert_false(t.complete);
    for (int i = 0; i < t.n_spans; i++)
        assert_true(t.spans[i].lane == 0 || t.spans[i].start_us >= 1600);
    near(t.all.compute[0], 280);
    near(t.all.other, 400 + 900); /* both old steps, and the time up to the new epoch */
    timeline_fini(&t);
    timeline_free(in);
    answer_log_free(l);
}

/* Other people's steps, other devices' stages, twice the same, times that run backwards or are
 * beyond all measure: none of it is taken. What is taken stays within its step. */
static void test_hostile(void **state)
{
    const struct wire_trace_record good = {1,           1,           1,          START + 600,
                                           START + 610, START + 700, START + 710};
    struct answer_log *l = log_new();
    struct wire_trace_record r;
    struct timeline_in *in;
    struct timeline t;

    (void)state;
    sent(l, 4, 1, 200, 1400);
    sent(l, 4, 5, 1600, 2800);
    in = timeline_new(l, 0);
    for (int way = 0; way < 9; way++) {
        r = good;
        r.number = way == 0 ? 0 : way == 1 ? 2 : way == 2 ? UINT64_MAX : 1;
        r.stage = way == 3 ? 3 : way == 4 ? UINT64_MAX : way == 5 ? 0 : 1;
        if (way == 6)
            r.begun_us = r.arrived_us - 1;
        if (way == 7)
            r.sent_us = UINT64_MAX;
        assert_false(timeline_take(in, 1, way == 8 ? INT64_MIN : 0, &r));
    }
    r = good;
    r.rows = UINT64_MAX;
    r.arrived_us = 0;
    r.sent_us = INT64_MAX / 2;
    assert_true(timeline_take(in, 1, -(INT64_MAX / 4), &r));
    assert_false(timeline_take(in, 1, 0, &good)); /* it has been told */
    assert_true(
        timeline_take(in, 1, INT64_MAX / 4, &(struct wire_trace_record){5, 1, 1, 0, 0, 0, 0}));
    timeline_make(in, &t);
    adds_up(in, &t);
    for (int i = 0; i < t.n_spans; i++)
        if (t.spans[i].lane == 2)
            assert_true((t.spans[i].start_us >= 200 && t.spans[i].end_us <= 1400) ||
                        (t.spans[i].start_us >= 1600 && t.spans[i].end_us <= 2800));
    timeline_fini(&t);
    timeline_free(in);
    answer_log_free(l);
}

/* Of a long answer the first steps and the newest are kept. */
static void test_long(void **state)
{
    enum { STEPS = ANSWER_STEPS_MAX + 1000 };
    struct answer_log *l = log_new();
    struct timeline_in *in;
    struct timeline t;

    (void)state;
    l->ended_us = START + (int64_t)STEPS * LINE_US + 100;
    for (int i = 0; i < STEPS; i++)
        sent(l, 4, (uint64_t)i + 1, (int64_t)i * LINE_US + 100, (int64_t)(i + 1) * LINE_US);
    in = timeline_new(l, 0);
    assert_int_equal(in->n_steps, ANSWER_STEPS_MAX);
    assert_int_equal(in->gap, ANSWER_FIRST);
    for (int i = 0; i < in->n_steps; i++) {
        int64_t n = (int64_t)in->steps[i].number, at = (n - 1) * LINE_US;

        assert_true(n == (i < ANSWER_FIRST ? i + 1 : i + 1001));
        for (uint64_t s = 0; s < 3; s++)
            assert_true(take(in, (uint64_t)n, s, at + 200, at + 300, at + 400, at + 400));
    }
    timeline_make(in, &t);
    adds_up(in, &t);
    assert_false(t.complete);
    near(t.all.other, 1000.0 * LINE_US + 100); /* what was left out */
    timeline_fini(&t);
    timeline_free(in);
    answer_log_free(l);
}

static void test_under_way(void **state)
{
    struct answer_log *l = log_new();
    struct timeline_in *in;
    struct timeline t;

    (void)state;
    l->started_us = l->first_us = l->ended_us = 0;
    in = timeline_new(l, START + 700); /* it waits for a slot */
    assert_true(in->running);
    timeline_make(in, &t);
    adds_up(in, &t);
    near(t.all.queue, 700);
    near(t.first.total, 700);
    timeline_fini(&t);
    timeline_free(in);

    l->started_us = START + 100;
    sent(l, 4, 1, 200, 1400);
    sent(l, 4, 2, 1500, 0);
    in = timeline_new(l, START + 2000);
    assert_true(take(in, 2, 0, 1510, 1520, 1800, 1810)); /* and then it is on its way */
    timeline_make(in, &t);
    adds_up(in, &t);
    near(t.all.compute[0], 280);
    near(t.all.other, 1200 + 190);
    timeline_fini(&t);
    timeline_free(in);
    answer_log_free(l);
}

/* A token belongs to the newest step that is home. */
static void test_log(void **state)
{
    struct answer_log *l = log_new();

    (void)state;
    answer_log_token(l, START);
    sent(l, 4, 1, 200, 1400);
    sent(l, 4, 2, 300, 0);
    answer_log_token(l, START + 1450);
    answer_log_token(l, START + 1500);
    answer_log_home(l, 3, 2, START + 1600); /* of another epoch */
    answer_log_home(l, 4, 3, START + 1600); /* of somebody else */
    assert_int_equal(answer_log_n(l), 2);
    assert_true(answer_log_at(l, 0)->token_us == START + 1450);
    assert_true(!answer_log_at(l, 1)->home_us && !answer_log_at(l, 1)->token_us);
    answer_log_home(l, 4, 2, START + 1700);
    answer_log_home(l, 4, 2, START + 1800);
    assert_true(answer_log_at(l, 1)->home_us == START + 1700);
    answer_log_free(l);
}

static json_t *parsed(const struct timeline_in *in,
                      char *(*text_of)(const struct timeline_in *in, size_t *len))
{
    size_t len;
    char *text = text_of(in, &len);
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);

    assert_non_null(o);
    assert_int_equal(strlen(text), len);
    free(text);
    return o;
}

static void test_texts(void **state)
{
    struct answer_log *l = log_new();
    struct timeline_in *in = timeline_new(NULL, 0);
    const json_t *span, *event;
    json_t *o;
    size_t i, n_compute = 0;

    (void)state;
    o = parsed(in, timeline_text);
    assert_string_equal(json_string_value(json_object_get(o, "state")), "none");
    assert_int_equal(json_array_size(json_object_get(o, "spans")), 0);
    json_decref(o);
    json_decref(parsed(in, timeline_trace_text));
    timeline_free(in);

    sent(l, 4, 1, 200, 1400);
    in = timeline_new(l, 0);
    strcpy(in->head, "hea\"d");
    strcpy(in->stage[1].name, "\xff not UTF-8");
    strcpy(in->stage[1].modules, "attn.1");
    assert_true(take(in, 1, 0, 210, 220, 500, 510));
    assert_true(take(in, 1, 1, 610, 650, 1050, 1060));
    assert_true(take(in, 1, 2, 1200, 1200, 1390, 1395));
    o = parsed(in, timeline_text);
    assert_int_equal(json_array_size(json_object_get(o, "lanes")), 4);
    span = json_array_get(json_object_get(o, "spans"), 0);
    assert_string_equal(json_string_value(json_array_get(span, 1)), "queue");
    assert_int_equal(json_integer_value(json_array_get(span, 3)), 100);
    assert_true(json_is_null(json_object_get(o, "predicted")));
    json_decref(o);
    o = parsed(in, timeline_trace_text);
    json_array_foreach(json_object_get(o, "traceEvents"), i, event)
    {
        const char *cat = json_string_value(json_object_get(event, "cat"));

        n_compute += cat && strcmp(cat, "compute") == 0;
    }
    assert_int_equal(n_compute, 3);
    json_decref(o);
    timeline_free(in);
    answer_log_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_missing_records),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_epochs),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_under_way),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
