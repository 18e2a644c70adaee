lingua_test(test_plan_json ${CMAKE_SOURCE_DIR}/tests/unit/test_plan_json.c LIBS test_support lingua_head)
