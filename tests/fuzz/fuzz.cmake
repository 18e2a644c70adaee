# Fuzz targets: one file with LLVMFuzzerTestOneInput, one corpus folder beside this list.
#
# Every build has <name>_corpus, a plain program that feeds the whole corpus to the target; ctest runs it as the test <name>_corpus.
# The fuzzer itself wants clang and its own build folder:
#
#   CC=clang CXX=clang++ cmake -S . -B build-fuzz -G Ninja -DLINGUA_FUZZ=ON -DLINGUA_SANITIZE=ON
#   ninja -C build-fuzz fuzz_modelfile
#   mkdir -p build-fuzz/found
#   build-fuzz/fuzz_modelfile -max_total_time=300 -max_len=16384 -timeout=5 -rss_limit_mb=512 build-fuzz/found tests/fuzz/corpus/modelfile
#
# New inputs go to the first folder. A finding is a file crash-*, oom-* or timeout-*: run the program on that file alone to see it,
# fix it, and keep the file in the corpus under a name that says what it was. `fuzz_modelfile_seeds FOLDER` writes the seeds again.

# lingua_fuzz(fuzz_NAME SOURCES... LIBS libraries...): corpus in corpus/NAME.
function(lingua_fuzz name)
  cmake_parse_arguments(F "" "" "LIBS" ${ARGN})
  string(REGEX REPLACE "^fuzz_" "" corpus ${name})
  set(corpus ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${corpus})
  add_executable(${name}_corpus ${F_UNPARSED_ARGUMENTS} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus_main.c)
  target_link_libraries(${name}_corpus PRIVATE lingua_flags ${F_LIBS})
  target_include_directories(${name}_corpus PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  add_test(NAME ${name}_corpus COMMAND ${name}_corpus ${corpus})
  if(LINGUA_FUZZ)
    add_executable(${name} ${F_UNPARSED_ARGUMENTS})
    target_link_libraries(${name} PRIVATE lingua_flags ${F_LIBS})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer,address)
  endif()
endfunction()

lingua_fuzz(fuzz_modelfile ${CMAKE_CURRENT_LIST_DIR}/fuzz_modelfile.c LIBS lingua_model)
add_executable(fuzz_modelfile_seeds EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/fuzz_modelfile_seeds.c
  ${CMAKE_SOURCE_DIR}/tests/support/gguf_bytes.c)
target_link_libraries(fuzz_modelfile_seeds PRIVATE lingua_flags)
target_include_directories(fuzz_modelfile_seeds PRIVATE ${CMAKE_SOURCE_DIR}/tests)
