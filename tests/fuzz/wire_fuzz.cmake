# fuzz.cmake, which comes before this in the alphabet, has lingua_fuzz.
if(COMMAND lingua_fuzz)
  lingua_fuzz(fuzz_wire ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_wire.c LIBS lingua_wire)
endif()
