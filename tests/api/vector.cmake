lingua_test(test_vector ${CMAKE_CURRENT_LIST_DIR}/test_vector.c LIBS lingua_api)
