# fuzz.cmake, which comes before this in the alphabet, has lingua_fuzz.
if(COMMAND lingua_fuzz)
  lingua_fuzz(fuzz_api ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_api.c ${CMAKE_SOURCE_DIR}/tests/fuzz/api_world.c
    ${CMAKE_SOURCE_DIR}/tests/support/tiny_vocab.c LIBS lingua_api)
  foreach(target fuzz_api fuzz_api_corpus)
    if(TARGET ${target})
      foreach(name clock_us event_active model_shape RAND_bytes apart_run) # api_world.c has its own
        target_link_options(${target} PRIVATE -Wl,--wrap=${name})
      endforeach()
    endif()
  endforeach()
  add_executable(fuzz_api_seeds EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_api_seeds.c)
  target_link_libraries(fuzz_api_seeds PRIVATE lingua_flags)
endif()
