/* What the program says to people, and the numbers in it. stdout carries results alone (generated
 * text, tables asked for, JSON); everything said goes to stderr. */
#ifndef LINGUA_CLI_SAY_H
#define LINGUA_CLI_SAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "lingua: <sentence>" and a newline, on stderr. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Writes to stdout and flushes. Returns 0, or the errno of the failure. */
int out_write(const char *bytes, size_t n);
/* What to do about out_write's errno: says the reason and returns STATUS_FAILED, except when the
 * reader has simply seen enough (`| head`): then it is quiet and returns STATUS_OK. */
int out_failed(int reason);
/* The end of a command that wrote to stdout by stdio: the exit status, 0 when all went out. */
int out_finish(void);

enum { NUM_MAX = 32 };
/* Each writes into buf and returns it. */
const char *num_bytes(char buf[NUM_MAX], uint64_t n);     /* 637 MB, 288 B: in thousands */
const char *num_mib(char buf[NUM_MAX], uint64_t n);       /* 606.53 MiB, as llama-bench has it */
const char *num_short(char buf[NUM_MAX], double n);       /* 1.10 B, 15.2 M, 288 */
const char *num_thousands(char buf[NUM_MAX], uint64_t n); /* 32,000 */
const char *num_duration(char buf[NUM_MAX], double s);    /* 12 s, 3 min 20 s, 1 h 5 min */

/* Long work: a line that rewrites itself on a terminal, and elsewhere one line every few seconds.
 * Nothing is shown of work that is over at once. */
struct progress {
    const char *what;
    double began_s, shown_s;
    bool on_screen;
};
void progress_begin(struct progress *p, const char *what);
void progress_show(struct progress *p, uint64_t done, uint64_t total);
void progress_end(struct progress *p); /* wipes the line */

double now_s(void); /* monotonic */

#endif
