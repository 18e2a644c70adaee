# golden.cmake, which comes before this in the alphabet, has the rig.
lingua_test(test_hidden ${CMAKE_SOURCE_DIR}/tests/golden/test_hidden.c LIBS test_rig)
