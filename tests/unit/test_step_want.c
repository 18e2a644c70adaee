/* What rows want, on its way: of one kind per step, known to the decoder, and the same in the result;
 * and which steps count as decoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "step.pb-c.h"
#include "wire/step.h"

enum { ROWS = 5, WIDTH = 3 };

static struct err_text et;

static void to_frame(const struct frame_out *out, uint8_t **bytes, struct frame *f)
{
    *bytes = malloc(out->total);
    frame_copy(out, *bytes);
    assert_int_equal(frame_decode(*bytes, out->total, f, &et), ERR_NONE);
}

/* ROWS neighbouring rows of one slot. */
static struct step step_of(const uint8_t *want)
{
    static const int32_t slot[ROWS] = {4, 4, 4, 4, 4}, pos[ROWS] = {7, 8, 9, 10, 11};
    struct step s = {.number = 1, .epoch = 1, .n_rows = ROWS, .slot = slot, .pos = pos};

    s.want = want;
    for (int i = 0; i < ROWS; i++)
        s.n_want += want[i] != 0;
    return s;
}

static void wishes_come_through(void **state)
{
    static const uint8_t wants[][ROWS] = {
        {0, 0, 0, 0, 0}, {1, 1, 1, 1, 1}, {2, 2, 2, 2, 2}, {0, 1, 1, 0, 1}, {2, 0, 0, 2, 0}};
    static const enum step_want kinds[] = {STEP_WANT_NOTHING, STEP_WANT_LOGITS, STEP_WANT_HIDDEN,
                                           STEP_WANT_LOGITS, STEP_WANT_HIDDEN};
    struct step_codec *c = step_codec_new();

    (void)state;
    for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) {
        struct step s = step_of(wants[i]), back;
        struct frame_out out;
        struct frame f;
        uint8_t *bytes;

        assert_int_equal(step_wants(&s), kinds[i]);
        step_encode(c, &s, &out);
        to_frame(&out, &bytes, &f);
        assert_int_equal(step_decode(c, &f, &back, &et), ERR_NONE);
        assert_memory_equal(back.want, wants[i], ROWS);
        assert_int_equal(back.n_want, s.n_want);
        assert_int_equal(step_wants(&back), kinds[i]);
        free(bytes);
    }
    step_codec_free(c);
}

static void unknown_wishes_are_refused(void **state)
{
    struct step_codec *c = step_codec_new();
    uint32_t run[] = {4, 7, ROWS}, want[] = {1, 2};

    (void)state;
    for (uint32_t wants = 0; wants < 4; wants++) {
        Lingua__Wire__Step m = LINGUA__WIRE__STEP__INIT;
        uint8_t header[64 + 3], *bytes;
        struct frame_out out = {.n_payloads = 0};
        struct step back;
        struct frame f;

        m.number = 1;
        m.runs = run;
        m.n_runs = 3;
        m.want = want;
        m.n_want = 2;
        m.wants = wants == 3 ? UINT32_MAX : wants;
        frame_finish(&out, FRAME_STEP, header, lingua__wire__step__pack(&m, header));
        to_frame(&out, &bytes, &f);
        assert_int_equal(step_decode(c, &f, &back, &et), wants < 2 ? ERR_NONE : ERR_PROTO);
        free(bytes);
    }
    step_codec_free(c);
}

static void results_say_what_they_are(void **state)
{
    static const uint8_t want[2][ROWS] = {{0, 0, 1, 1, 0}, {0, 0, 2, 2, 0}};
    static const float data[2 * WIDTH] = {1, 2, 3, 4, 5, 6};
    struct step_codec *c = step_codec_new();

    (void)state;
    for (int hidden = 0; hidden < 2; hidden++) {
        struct step s = step_of(want[hidden]);
        struct result r, back;
        struct frame_out out;
        struct frame f;
        uint8_t *bytes;

        step_result(&s, 99, &r); /* no tensors: none of its rows got here, or it has none */
        assert_int_equal(r.n_rows, 0);
        assert_int_equal(r.width, 99);
        s.in = (struct step_tensors){1, 2, {WIDTH}, {data}};
        step_result(&s, 99, &r);
        result_encode(c, &r, &out);
        to_frame(&out, &bytes, &f);
        assert_int_equal(result_decode(c, &f, &back, &et), ERR_NONE);
        assert_int_equal(back.kind, hidden ? STEP_WANT_HIDDEN : STEP_WANT_LOGITS);
        assert_int_equal(back.n_rows, 2);
        assert_int_equal(back.width, WIDTH);
        assert_memory_equal(back.logits, data, sizeof data);
        free(bytes);
        memset(&s.in, 0, sizeof s.in);
        s.code = err_set(&s.reason, ERR_MEMORY, "no room");
        step_result(&s, 99, &r);
        assert_int_equal(r.width, 0);
        result_encode(c, &r, &out);
        to_frame(&out, &bytes, &f);
        assert_int_equal(result_decode(c, &f, &back, &et), ERR_NONE);
        assert_int_equal(back.code, ERR_MEMORY);
        free(bytes);
    }
    step_codec_free(c);
}

static void decode_steps_have_each_row_in_a_slot_of_its_own(void **state)
{
    int32_t slot[STEP_DECODE_ROWS + 1], pos[STEP_DECODE_ROWS + 1];
    struct step s = {.number = 1, .slot = slot, .pos = pos};

    (void)state;
    for (int i = 0; i <= STEP_DECODE_ROWS; i++) {
        slot[i] = i;
        pos[i] = 10 - i % 3;
    }
    assert_false(step_decodes(&s)); /* only slot changes */
    for (s.n_rows = 1; s.n_rows <= STEP_DECODE_ROWS; s.n_rows++)
        assert_true(step_decodes(&s));
    assert_false(step_decodes(&s)); /* too many */
    s.n_rows = 3;
    slot[2] = slot[1];
    pos[2] = pos[1] + 1;
    assert_false(step_decodes(&s)); /* two of a prompt */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wishes_come_through),
        cmocka_unit_test(unknown_wishes_are_refused),
        cmocka_unit_test(results_say_what_they_are),
        cmocka_unit_test(decode_steps_have_each_row_in_a_slot_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
