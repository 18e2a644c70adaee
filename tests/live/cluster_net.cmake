# Random models on disk, for tests and benches that are scripts.
add_executable(lingua-test-model ${CMAKE_SOURCE_DIR}/tests/support/write_model.c
  ${CMAKE_SOURCE_DIR}/tests/support/tiny_vocab.c ${CMAKE_SOURCE_DIR}/bench/bench_model.c)
target_include_directories(lingua-test-model PRIVATE ${CMAKE_SOURCE_DIR}/bench)
target_link_libraries(lingua-test-model PRIVATE test_support)

# A cluster over a network that can be cut.
add_test(NAME live_cluster_net COMMAND node ${CMAKE_SOURCE_DIR}/tests/live/cluster_net.mjs $<TARGET_FILE:lingua>
  $<TARGET_FILE:lingua-netswitch> $<TARGET_FILE:lingua-test-model>)
# Alone: it holds the 3 s in which a user hears of a loss.
set_tests_properties(live_cluster_net PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600 PROCESSORS 2)

add_test(NAME live_cluster_trace COMMAND node ${CMAKE_SOURCE_DIR}/tests/live/cluster_trace.mjs $<TARGET_FILE:lingua>
  $<TARGET_FILE:lingua-test-model>)
set_tests_properties(live_cluster_trace PROPERTIES TIMEOUT 300)

# What is resident under the sanitizers says nothing.
if(NOT LINGUA_SANITIZE)
  add_test(NAME live_cluster_memory COMMAND node ${CMAKE_SOURCE_DIR}/tests/live/cluster_memory.mjs $<TARGET_FILE:lingua>
    $<TARGET_FILE:lingua-test-model>)
  set_tests_properties(live_cluster_memory PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
endif()
