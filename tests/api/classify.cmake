lingua_test(test_classify ${CMAKE_CURRENT_LIST_DIR}/test_classify.c LIBS lingua_head)
