lingua_test(test_metrics ${CMAKE_CURRENT_LIST_DIR}/test_metrics.c ${CMAKE_CURRENT_LIST_DIR}/page.c LIBS lingua_api)
target_include_directories(test_metrics PRIVATE ${CMAKE_SOURCE_DIR}/tests)
target_compile_definitions(test_metrics PRIVATE DOCS="${CMAKE_SOURCE_DIR}/docs")
