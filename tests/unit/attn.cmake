# The attention kernel against plain arithmetic, and against itself compiled for a narrower CPU.
lingua_test(test_attn ${CMAKE_SOURCE_DIR}/tests/unit/test_attn.c LIBS lingua_model)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
  add_library(attn_avx2 OBJECT ${CMAKE_SOURCE_DIR}/tests/unit/attn_avx2.c)
  target_link_libraries(attn_avx2 PRIVATE lingua_flags engine_ggml)
  target_compile_options(attn_avx2 PRIVATE -mavx2 -mfma -mf16c -O3 -ffp-contract=fast -Wno-psabi)
  target_link_libraries(test_attn PRIVATE attn_avx2)
  target_compile_definitions(test_attn PRIVATE HAVE_AVX2_TWIN)
endif()
