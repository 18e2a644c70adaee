lingua_test(test_matmul_q4 ${CMAKE_SOURCE_DIR}/tests/unit/test_matmul_q4.c LIBS lingua_model)
target_include_directories(test_matmul_q4 PRIVATE ${CMAKE_SOURCE_DIR}/tests)
