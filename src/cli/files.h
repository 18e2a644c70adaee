/* Whole files in and out, for prompts and conversations. */
#ifndef LINGUA_CLI_FILES_H
#define LINGUA_CLI_FILES_H

#include <stddef.h>
#include <stdio.h>

enum { FILE_BYTES_MAX = 16 << 20 }; /* more text than any context holds */

/* Reads to the end; on failure says why and returns -1. gives *bytes, terminated: free with
 * free(). */
int file_read(const char *path, char **bytes, size_t *n);
int stream_read(FILE *f, const char *name, char **bytes, size_t *n);

/* A text file ends in a newline its author did not mean as part of the prompt: drops one. */
void newline_drop(char *bytes, size_t *n);

#endif
