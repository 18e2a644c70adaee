/* The attention kernel once more, for AVX2 whatever the build is for (attn.cmake). */
#define attn_run           attn_run_avx2
#define attn_scratch_bytes attn_scratch_bytes_avx2
#include "../../src/model/attn.c"
