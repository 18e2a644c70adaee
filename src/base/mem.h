/* Memory for sizes we choose ourselves: these abort when the system has none, because no caller
 * could do better. Sizes that others choose (a frame, a file, a prompt) meet a limit first, and big
 * ones go through mem_try. Free with free(). */
#ifndef LINGUA_BASE_MEM_H
#define LINGUA_BASE_MEM_H

#include <stddef.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

void *mem_alloc(size_t size);                      /* uninitialised; size 0 gives a valid pointer */
void *mem_zalloc(size_t n, size_t size);           /* n * size zero bytes, overflow checked */
void *mem_realloc(void *p, size_t n, size_t size); /* as realloc(p, n * size), overflow checked */
char *mem_strdup(const char *s);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *mem_try(size_t n,
              size_t size); /* zero bytes, or NULL on overflow or when there is no memory */

/* Zero bytes in pages of their own, which go back to the system with mem_pages_free; NULL when there
 * is no memory. Not for free(). */
void *mem_pages(size_t bytes);
void mem_pages_free(void *p, size_t bytes); /* NULL is nothing */
/* Asks for huge pages wherever a whole one fits in p[0..bytes), before it is written to; a system without
 * them goes on with small ones. No page outside is touched, so memory in use does not grow. */
void mem_huge(void *p, size_t bytes);

#endif
