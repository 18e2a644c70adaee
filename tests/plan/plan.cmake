lingua_test(test_place ${CMAKE_SOURCE_DIR}/tests/plan/test_place.c LIBS lingua_plan)
lingua_test(test_scratch ${CMAKE_SOURCE_DIR}/tests/plan/test_scratch.c LIBS test_support lingua_plan)
lingua_test_needs_model(test_scratch)
