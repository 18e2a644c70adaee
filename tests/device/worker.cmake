# The compute thread, with tiny models and an event loop.
lingua_test(test_worker ${CMAKE_SOURCE_DIR}/tests/device/test_worker.c LIBS test_rig lingua_device)
set_tests_properties(test_worker PROPERTIES TIMEOUT 120)
