lingua_test(test_matmul_q8 ${CMAKE_SOURCE_DIR}/tests/unit/test_matmul_q8.c LIBS lingua_model)
