set(plan_instance ${CMAKE_SOURCE_DIR}/tests/plan/instance.c)
lingua_test(test_place_brute ${CMAKE_SOURCE_DIR}/tests/plan/test_place_brute.c ${plan_instance} LIBS lingua_plan)
lingua_test(test_scratch ${CMAKE_SOURCE_DIR}/tests/plan/test_scratch.c LIBS test_support lingua_plan)
lingua_test_needs_model(test_scratch)
