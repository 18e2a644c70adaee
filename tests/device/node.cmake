# A device's life under a head that does as the test says, over real links on this machine.
lingua_test(test_node ${CMAKE_SOURCE_DIR}/tests/device/test_node.c ${CMAKE_SOURCE_DIR}/tests/device/fake_head.c
  LIBS test_rig lingua_device)
set_tests_properties(test_node PROPERTIES TIMEOUT 300)
