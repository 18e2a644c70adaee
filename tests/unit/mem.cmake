lingua_test(test_mem ${CMAKE_CURRENT_LIST_DIR}/test_mem.c LIBS lingua_base)
