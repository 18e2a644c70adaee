lingua_test(test_mdns ${CMAKE_SOURCE_DIR}/tests/unit/test_mdns.c LIBS lingua_link)
