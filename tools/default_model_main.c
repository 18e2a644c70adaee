/* lingua-default-model [--f16] [OUT]: fetches the default model if it is not there yet and prints
 * its path. For scripts and tests; `lingua run` does the same by itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/default_model.h"

static void say(const char *line)
{
    fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv)
{
    enum llama2c_type type = LLAMA2C_Q8_0;
    struct err_text et;
    char *path;
    int i = 1;

    if (i < argc && strcmp(argv[i], "--f16") == 0) {
        type = LLAMA2C_F16;
        i++;
    }
    if (argc - i > 1 || (i < argc && argv[i][0] == '-')) {
        fprintf(stderr, "usage: lingua-default-model [--f16] [OUT]\n");
        return 2;
    }
    if (default_model_get(type, argv[i], say, &path, &et)) {
        fprintf(stderr, "lingua-default-model: %s\n", et.text);
        return 1;
    }
    puts(path);
    free(path);
    return 0;
}
