add_library(test_support STATIC ${CMAKE_SOURCE_DIR}/tests/support/tiny_model.c
  ${CMAKE_SOURCE_DIR}/tests/support/ref_llama.c)
target_include_directories(test_support PUBLIC ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(test_support PUBLIC lingua_flags lingua_base engine_llama)

add_executable(ref_greedy ${CMAKE_SOURCE_DIR}/tests/golden/ref_greedy.c)
target_link_libraries(ref_greedy PRIVATE test_support)
