lingua_test(test_words ${CMAKE_CURRENT_LIST_DIR}/test_words.c LIBS lingua_base)
