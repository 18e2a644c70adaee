lingua_test(test_report ${CMAKE_SOURCE_DIR}/tests/plan/test_report.c LIBS lingua_plan)
