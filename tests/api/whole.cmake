# The API over whole clusters in this process, with the default model.
lingua_test(test_whole ${CMAKE_CURRENT_LIST_DIR}/test_whole.c ${CMAKE_CURRENT_LIST_DIR}/page.c LIBS test_town_rig lingua_api)
set_tests_properties(test_whole PROPERTIES TIMEOUT 300)
lingua_test_needs_model(test_whole)
