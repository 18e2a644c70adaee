# Makes networks of its own, as root; elsewhere ctest says that it was skipped.
lingua_test(test_discover ${CMAKE_SOURCE_DIR}/tests/live/test_discover.c LIBS lingua_link)
set_tests_properties(test_discover PROPERTIES SKIP_REGULAR_EXPRESSION "SKIPPED: " TIMEOUT 200)
