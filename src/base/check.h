/* CHECK(x): an invariant of our own code. It stays in release builds, says what and where, and
 * aborts: a program that has lost its own rules must not go on answering. Never CHECK bytes that
 * came from outside; those get an `enum err` (err.h). */
#ifndef LINGUA_BASE_CHECK_H
#define LINGUA_BASE_CHECK_H

#define CHECK(x) ((x) ? (void)0 : check_failed(#x, __FILE__, __LINE__))

_Noreturn void check_failed(const char *what, const char *file, int line);

#endif
