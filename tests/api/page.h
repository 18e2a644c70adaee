/* Reads Prometheus' text format, version 0.0.4, as a strict reader would: for tests of what is
 * served. */
#ifndef TESTS_API_PAGE_H
#define TESTS_API_PAGE_H

#include <stdbool.h>

enum {
    PAGE_FAMILIES_MAX = 128,
    PAGE_SAMPLES_MAX = 2048,
    PAGE_LABELS_MAX = 4,
    PAGE_NAME_MAX = 128,
    PAGE_WHY_MAX = 256
};

struct page {
    int n_families, n_samples;
    struct page_family {
        char name[PAGE_NAME_MAX], type[16];
    } family[PAGE_FAMILIES_MAX];
    struct page_sample {
        char name[PAGE_NAME_MAX];
        int family, n_labels;
        struct {
            char name[PAGE_NAME_MAX], value[PAGE_NAME_MAX]; /* unescaped */
        } label[PAGE_LABELS_MAX];
        double value;
    } sample[PAGE_SAMPLES_MAX];
    char why[PAGE_WHY_MAX]; /* when it is refused */
};

/* False: why says what is wrong. Checked are: names, labels and their escapes, values, HELP and TYPE
 * once in front of each family's samples, which stand together, no sample twice, histograms whose
 * buckets rise to +Inf and agree with their count. */
bool page_read(const char *text, struct page *p);
/* -1: there is none of that name. */
int page_family(const struct page *p, const char *name);
/* The sample with just these labels ("a=b,c=d", in the page's order, or ""); NULL: none. */
const struct page_sample *page_sample(const struct page *p, const char *name, const char *labels);

#endif
