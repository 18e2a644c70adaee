# How quick a link is, over two ends of one event loop.
lingua_test(test_probe ${CMAKE_SOURCE_DIR}/tests/device/test_probe.c ${CMAKE_SOURCE_DIR}/tests/link/link_rig.c LIBS lingua_device)
target_include_directories(test_probe PRIVATE ${CMAKE_SOURCE_DIR}/tests)
set_tests_properties(test_probe PROPERTIES TIMEOUT 120)
