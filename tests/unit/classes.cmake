lingua_test(test_classes ${CMAKE_CURRENT_LIST_DIR}/test_classes.c LIBS test_support lingua_model)
