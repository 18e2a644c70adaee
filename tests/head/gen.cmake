# What lies between the core and the API.
if(NOT LINGUA_JOIN_ONLY)
  foreach(name pool gen_text timeline)
    lingua_test(test_${name} ${CMAKE_SOURCE_DIR}/tests/head/test_${name}.c LIBS lingua_head)
  endforeach()
endif()
