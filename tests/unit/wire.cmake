lingua_test(test_wire ${CMAKE_SOURCE_DIR}/tests/unit/test_wire.c LIBS lingua_wire)
