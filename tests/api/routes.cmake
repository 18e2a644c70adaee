lingua_test(test_routes ${CMAKE_CURRENT_LIST_DIR}/test_routes.c ${CMAKE_CURRENT_LIST_DIR}/fake_work.c
  ${CMAKE_CURRENT_LIST_DIR}/page.c ${CMAKE_SOURCE_DIR}/tests/support/tiny_vocab.c LIBS lingua_api)
target_include_directories(test_routes PRIVATE ${CMAKE_SOURCE_DIR}/tests)
target_compile_definitions(test_routes PRIVATE SOURCES="${CMAKE_SOURCE_DIR}")
