# fuzz.cmake, which comes before this in the alphabet, has lingua_fuzz.
if(COMMAND lingua_fuzz)
  lingua_fuzz(fuzz_mdns ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_mdns.c LIBS lingua_link)
endif()
