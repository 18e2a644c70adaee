lingua_test(test_wire ${CMAKE_SOURCE_DIR}/tests/unit/test_wire.c LIBS lingua_wire)
lingua_test(test_step_want ${CMAKE_SOURCE_DIR}/tests/unit/test_step_want.c LIBS lingua_wire)
