# fuzz.cmake, which comes before this in the alphabet, has lingua_fuzz.
lingua_fuzz(fuzz_manifest ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_manifest.c LIBS lingua_device)
